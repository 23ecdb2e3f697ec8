"""The interface of a task: seeded sequences, the model's head, a metric and its baseline."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbptt import _checks
from kbptt._checks import check_seed

if TYPE_CHECKING:
    import keras

    from kbptt.data import Streams

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class TaskData:
    """NumPy arrays of a task: one pair `(x, y)` for each split.

    `x` is `(samples, timesteps, features)` of float32, or `(samples, timesteps)` of int32 if the
    task has a vocabulary. `y` is `(samples, ...)`, with a timesteps axis if the task has an answer
    at every timestep.
    """

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class TaskStreams:
    """`kbptt.data.Streams` of a task, one for each split: see `Task.streams`."""

    train: "Streams"
    validation: "Streams"
    test: "Streams"


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The head of a task's model: a Dense layer after the last recurrent layer.

    Args:
        units: Integer. Width of the head.
        activation: Its activation. Defaults to `None` (linear: logits for a classification).
        per_timestep: Boolean, whether the task answers at every timestep or after the last one.
            Defaults to `False`.
    """

    units: int
    activation: str | None = None
    per_timestep: bool = False


def derive_seed(seed: int, name: str) -> int:
    """Returns the seed of the component `name` in a run seeded with `seed`.

    Every component (a split of the data, a layer's kernel, the shuffling) has its own generator, so
    if a method draws one more number, nothing else changes, and two methods with the same seed
    start from the same weights and see the same data in the same order.

    Args:
        seed: Non-negative integer.
        name: String, the component's name.

    Returns:
        An integer in `[0, 2**31)`, the same on every machine.
    """
    check_seed(seed)
    digest = hashlib.sha256(f"{int(seed)}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


class Task:
    """Base class of the tasks.

    To define a task, subclass it with the attributes below and `sample`:

    ```python
    @kbptt.tasks.register("parity")
    class Parity(kbptt.tasks.Task):
        metric, mode, baseline, success = "accuracy", "max", 0.5, 0.99
        outputs = kbptt.tasks.Outputs(2)

        def __init__(self, length=50, sizes=(2000, 500, 500)):
            super().__init__(length, sizes)

        def sample(self, generator, count):
            bits = generator.integers(0, 2, size=(count, self.length, 1))
            return bits.astype("float32"), bits.sum(axis=(1, 2)) % 2
    ```

    The arguments of `__init__` are the options of `kbptt.tasks.get`.

    Args:
        length: Integer. Timesteps of one sequence.
        sizes: Three integers: sequences for training, validation and test.

    Attributes:
        name: The name the task is registered under.
        metric: Key of the primary metric in what `model.evaluate(return_dict=True)` returns:
            "accuracy", "cross_entropy" (nats), "bits" or "mse".
        mode: "max" or "min", the better direction of `metric`.
        baseline: The metric of the best predictor without memory; NaN if unknown.
        perfect: The metric of a perfect answer, or `None` (default): 1 for mode "max", 0 for "min".
        success: The metric at which the task counts as solved, or `None` if there is none.
        length: Timesteps of `x`.
        features: Features of `x` at a timestep, where `vocabulary` is `None`.
        vocabulary: Number of distinct integer tokens in `x`, or `None` for float features.
        outputs: The head, an `Outputs`.
        file: Path of the user's file that the data comes from, or `None`. An ablation records its
            digest, so results from two versions of a file are never mixed.
        counts_in: What the timesteps are, in the plural. Defaults to `"timesteps"`.
    """

    name: str = ""
    metric: str = "accuracy"
    mode: str = "max"
    baseline: float
    perfect: float | None = None
    success: float | None = None
    features: int = 1
    vocabulary: int | None = None
    outputs: Outputs
    file: str | Path | None = None
    counts_in: str = "timesteps"

    def __init__(self, length: int, sizes: Sequence[int]):
        self.length: int = _checks.positive_integer("length", length)
        self.sizes: tuple[int, int, int] = check_sizes(sizes)

    def sample(self, generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws `count` sequences and their answers `(x, y)`."""
        raise NotImplementedError(f"{type(self).__name__} must override `sample` or `data`.")

    def data(self, seed: int) -> TaskData:
        """Returns the `TaskData` of this seed. Each split has its own generator."""
        return TaskData(
            *(
                self.sample(np.random.default_rng(derive_seed(seed, f"data/{split}")), size)
                for split, size in zip(SPLITS, self.sizes, strict=True)
            )
        )

    @property
    def has_streams(self) -> bool:
        """Whether the sequences are consecutive in time, so that there are `streams`."""
        return type(self).series is not Task.series

    def series(self, seed: int) -> TaskData:
        """Returns each part of a task with consecutive sequences as one long sequence.

        `x` and `y` of a part are its steps and their targets, ``(timesteps, …)``. For validation
        and test they are the steps of the sequences of `data`, so that scores are comparable,
        however the steps are read. Only for tasks that answer at every timestep.
        """
        raise NotImplementedError(f"{type(self).__name__} must override `series` to have streams.")

    def streams(self, seed: int, batch_size: int = 32) -> TaskStreams:
        """The task as `kbptt.data.Streams`, in windows of `length` steps.

        The training part is one stream in `batch_size` rows, whose windows begin at different
        places in every epoch. Validation and test each have one row, read from beginning to end:
        one pass with the states carried along, whatever the batch size.

        Args:
            seed: Non-negative integer, the seed of the run.
            batch_size: Positive integer. Rows of the training stream; there are fewer if rows would
                be shorter than two windows, because no state would be carried. Defaults to `32`.

        Raises:
            NotImplementedError: If the task has no `series`.
        """
        from kbptt.data import Streams

        series = self.series(seed)

        def windows(x: np.ndarray, y: np.ndarray, rows: int, offset: Any) -> "Streams":
            return Streams(
                x,
                y,
                length=self.length,
                batch_size=rows,
                target=None,
                offset=offset,
                seed=derive_seed(seed, "stream"),
            )

        rows = max(1, len(series.train[0]) // (2 * self.length))
        batch_size = _checks.positive_integer("batch_size", batch_size)
        return TaskStreams(
            windows(*series.train, min(batch_size, rows), "random"),
            windows(*series.validation, 1, 0),
            windows(*series.test, 1, 0),
        )

    def describe(self) -> str | None:
        """A sentence about choices of the task that the user should know about, or `None`."""
        return None

    def digest(self) -> str | None:
        """SHA-256 of the content of `file` in hexadecimal; `None` without one."""
        if self.file is None:
            return None
        try:
            return hashlib.sha256(Path(self.file).expanduser().read_bytes()).hexdigest()
        except OSError as error:
            raise ValueError(f"Cannot read {self.file}: {error.strerror}.") from error

    def loss(self) -> "keras.losses.Loss":
        """Returns the loss to compile with."""
        import keras

        if self.metric == "mse":
            return keras.losses.MeanSquaredError()
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def metrics(self) -> list["keras.metrics.Metric"]:
        """Returns new metrics to compile with; the primary one first."""
        import keras

        if self.metric == "mse":
            return [keras.metrics.MeanSquaredError(name="mse")]
        if self.metric == "accuracy":
            return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        if self.metric == "cross_entropy":
            return [
                keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
                keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            ]
        if self.metric == "bits":
            from kbptt.tasks.keras_objects import BitsPerSymbol

            return [BitsPerSymbol(name="bits")]
        raise NotImplementedError(
            f"{type(self).__name__} must override `metrics`: `metric` is {self.metric!r}."
        )

    def recurrent_layer(self, **arguments: Any) -> "keras.layers.Layer | None":
        """Returns the task's own recurrent layer, or `None` to use the requested one.

        Only a task that *is* a fixed dynamical system overrides this.
        """
        return None


def check_sizes(sizes: Any) -> tuple[int, int, int]:
    """Returns `sizes` as three positive integers, or raises `ValueError`."""
    if isinstance(sizes, str) or not isinstance(sizes, Sequence) or len(sizes) != 3:
        raise ValueError(
            "Invalid value for argument `sizes`. Expected three integers, the numbers of "
            f"sequences for training, validation and test. Received: sizes={sizes!r}."
        )
    train, validation, test = (
        _checks.positive_integer(f"sizes ({split})", size)
        for split, size in zip(SPLITS, sizes, strict=True)
    )
    return train, validation, test
