"""The callback that logs eigenvalues, singular values and Lyapunov exponents during `fit`."""

import os
import warnings

import keras
import numpy as np

from kbptt import _checks
from kbptt._attributes import Option
from kbptt._typing import Arrays
from kbptt.analysis import spectral
from kbptt.callbacks._options import Frequency, epoch_or_steps
from kbptt.callbacks._run_logger import RunLogger
from kbptt.layers import find
from kbptt.tensorboard import layout, writer


@keras.saving.register_keras_serializable(package="kbptt")
class SpectralMonitor(RunLogger):
    """Logs the spectrum of every recurrent kernel, gate by gate, and growth along sequences.

    For every recurrent layer of the model (of kbptt or Keras, at any depth) it writes the
    TensorBoard scalars `gradient_flow_stats/<layer>/…`

    * `spectral_radius_<gate>`: largest |eigenvalue|, the factor per step of a linear recurrence,
    * `largest_singular_value_<gate>`, `smallest_singular_value_<gate>`: bounds of one step,
    * with `x`: `lyapunov_exponent`, the growth rate of products of Jacobians along `x`, for the
      recurrent layers at the top level of a functional or Sequential model.

    Gates are `i f c o` (LSTM) and `z r h` (GRU); a SimpleRNN has one kernel and no suffix. Values
    are logged before the first step, then every `log_freq`, at step `optimizer.iterations`. The
    directory can be that of GradientFlow, which is then followed to `<log_dir>_2`.

    Example:

    ```python
    monitor = kbptt.callbacks.SpectralMonitor("runs/a", x=x_train[:8])
    model.fit(x_train, y_train, callbacks=[monitor])
    monitor.history["lstm/spectral_radius_f"]
    ```

    Args:
        log_dir: String, path-like or None: directory of this run, one per run. None writes nothing
            and only fills `history`. Defaults to `None`.
        log_freq: `"epoch"` or a positive integer, the training steps between records. Defaults to
            `"epoch"`.
        x: Array of inputs of the model, `(batch, timesteps, …)`, or None. A few unpadded sequences
            suffice; the cost grows with batch × timesteps × `exponents`. Defaults to `None`.
        exponents: Integer, Lyapunov exponents per layer, named `lyapunov_exponent_1`, … if there
            are several. Defaults to `1`.

    Attributes:
        log_dir: The directory written to, or None.
        history: Dict: `"step"`, the steps logged in this process, and `"<layer>/<name>"`, the
            values at these steps.
    """

    log_freq = Option(epoch_or_steps)
    x = Option(lambda _, value: None if value is None else np.asarray(value))
    exponents = Option(_checks.positive_integer)

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        log_freq: Frequency = "epoch",
        x: Arrays | None = None,
        exponents: int = 1,
    ):
        super().__init__(log_dir)
        self.log_freq = log_freq
        self.x = x
        self.exponents = exponents

    def on_train_batch_begin(self, batch, logs=None):
        self._start_once()

    def on_train_batch_end(self, batch, logs=None):
        if self.log_freq != "epoch" and self._step + int(self.log_freq) <= self._now():
            self._log()

    def on_epoch_end(self, epoch, logs=None):
        if self.log_freq == "epoch":
            self._log()

    def _start(self) -> None:
        super()._start()
        layers = find.recurrent_layers(self.model)
        self._layers = dict(zip(layout.unique_names(la.name for la in layers), layers, strict=True))
        if not layers:
            warnings.warn(
                f"SpectralMonitor logs nothing: model {self.model.name!r} has no recurrent layer.",
                stacklevel=2,
            )
        if self.x is not None and not getattr(self.model, "inputs", None):
            raise ValueError(
                "SpectralMonitor with `x` needs a functional or Sequential model, to know what "
                f"each recurrent layer receives. Received: {type(self.model).__name__}. Remove "
                "`x`, or use kbptt.analysis.lyapunov_exponents on the layer."
            )
        self._log()

    def _log(self) -> None:
        step = self._now()
        # Steps of a run must increase; none has passed if it was skipped or accumulated.
        if step <= self._step:
            return
        values, scalars = {}, []
        for name, layer in self._layers.items():
            for key, value in {**spectral.summarize(layer), **self._growth(layer)}.items():
                values[f"{name}/{key}"] = value
                scalars.append(writer.scalar_value(layout.statistic_tag(name, key), value))
        if values:
            self._record(step, values)
            self._write(step, scalars)

    def _growth(self, layer: keras.layers.RNN) -> dict[str, float]:
        """The Lyapunov exponents along `x` of a layer at the top level of the model."""
        if self.x is None or not any(layer is one for one in find.top_level_layers(self.model)):
            return {}
        # Not at the top of the module: imports TensorFlow.
        from kbptt.analysis import lyapunov

        inputs = lyapunov.inputs_of(self.model, layer, self.x)
        exponents = lyapunov.lyapunov_exponents(layer, inputs, self.exponents)
        if self.exponents == 1:
            return {"lyapunov_exponent": float(exponents[0])}
        return {f"lyapunov_exponent_{i + 1}": float(e) for i, e in enumerate(exponents)}
