"""The callback that writes the gradient of every timestep to TensorBoard."""

import os
import warnings
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from kbptt import _checks
from kbptt._attributes import Fixed, Option
from kbptt._extras import require
from kbptt._typing import Labelled
from kbptt.analysis import gradient_flow, lags
from kbptt.callbacks import _run_logger, gradient_transform
from kbptt.callbacks._heatmaps import Heatmaps
from kbptt.callbacks._options import Frequency, epoch_or_steps, labelled_sequences, lags_count
from kbptt.callbacks._run_logger import RunLogger
from kbptt.callbacks.gradient_norm import GradientNorm
from kbptt.layers import find
from kbptt.optimizers import Clipped
from kbptt.optimizers.wrapper import unwrapped
from kbptt.tensorboard import layout, reader, writer
from kbptt.tensorboard.history import History
from kbptt.truncation import windows

_OPTIMIZER = "optimizer"

HeatmapFrequency: TypeAlias = int | Literal["auto"] | None


def _heatmap_freq(name: str, value: Any) -> HeatmapFrequency:
    if value is None:
        return None
    if isinstance(value, str) and value == "auto":
        return "auto"
    require("matplotlib")
    return _checks.positive_integer(name, value, 'Or give "auto" or None.')


@keras.saving.register_keras_serializable(package="kbptt")
class GradientFlow(RunLogger):
    """Logs ‖∂L/∂h_t‖ of every timestep of every recurrent kbptt layer for TensorBoard.

    For every layer with `gradient_norms`, at any depth, it writes

    * the tensor `gradient_flow/<layer>/dL_dh`, the norms of all timesteps, oldest first,
    * the scalars `gradient_flow_stats/<layer>/…`: `decay` (per timestep into the past),
      `half_life`, `horizon` (last timesteps that hold 90 % of the norms), `first_last_ratio`,
      `zero_fraction`, `nonfinite_fraction`, and `gradient_penalty` of a layer with a
      `gradient_regularizer`,
    * the image `gradient_flow_heatmap/<layer>`, training step × timestep,
    * with `lag_data`, the tensor `gradient_flow/<layer>/dL_dh_by_lag`: the mean norm of
      ∂L_s/∂h_{s−k} by lag k, lag 0 first (see `kbptt.analysis.lag_profile`), which shows how far
      back the losses reach, whatever the truncation,

    and for the model, under `gradient_flow_stats/optimizer/…`, the `global_norm` of all weight
    gradients and, if a kbptt callback clips the gradient, `clip_rate`, `threshold` and
    `norm_after`.

    The norms are those of the unscaled loss: the loss scale of mixed precision, which the layer's
    `gradient_norms` contain, is divided out.

    The step is `optimizer.iterations`, which keeps increasing over several calls of `fit` and when
    training is resumed from a checkpoint into the same directory. A model that starts at iteration
    0 in a directory that already holds profiles, or in one that a different process is writing to,
    is a new run: it goes to `<log_dir>_2`, with a warning, and so do the other callbacks that were
    given this directory.

    A full disk or a missing permission ends the logging with one warning; training continues.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.GradientFlow("runs/a", log_freq=50)])
    ```

    Args:
        log_dir: String or path-like. Directory of this run, below TensorBoard's `--logdir`. May be
            the directory of `keras.callbacks.TensorBoard`.
        log_freq: `"epoch"` or a positive integer, the training steps between profiles. Defaults to
            `"epoch"`.
        heatmap_freq: When to draw the heatmap images: `"auto"`, each time the history has grown by
            half, as long as drawing takes about 2 % of the time of `fit` at most; a positive
            integer, every so many epochs; or `None`, never. Unless `None`, also at the end of
            training; of a `fit` that raised, when the next one with this callback starts or the
            process exits. Images need Matplotlib (`kbptt[plot]`); without it `"auto"` draws none.
            Defaults to `"auto"`.
        max_profiles: Integer. After this many profiles, and after each further half as many, the
            logging interval doubles, so files grow with the logarithm of training time. Also the
            largest number of profiles in `history`. Defaults to 1000.
        lag_data: Tuple `(x, y)` or `(x, y, sample_weight)` as for `model.fit`, unpadded sequences
            on which to measure the gradients by lag, before the first step and after epochs, at the
            cost of about `max_lags` training steps; or `None`. Defaults to `None`.
        lag_freq: Positive integer. Epochs between these measurements. Defaults to 1.
        max_lags: Integer of at least 2. Number of lags measured, at most the number of timesteps.
            Defaults to 100.

    Attributes:
        log_dir: The directory written to.
        history: Dict from the layer's name to `(steps, norms)` with shapes `(records,)` and
            `(records, timesteps)`: the records of this process, evenly thinned out beyond
            `max_profiles` records or 64 MiB.
        lag_profiles: List with the last `kbptt.analysis.lags.LagProfile` of each layer.
    """

    log_freq = Option(epoch_or_steps)
    heatmap_freq = Option(_heatmap_freq)
    max_profiles = Option(_checks.positive_integer)
    lag_data = Option(
        lambda name, value: None if value is None else labelled_sequences(name, value)
    )
    lag_freq = Option(_checks.positive_integer)
    max_lags = Option(lags_count)
    history = Fixed(
        lambda self: {layer: self._profiles.get(layer) for layer in self._profiles.layers()},
        "It is what was measured.",
    )
    lag_profiles = Fixed(lambda self: self._lag_profiles, "They are what was measured.")

    suffix = reader.SUFFIX

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        log_freq: Frequency = "epoch",
        heatmap_freq: HeatmapFrequency = "auto",
        max_profiles: int = 1000,
        lag_data: Labelled | None = None,
        lag_freq: int = 1,
        max_lags: int = 100,
    ):
        self.max_profiles = max_profiles
        super().__init__(writer.check_path(log_dir))
        self.log_freq = log_freq
        self.heatmap_freq = heatmap_freq
        self.lag_data = lag_data
        self.lag_freq = lag_freq
        self.max_lags = max_lags

    # Keras's hooks.

    def on_train_begin(self, logs=None):
        self._finish_images()
        super().on_train_begin(logs)
        self._images.start()
        self._profiles.max_records = self.max_profiles
        self._logged_at = None
        self._observed = False  # whether a step has reached the observer
        self._seen = self._interval() - 1  # the first step (or epoch) is logged
        # Measures the global norm even if no callback clips. The same object in every `fit`: a new
        # one would have the train function traced again.
        self._observer.set_params(self.params)
        self._observer.set_model(self.model)
        self._observer.on_train_begin(logs)

    def on_train_batch_begin(self, batch, logs=None):
        self._observer.on_train_batch_begin(batch, logs)
        self._start_once()

    def on_epoch_begin(self, epoch, logs=None):
        self._last_batch = -1

    def on_train_batch_end(self, batch, logs=None):
        if self.log_freq != "epoch":
            # With steps_per_execution > 1 only the last batch of each execution arrives here.
            self._count(batch - self._last_batch)
            self._last_batch = batch

    def on_epoch_end(self, epoch, logs=None):
        if self.log_freq == "epoch":
            self._count(1)
        if (epoch + 1) % self.lag_freq == 0:
            self._log_lags()
        if isinstance(self.heatmap_freq, int) and (epoch + 1) % self.heatmap_freq == 0:
            self._draw()

    def on_train_end(self, logs=None):
        if self.heatmap_freq is not None:
            self._draw()
        self._observer.on_train_end(logs)
        super().on_train_end(logs)

    # When to log.

    def _forget(self) -> None:
        super()._forget()
        self._observer = GradientNorm()
        self._profiles = History(self.max_profiles)
        self._stretch = 1
        self._images = Heatmaps(self._profiles)
        self._records = 0
        # Steps up to these are in the directory.
        self._last_step = self._last_lag_step = -1
        self._layers: dict[str, keras.Layer] = {}
        self._lag_profiles: list[lags.LagProfile] = []

    def _start(self) -> None:
        layers = find.layers_with_norms(self.model)
        names = layout.unique_names((layer.name for layer in layers), reserved=[_OPTIMIZER])
        self._layers = dict(zip(names, layers, strict=True))
        if not layers:
            warnings.warn(
                f"GradientFlow logs nothing: model {self.model.name!r} has no layer that records "
                "the gradient of every timestep. Use kbptt.LSTM, kbptt.GRU, kbptt.SimpleRNN or "
                "kbptt.RNN in place of the keras.layers of these names, or kbptt.convert(model).",
                stacklevel=2,
            )
            return
        if self._open():
            self._last_step = self._last_lag_step = self._found_step
        iterations = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        # Iterations of 0 in a directory with profiles: the same run, after a new compile().
        self._resume(self._step if iterations else max(self._step, self._last_step))
        self._log_lags()

    def _interval(self) -> int:
        """Steps (or epochs) from one profile to the next."""
        return self._stretch * (1 if self.log_freq == "epoch" else int(self.log_freq))

    def _count(self, units: int) -> None:
        """Counts steps (or epochs) and logs when the interval is over."""
        self._seen += units
        interval = self._interval()
        if self._seen < interval or not self._layers:
            return
        step = self._now()  # only here, since it waits for the device
        if self.log_freq != "epoch" and self._logged_at is not None:
            # A batch is not always a step: gradient accumulation, skipped steps; and Keras counts
            # the last batches of an epoch as a whole execution.
            self._seen = step - self._logged_at
            if self._seen < interval:
                return
        self._seen %= interval
        self._logged_at = step - self._seen
        self._log(step)

    # What to log.

    def _log(self, step: int) -> None:
        if step <= self._last_step:
            # A skipped (non-finite) or accumulating step, or one that was logged before the run was
            # killed and resumed from an older checkpoint: steps of a run must increase.
            return
        profiles, values = {}, []
        loss_scale = np.float32(gradient_transform.loss_scale(self.model))
        for index, (name, layer) in enumerate(self._layers.items()):
            norms = layer.gradient_norms
            if norms is None:
                continue
            profiles[name] = np.array(norms, np.float32) / loss_scale
            values.append(writer.profile_value(name, profiles[name], _content(name, layer, index)))
            statistics = gradient_flow.summarize(profiles[name])
            if getattr(layer, "gradient_penalty", None) is not None:
                statistics["gradient_penalty"] = layer.gradient_penalty
            values += _scalars(name, statistics)
        values += _scalars(_OPTIMIZER, self._optimizer_statistics())
        self._step = self._last_step = step
        self._profiles.add(step, profiles)
        self._write(step, values)
        self._records += 1
        if self._records >= self.max_profiles:
            self._stretch *= 2
            self._records = self.max_profiles // 2
        if self.heatmap_freq is not None and self._events is not None:
            divisions = {name: _division(layer) for name, layer in self._layers.items()}
            self._images.note(step, divisions, self._events)
            if self.heatmap_freq == "auto" and self._images.due():
                self._draw()

    def _log_lags(self) -> None:
        """Measures and writes the gradients by lag, once per step."""
        if self.lag_data is None or not self._layers or not self._writable:
            return
        step = self._now()
        if step <= self._last_lag_step:
            return
        self._last_lag_step = step
        measurable = find.truncated_layers(self.model)
        layers = {
            name: layer
            for name, layer in self._layers.items()
            if any(layer is one for one in measurable)
        }
        x, y, *sample_weight = self.lag_data
        try:
            profiles = lags.lag_profiles(
                self.model, x, y, self.max_lags, list(layers.values()), *sample_weight
            )
        except Exception as error:  # of any type: the model does not accept these inputs
            shapes = ", ".join(str(np.shape(part)) for part in keras.tree.flatten(self.lag_data))
            first_line, *_ = str(error).split("\n")
            raise ValueError(
                "GradientFlow cannot measure gradients by lag on its `lag_data`. Expected inputs "
                f"and targets as for `fit`. Received shapes {shapes}. {first_line}"
            ) from error
        self._lag_profiles = profiles
        order = list(self._layers)
        values = [
            writer.lag_value(name, profile.norms, _content(name, layer, order.index(name)))
            for (name, layer), profile in zip(layers.items(), profiles, strict=True)
        ]
        self._write(step, values)

    def _optimizer_statistics(self) -> dict[str, float]:
        """Global norm before any clipping, and the statistics of each clip."""
        transforms = gradient_transform.active(self.model)
        # The first one for all variables; there is at least the observer of this callback.
        first = next(t for t in transforms if t.variables is None)
        statistics = {}
        # Without a step a custom train_step bypasses it.
        if self._observed or int(first.step_count.value()):
            self._observed = True
            statistics["global_norm"] = float(first.norm_before.value())
        for optimizer in unwrapped(self.model.optimizer):
            if isinstance(optimizer, Clipped):
                transforms += optimizer.transforms
        clipping = [transform for transform in transforms if not transform.observes_only]
        names = layout.unique_names(transform.name for transform in clipping)
        for name, transform in zip(names, clipping, strict=True):
            prefix = f"{name}/" if len(clipping) > 1 else ""
            for key, value in transform.statistics().items():
                if key != "norm_before":
                    statistics[prefix + key] = value
        return statistics

    def _draw(self) -> None:
        """Writes a heatmap of the whole history, if it has grown since the last."""
        if self._writable and self._events is not None:
            self._write(self._step, self._images.draw())

    def _finish_images(self) -> None:
        """Draws what the last `fit` left undrawn because it was interrupted."""
        try:
            self._images.finish()
        except _run_logger.errors() as error:
            self._stop(error)


def _scalars(group: str, statistics: dict[str, float]) -> list[writer.Value]:
    return [
        writer.scalar_value(layout.statistic_tag(group, key), value)
        for key, value in statistics.items()
    ]


def _content(name: str, layer: keras.Layer, index: int) -> bytes:
    loss = "all" if getattr(layer, "return_sequences", False) else "last"
    t = _division(layer)
    return layout.content(name, loss, t.length, t.stride, t.align, index=index)


def _division(layer: keras.Layer) -> windows.Division:
    """The truncation of a layer; none for a user's layer without one."""
    truncation = getattr(layer, "truncation", None)
    return truncation if hasattr(truncation, "length") else layout.Division()
