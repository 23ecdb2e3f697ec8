"""The callback that chooses the length of the truncation windows during training."""

import functools
import math
import os
import warnings
from typing import Any

import keras
import numpy as np

from kbptt import _checks, truncation
from kbptt._attributes import Option
from kbptt._checks import count
from kbptt._typing import Labelled
from kbptt.analysis import adaptive, lags
from kbptt.callbacks._options import labelled_sequences, lags_count
from kbptt.callbacks._run_logger import RunLogger
from kbptt.layers import find
from kbptt.tensorboard import layout, writer


@keras.saving.register_keras_serializable(package="kbptt")
class AdaptiveTruncation(RunLogger):
    """Keeps the windows as short as a tolerated bias of the gradient allows.

    Before an epoch it measures, on the sequences in `data`, how strongly each loss reaches each
    earlier state, estimates the bias of every window length, and sets the windows of all recurrent
    kbptt layers to the shortest length whose estimated relative bias is below `tolerance` (with
    several layers, the longest of these, since chunks cut a stack at the same places). The first
    `warmup` epochs run with the layers' own truncation: an untrained network hardly uses its
    memory.

    Setting a new length assigns `layer.truncation`, which makes Keras build a new train function
    (`Model.make_train_function`) that is traced in the next step. Lengths are therefore rounded up
    to a grid from `minimum` to `maximum` that grows by a factor of about 1.5: ten lengths from 10
    to 300. Loops compiled for a length are reused. After training, the layers keep the last length.

    If gradients are not finite, or all zero, the length does not change, with a warning.

    Example:

    ```python
    adapt = kbptt.callbacks.AdaptiveTruncation(
        tolerance=0.5, minimum=10, maximum=100, data=(x_val[:64], y_val[:64]), log_dir="runs/a"
    )
    model.fit(x, y, epochs=20, callbacks=[adapt])
    adapt.history["truncation"]
    ```

    Args:
        tolerance: Number above 0. Tolerated relative bias; the authors use 0.9, 0.5 and 0.1.
            Defaults to `0.1`.
        minimum: Positive integer. Shortest window. Defaults to `10`.
        maximum: Integer of at least 2. Longest window, and number of lags measured, at the cost of
            about as many training steps on `data`. Defaults to `100`.
        data: Tuple `(x, y)` or `(x, y, sample_weight)` as for `model.fit`: unpadded sequences,
            preferably of at least `maximum` timesteps. Required.
        freq: Positive integer. Epochs between estimates. Defaults to `1`.
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
        log_dir: String, path-like or None. TensorBoard directory of this run; it can be that of
            `GradientFlow`, which it then follows to `<log_dir>_2`. None writes nothing and only
            fills `history`. Defaults to `None`.

    Attributes:
        log_dir: The directory written to, or None.
        history: Dict of lists, one entry per estimate: `"step"`, `"truncation"` (K, rounded up),
            and for every layer `"<layer>/lag_decay"` (β) and `"<layer>/relative_bias"`, the
            estimate for K or infinity. TensorBoard shows the same under `gradient_flow_stats/`, and
            the gradients by lag in the tab *Gradient flow*. The logs of `fit` contain the window of
            each epoch as "truncation", infinite for full BPTT.

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

    def __init__(
        self,
        tolerance: float = 0.1,
        minimum: int = 10,
        maximum: int = 100,
        data: Labelled | None = None,
        freq: int = 1,
        warmup: int = 1,
        overlap: bool = False,
        scale_learning_rate: bool = False,
        tau: int | None = None,
        method: adaptive.Method = "least_squares",
        batch_size: int = 32,
        log_dir: str | os.PathLike[str] | None = None,
    ):
        super().__init__(log_dir)
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

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        adaptive.check_bounds(self.minimum, self.maximum)  # set one after the other
        if self.scale_learning_rate:
            optimizer = self.model.optimizer
            try:
                optimizer.learning_rate = _number(optimizer.learning_rate)
            except (AttributeError, TypeError):
                raise ValueError(
                    "AdaptiveTruncation with scale_learning_rate=True needs a learning rate that "
                    "is a number. Received a LearningRateSchedule. Remove scale_learning_rate."
                ) from None

    def on_epoch_begin(self, epoch, logs=None):
        self._start_once()
        past_warmup = self._epochs - self.warmup
        self._epochs += 1
        if past_warmup >= 0 and past_warmup % self.freq == 0:
            self._adapt()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["truncation"] = self._length()

    # The estimate.

    def _forget(self) -> None:
        super()._forget()
        self._history["truncation"] = []
        self._epochs = 0

    def _adapt(self) -> None:
        layers = find.choose_layers(self.model)
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
                f"AdaptiveTruncation does not change the windows: the gradients are {problem}.",
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
        """Gives all layers windows of this length."""
        new = truncation.Windowed(*adaptive.window(length, self.overlap))
        if all(one.truncation == new for one in layers):
            return
        if self.scale_learning_rate:
            before = layers[0].truncation.stride or lags
            optimizer = self.model.optimizer
            rate = _number(optimizer.learning_rate)
            optimizer.learning_rate = rate * math.sqrt(length / before)
        for one in layers:
            one.truncation = new

    # What to log.

    def _length(self) -> float:
        """K of the epoch, infinite for no windows; the same key from the first epoch on."""
        (one, *_) = find.choose_layers(self.model)
        new = self.overlap and self.history["truncation"]
        return self.history["truncation"][-1] if new else one.truncation.length or math.inf

    def _log(
        self,
        length: int,
        profiles: dict[str, lags.LagProfile],
        estimates: dict[str, adaptive.WindowEstimate],
    ) -> None:
        step = self._now()
        recorded: dict[str, float] = {"truncation": length}
        values = []
        for name, profile in profiles.items():
            content = layout.content(name, "all", None, None, "end", self.overlap)
            values.append(writer.lag_value(name, profile.norms, content))
        for name, estimate in estimates.items():
            bias = float(estimate.biases[min(length, estimate.biases.size) - 1])
            measured = {"lag_decay": estimate.beta, "relative_bias": bias}
            recorded |= {f"{name}/{key}": value for key, value in measured.items()}
            values += [
                writer.scalar_value(layout.statistic_tag(name, key), value)
                for key, value in {"truncation": length, **measured}.items()
            ]
        self._record(step, recorded)
        self._write(step, values)


def _number(learning_rate: Any) -> float:
    return float(keras.ops.convert_to_numpy(learning_rate))
