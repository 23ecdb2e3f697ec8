"""The callback that logs eigenvalues, singular values and Lyapunov exponents during `fit`."""

import os
import warnings
import weakref
from typing import Any

import keras
import numpy as np

from kbptt import _checks
from kbptt.analysis import spectral
from kbptt.callbacks._options import FIXED_DIRECTORY, Fixed, Option, log_freq
from kbptt.callbacks._run_directory import RunWriter
from kbptt.tensorboard import layout, writer


@keras.saving.register_keras_serializable(package="kbptt")
class SpectralMonitor(keras.callbacks.Callback):
    """Logs the spectrum of every recurrent kernel, gate by gate, and growth along sequences.

    For every recurrent layer of the model (kbptt's and Keras', wrapped and nested ones) it writes
    the TensorBoard scalars `gradient_flow_stats/<layer>/…`

    * `spectral_radius_<gate>`: largest |eigenvalue|, the factor per step of a linear recurrence,
    * `largest_singular_value_<gate>`, `smallest_singular_value_<gate>`: what one step can do,
    * with `x`: `lyapunov_exponent`, the growth rate of products of Jacobians along `x`, for the
      recurrent layers at the top level of a functional or Sequential model.

    Gates are `i f c o` (LSTM) and `z r h` (GRU); a SimpleRNN has one kernel and no suffix. Values
    are logged before the first step, then every `log_freq`, at step `optimizer.iterations`. They
    may go to the directory that GradientFlow writes to, and follow it to `<log_dir>_2`.

    Example:

    ```python
    monitor = kbptt.callbacks.SpectralMonitor("runs/a", x=x_train[:8])
    model.fit(x_train, y_train, callbacks=[monitor])
    monitor.history["lstm/spectral_radius_f"]
    ```

    Args:
        log_dir: String, path-like or None: directory of this run, one per run. None writes nothing
            and only fills `history`. Defaults to `None`.
        log_freq: `"epoch"` or a positive integer, the training steps from one record to the next.
            Defaults to `"epoch"`.
        x: Array of inputs of the model, `(batch, timesteps, …)`, or None. A few unpadded sequences
            are enough; the cost grows with batch × timesteps × `exponents`. Defaults to `None`.
        exponents: Integer, Lyapunov exponents per layer. With more than one they are named
            `lyapunov_exponent_1`, … Defaults to `1`.

    Attributes:
        log_dir: The directory written to, or None.
        history: Dict: `"step"`, the steps logged in this process, and `"<layer>/<name>"`, the
            values at these steps.
    """

    log_freq = Option(log_freq)
    x = Option(lambda _, value: None if value is None else np.asarray(value))
    exponents = Option(_checks.positive_integer)
    log_dir = Fixed(lambda self: self._writer.log_dir, FIXED_DIRECTORY)
    history = Fixed(lambda self: self._history, "It is what was measured.")

    def __init__(
        self,
        log_dir: str | os.PathLike | None = None,
        log_freq: str | int = "epoch",
        x: Any = None,
        exponents: int = 1,
    ):
        super().__init__()
        self._given_log_dir = None if log_dir is None else writer.check_path(log_dir)
        self.log_freq = log_freq
        self.x = x
        self.exponents = exponents
        self._of_model = lambda: None
        self._forget()

    def get_config(self) -> dict[str, Any]:
        return {
            "log_dir": self._given_log_dir,
            "log_freq": self.log_freq,
            "x": None if self.x is None else self.x.tolist(),
            "exponents": self.exponents,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SpectralMonitor":
        return cls(**config)

    # Keras's hooks. `on_train_end` is not called when `fit` raises: everything starts here.

    def on_train_begin(self, logs=None):
        if self.model is not self._of_model():
            self._forget()
            self._of_model = weakref.ref(self.model)
        self._started = False
        self._writer.begin(self.model)

    def on_train_batch_begin(self, batch, logs=None):
        # Not in on_train_begin: a later callback may restore a checkpoint there, or build.
        if not self._started:
            self._started = True
            self._offset = max(0, self._last_step - self._iterations())  # after a new compile()
            self._find_layers()
            self._log()

    def on_train_batch_end(self, batch, logs=None):
        if self.log_freq == "epoch":
            return
        if self._last_step + self.log_freq <= self._iterations() + self._offset:
            self._log()

    def on_epoch_end(self, epoch, logs=None):
        if self.log_freq == "epoch":
            self._log()

    def on_train_end(self, logs=None):
        self._writer.end()

    # What to log, and where.

    def _forget(self) -> None:
        self._history = {"step": []}
        self._layers = []
        self._last_step = -1
        self._offset = 0
        self._started = False
        self._writer = RunWriter("SpectralMonitor", self._given_log_dir)

    def _find_layers(self) -> None:
        layers = spectral.recurrent_layers(self.model)
        self._layers = list(
            zip(layout.unique_names([la.name for la in layers]), layers, strict=True)
        )
        if not layers:
            warnings.warn(
                f"SpectralMonitor logs nothing: model {self.model.name!r} has no recurrent layer.",
                stacklevel=2,
            )
        if self.x is not None and not getattr(self.model, "inputs", None):
            raise ValueError(
                "SpectralMonitor with `x` needs a functional or Sequential model, to know what "
                f"each recurrent layer receives. Received: {type(self.model).__name__}. Leave `x` "
                "out, or use kbptt.analysis.lyapunov_exponents on the layer."
            )

    def _log(self) -> None:
        step = self._iterations() + self._offset
        # Steps of a run must increase; none has passed if it was skipped or accumulated.
        if step <= self._last_step:
            return
        values = {}
        for name, layer in self._layers:
            for key, value in {**spectral.summarize(layer), **self._growth(layer)}.items():
                values[name, key] = value
        if not values:
            return
        self._last_step = step
        for (name, key), value in values.items():
            missing = len(self.history["step"])  # a layer that was built later
            series = self.history.setdefault(f"{name}/{key}", [np.nan] * missing)
            series.append(value)
        self.history["step"].append(step)
        for series in self.history.values():  # of another `exponents`, or a layer that is gone
            series += [np.nan] * (len(self.history["step"]) - len(series))
        self._write(step, values)

    def _growth(self, layer: keras.layers.RNN) -> dict[str, float]:
        top_level = any(layer is one for one in self.model.layers)
        if self.x is None or not top_level:
            return {}
        # Not at the top: this needs TensorFlow's tapes, the rest of the module does not.
        from kbptt.analysis import lyapunov

        inputs = lyapunov.inputs_of(self.model, layer, self.x)
        exponents = lyapunov.lyapunov_exponents(layer, inputs, self.exponents)
        if self.exponents == 1:
            return {"lyapunov_exponent": float(exponents[0])}
        return {f"lyapunov_exponent_{i + 1}": float(e) for i, e in enumerate(exponents)}

    def _write(self, step: int, values: dict[tuple[str, str], float]) -> None:
        scalars = [
            writer.scalar_value(layout.statistic_tag(name, key), value)
            for (name, key), value in values.items()
        ]
        self._writer.write(step, scalars)

    def _iterations(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
