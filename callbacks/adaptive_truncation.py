"""The callback that chooses the length of the truncation windows while it trains."""

import functools
import math
import os
import warnings
import weakref
from typing import Any

import keras
import numpy as np

from kbptt import _checks, truncation
from kbptt.analysis import adaptive, lags
from kbptt.callbacks._options import (
    FIXED_DIRECTORY,
    Fixed,
    Option,
    count,
    labelled_sequences,
    lags_count,
)
from kbptt.callbacks._run_directory import RunWriter
from kbptt.tensorboard import layout, writer


@keras.saving.register_keras_serializable(package="kbptt")
class AdaptiveTruncation(keras.callbacks.Callback):
    """Keeps the windows as short as a tolerated bias of the gradient allows.

    Before an epoch it measures, on the sequences in `data`, how strongly each loss reaches each
    earlier state, estimates the bias of every window length, and gives all recurrent kbptt layers
    the shortest length whose estimated relative bias is below `tolerance` (of several layers the
    longest, since chunks cut a stack at the same places). The first `warmup` epochs run with the
    layers' own truncation: an untrained network tells little about its memory.

    Another length means another train function, which is traced and compiled when the next step
    runs. So lengths are rounded up to a grid from `minimum` to `maximum`, each about half as long
    again as the one before: 10 to 300 has ten of them. A length that was used before finds its
    compiled loops again. After training the layers keep the last length.

    If gradients are not finite, or all zero, the length stays, with a warning.

    Example:

    ```python
    adapt = kbptt.callbacks.AdaptiveTruncation(
        tolerance=0.5, minimum=10, maximum=100, data=(x_val[:64], y_val[:64]), log_dir="runs/a"
    )
    model.fit(x, y, epochs=20, callbacks=[adapt])
    adapt.history["truncation"]
    ```

    Args:
        tolerance: Number above 0. Relative bias allowed; the authors use 0.9, 0.5 and 0.1.
            Defaults to `0.1`.
        minimum: Positive integer. Shortest window. Defaults to `10`.
        maximum: Integer of at least 2. Longest window, and number of lags measured: measuring costs
            about as much as `maximum` training steps on `data`. Defaults to `100`.
        data: Tuple `(x, y)` or `(x, y, sample_weight)` as for `model.fit`, unpadded sequences of at
            least `maximum` timesteps where there are such. Required.
        freq: Positive integer. Epochs from one estimate to the next. Defaults to `1`.
        warmup: Integer of at least 0. Epochs before the first estimate, counted over all calls of
            `fit`. Defaults to `1`.
        overlap: Boolean. `False` sets chunks of length K, in which losses reach back K/2 steps on
            average. `True` sets ``Windowed(2K − 1, stride=K)``, in which every loss reaches back at
            least K states, as the bound assumes, at nearly twice the cost. Defaults to `False`.
        scale_learning_rate: Boolean. Multiply the learning rate by √(K/K_before) whenever K
            changes, as the authors do. Defaults to `False`.
        tau: Integer or None. See `kbptt.analysis.suggest_truncation`. Defaults to `None`.
        method: String. See `kbptt.analysis.adaptive.decay`. Defaults to `"least_squares"`.
        batch_size: Integer. Sequences of `data` measured at a time. Defaults to `32`.
        log_dir: String, path-like or None. TensorBoard directory of this run; may be that of
            `GradientFlow`, and follows it to `<log_dir>_2`. None writes nothing and only fills
            `history`. Defaults to `None`.

    Attributes:
        log_dir: The directory written to, or None.
        history: Dict of lists, one entry per estimate: `"step"`, `"truncation"` (K, rounded up),
            and for every layer `"<layer>/lag_decay"` (β) and `"<layer>/relative_bias"`, the
            estimate for K, infinite where there is no bound. TensorBoard shows the same under
            `gradient_flow_stats/`, and the gradients by lag in the tab *Gradient flow*. The logs of
            `fit` hold the window of each epoch as "truncation", infinite for full BPTT.

    Reference: [Aicher, Foti & Fox, 2019](https://arxiv.org/abs/1905.07473).
    """

    tolerance = Option(functools.partial(_checks.number, above=0))
    minimum = Option(_checks.positive_integer)
    maximum = Option(lags_count)
    data = Option(labelled_sequences)
    freq = Option(_checks.positive_integer)
    warmup = Option(count)
    overlap = Option(lambda _, value: bool(value))
    scale_learning_rate = Option(lambda _, value: bool(value))
    tau = Option(lambda name, value: None if value is None else count(name, value))
    method = Option(functools.partial(_checks.one_of, valid=adaptive.METHODS))
    batch_size = Option(_checks.positive_integer)
    log_dir = Fixed(lambda self: self._writer.log_dir, FIXED_DIRECTORY)
    history = Fixed(lambda self: self._history, "It is what was measured.")

    def __init__(
        self,
        tolerance: float = 0.1,
        minimum: int = 10,
        maximum: int = 100,
        data: Any = None,
        freq: int = 1,
        warmup: int = 1,
        overlap: bool = False,
        scale_learning_rate: bool = False,
        tau: int | None = None,
        method: str = "least_squares",
        batch_size: int = 32,
        log_dir: str | os.PathLike | None = None,
    ):
        super().__init__()
        self.tolerance = tolerance
        self.minimum = minimum
        self.maximum = maximum
        adaptive.check_bounds(self.minimum, self.maximum)
        self.data = data
        self.freq = freq
        self.warmup = warmup
        self.overlap = overlap
        self.scale_learning_rate = scale_learning_rate
        self.tau = tau
        self.method = method
        self.batch_size = batch_size
        self._given_log_dir = None if log_dir is None else writer.check_path(log_dir)
        self._of_model = lambda: None
        self._forget()

    def get_config(self) -> dict[str, Any]:
        names = ("tolerance", "minimum", "maximum", "freq", "warmup", "overlap")
        more = ("scale_learning_rate", "tau", "method", "batch_size")
        data = keras.tree.map_structure(
            lambda a: None if a is None else np.asarray(a).tolist(), list(self.data)
        )
        options = {name: getattr(self, name) for name in (*names, *more)}
        return {"data": data, **options, "log_dir": self._given_log_dir}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AdaptiveTruncation":
        config = dict(config)
        config["data"] = tuple(None if a is None else np.asarray(a) for a in config["data"])
        return cls(**config)

    # Keras's hooks. `on_train_end` is not called when `fit` raises: everything starts here.

    def on_train_begin(self, logs=None):
        if self.model is not self._of_model():
            self._forget()
            self._of_model = weakref.ref(self.model)
        adaptive.check_bounds(self.minimum, self.maximum)  # set one after the other
        self._writer.begin(self.model)
        steps = self.history["step"]
        self._offset = max(0, (steps[-1] if steps else 0) - self._iterations())  # a new compile()
        if self.scale_learning_rate and isinstance(
            self.model.optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule
        ):
            raise ValueError(
                "AdaptiveTruncation with scale_learning_rate=True needs a learning rate that is a "
                "number. Received a LearningRateSchedule. Leave scale_learning_rate out."
            )

    def on_epoch_begin(self, epoch, logs=None):
        past_warmup = self._epochs - self.warmup
        self._epochs += 1
        if past_warmup >= 0 and past_warmup % self.freq == 0:
            self._adapt()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["truncation"] = self._length()

    def on_train_end(self, logs=None):
        self._writer.end()

    # The estimate.

    def _forget(self) -> None:
        self._history = {"step": [], "truncation": []}
        self._epochs = 0
        self._offset = 0
        self._writer = RunWriter("AdaptiveTruncation", self._given_log_dir)

    def _adapt(self) -> None:
        layers = lags.choose_layers(self.model)
        x, y, *sample_weight = self.data
        profiles = lags.lag_profiles(
            self.model, x, y, self.maximum, layers, *sample_weight, batch_size=self.batch_size
        )
        problem = ""
        if not all(np.all(np.isfinite(profile.norms)) for profile in profiles):
            problem = "not finite"
        elif not any(profile.norms.any() for profile in profiles):
            problem = "all zero"
        if problem:
            warnings.warn(
                f"AdaptiveTruncation leaves the windows alone: the gradients are {problem}.",
                stacklevel=2,
            )
            return
        names = layout.unique_names(profile.layer for profile in profiles)
        named = dict(zip(names, profiles, strict=True))
        estimates = {
            name: profile.estimate(
                self.tolerance, minimum=self.minimum, tau=self.tau, method=self.method
            )
            for name, profile in named.items()
            if profile.norms.any()
        }
        grid = adaptive.length_grid(self.minimum, self.maximum)
        length = adaptive.round_up(max(e.length for e in estimates.values()), grid)
        self._set(layers, length, profiles[0].norms.size)
        self._log(length, named, estimates)

    def _set(self, layers: list, length: int, lags: int) -> None:
        """Gives the layers windows of this length, if they have not got them."""
        stride, reach = length, 2 * length - 1 if self.overlap else length
        new = truncation.Windowed(reach, stride)
        if all(one.truncation == new for one in layers):
            return
        if self.scale_learning_rate:
            before = layers[0].truncation.stride or lags
            optimizer = self.model.optimizer
            rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
            optimizer.learning_rate = rate * math.sqrt(length / before)
        for one in layers:
            one.truncation = new

    # What to log.

    def _length(self) -> float:
        """K of the epoch, infinite for no windows; the same key from the first epoch on."""
        (one, *_) = lags.choose_layers(self.model)
        new = self.overlap and self.history["truncation"]
        return self.history["truncation"][-1] if new else one.truncation.length or math.inf

    def _log(
        self,
        length: int,
        profiles: dict[str, lags.LagProfile],
        estimates: dict[str, adaptive.WindowEstimate],
    ) -> None:
        step = self._iterations() + self._offset
        values = []
        for name, profile in profiles.items():
            content = layout.content(name, "all", None, None, "end", self.overlap)
            values.append(writer.lag_value(name, profile.norms, content))
        for name, estimate in estimates.items():
            measured = {
                "truncation": length,
                "lag_decay": estimate.beta,
                "relative_bias": float(estimate.biases[min(length, estimate.biases.size) - 1]),
            }
            for key, value in measured.items():
                values.append(writer.scalar_value(layout.statistic_tag(name, key), value))
                if key != "truncation":
                    missing = len(self.history["step"])  # a layer without gradient so far
                    series = self.history.setdefault(f"{name}/{key}", [np.nan] * missing)
                    series.append(value)
        self.history["step"].append(step)
        self.history["truncation"].append(length)
        for series in self.history.values():
            series += [np.nan] * (len(self.history["step"]) - len(series))
        self._writer.write(step, values)

    def _iterations(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
