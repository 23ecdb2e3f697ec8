"""What a trial trains on and is judged by: independent windows, or streams."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from kbptt import data, tasks
from kbptt.callbacks import StreamState
from kbptt.streams import evaluate_stream

Labelled: TypeAlias = tuple[np.ndarray, np.ndarray]


class Windows:
    """Sequences that do not follow each other: shuffled, each from the initial state.

    Args:
        task: The `kbptt.tasks.Task`.
        seed: Non-negative integer, the seed of the run.
        batch_size: Integer. Sequences in a batch.

    Attributes:
        steps_per_epoch: Training steps of an epoch.
        timesteps: Timesteps of the training sequences that an epoch reads.
        callbacks: What `fit` needs besides the callbacks of the method.
    """

    def __init__(self, task: tasks.Task, seed: int, batch_size: int) -> None:
        self._task = task
        self._data: tasks.TaskData = task.data(seed)
        self._seed, self._batch_size = seed, batch_size
        samples, timesteps = self._data.train[0].shape[:2]
        self.steps_per_epoch: int = -(-samples // batch_size)
        self.timesteps: int = samples * timesteps
        self.callbacks: Sequence[keras.callbacks.Callback] = ()

    def describe(self) -> str:
        """The kind and the size of what a step reads."""
        return f"independent windows of {self._task.length} {self._task.counts_in}"

    def arguments(self, epochs: int, first_epoch: int) -> dict[str, Any]:
        """Training and validation data as arguments of `model.fit`, from an epoch to the last."""
        order = self._batch_size, self._seed, epochs, first_epoch
        return {
            "x": tasks.batches(self._data.train, *order),
            "steps_per_epoch": self.steps_per_epoch,
            "validation_data": self._data.validation,
            "validation_batch_size": self._batch_size,
        }

    def evaluate(self, model: keras.Model) -> Mapping[str, float]:
        """All metrics on the test data."""
        return model.evaluate(
            *self._data.test, batch_size=self._batch_size, verbose=0, return_dict=True
        )

    def validation_windows(self, count: int) -> Labelled:
        """The first sequences of the validation data, and their targets."""
        x, y = self._data.validation
        return x[:count], y[:count]


class Streams:
    """The windows of `Task.streams`, the states carried on, in validation and test too.

    Args and attributes as those of `Windows`; a batch has `batch_size` rows or fewer.
    """

    def __init__(self, task: tasks.Task, seed: int, batch_size: int) -> None:
        self._task = task
        self._data: tasks.TaskStreams = task.streams(seed, batch_size)
        self._batch_size = batch_size
        self.steps_per_epoch: int = len(self._data.train)
        self.timesteps: int = int(self._data.train.sequences.sizes.sum())
        self.callbacks: Sequence[keras.callbacks.Callback] = [StreamState(self._data.train)]

    def describe(self) -> str:
        rows, length = self._data.train.rows, self._task.length
        found = f"streams of {rows} rows × {length} {self._task.counts_in}"
        if rows < self._batch_size:
            found += f" ({self._batch_size} rows would each have fewer than two windows)"
        return found

    def arguments(self, epochs: int, first_epoch: int) -> dict[str, Any]:
        train = self._data.train
        # What a window reads follows from the seed and its position alone.
        train.seek(first_epoch * len(train))
        return {"x": train, "validation_data": self._data.validation}

    def evaluate(self, model: keras.Model) -> Mapping[str, float]:
        return evaluate_stream(model, self._data.test)

    def validation_windows(self, count: int) -> Labelled:
        windows = self._data.validation
        count = min(count, len(windows))
        x, y, _ = zip(*(windows[index] for index in range(count)), strict=True)
        return np.concatenate(x), np.concatenate(y)


def check(model: keras.Model) -> None:
    """Raises `ValueError` if a layer of a model cannot carry its state on from window to window."""
    state = StreamState(data.Streams(np.zeros(2), length=1, batch_size=1))
    state.set_model(model)
    state.on_test_begin()


def of(task: tasks.Task, config: Mapping[str, Any]) -> Windows | Streams:
    """What the trial of a configuration reads."""
    kind = Streams if config["training"].get("stream") else Windows
    return kind(task, config["seed"], config["training"]["batch_size"])
