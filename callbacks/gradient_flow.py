"""The callback that writes the gradient of every timestep to TensorBoard."""

import os
import warnings
import weakref
from typing import Any

import keras
import numpy as np

from kbptt import _checks
from kbptt._extras import MissingExtra, require
from kbptt.analysis import gradient_flow, lags
from kbptt.callbacks import gradient_transform
from kbptt.callbacks._options import (
    FIXED_DIRECTORY,
    Fixed,
    Option,
    labelled_sequences,
    lags_count,
    log_freq,
)
from kbptt.callbacks._run_directory import RunWriter
from kbptt.callbacks.gradient_norm import GradientNorm
from kbptt.tensorboard import layout, reader, writer
from kbptt.tensorboard.history import History

# A heatmap is drawn again when the history has grown by this factor: about 15 images per 1000
# profiles, each covering the whole training so far.
_HEATMAP_GROWTH = 1.5

_OPTIMIZER = "optimizer"


def _heatmap_freq(name: str, value: Any) -> str | int | None:
    if value is None or value == "auto":
        return value
    require("matplotlib")
    return _checks.positive_integer(name, value, 'Or give "auto" or None.')


@keras.saving.register_keras_serializable(package="kbptt")
class GradientFlow(keras.callbacks.Callback):
    """Logs ‖∂L/∂h_t‖ of every timestep of every recurrent kbptt layer for TensorBoard.

    For every layer that has `gradient_norms` (nested, bidirectional and stacked ones included) it
    writes

    * the tensor `gradient_flow/<layer>/dL_dh`, the norms of all timesteps, oldest first,
    * the scalars `gradient_flow_stats/<layer>/…`: `decay` (per timestep into the past),
      `half_life`, `horizon` (last timesteps that hold 90 % of the norms), `first_last_ratio`,
      `zero_fraction`, `nonfinite_fraction`, and `gradient_penalty` of a layer with a
      `gradient_regularizer`,
    * the image `gradient_flow_heatmap/<layer>`, training step × timestep,
    * with `lag_data`, the tensor `gradient_flow/<layer>/dL_dh_by_lag`: the mean norm of
      ∂L_s/∂h_{s−k} by lag k, lag 0 first (see `kbptt.analysis.lag_profile`): how far back the
      losses reach, whatever the truncation is,

    and once for the model, under `gradient_flow_stats/optimizer/…`, the `global_norm` of all weight
    gradients and, if a gradient is clipped by a kbptt callback, `clip_rate`, `threshold` and
    `norm_after`.

    The norms are those of the unscaled loss: the loss scale of mixed precision is divided out (the
    layer's own `gradient_norms` contain it).

    The step is `optimizer.iterations`: it goes on increasing over several calls of `fit` and when
    training is resumed from a checkpoint into the same directory. A model that starts at iteration
    0 in a directory that already holds profiles, or in one another process is writing to, is
    another run: it goes to `<log_dir>_2`, with a warning, and the other callbacks that were given
    this directory go there too.

    A full disk or a missing permission ends the logging with one warning; training goes on.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.GradientFlow("runs/a", log_freq=50)])
    ```

    Args:
        log_dir: String or path-like. Directory of this run, below TensorBoard's `--logdir`. May be
            the directory of `keras.callbacks.TensorBoard`.
        log_freq: `"epoch"` or a positive integer, the number of training steps from one profile to
            the next. Defaults to `"epoch"`.
        heatmap_freq: When to draw the heatmap images: `"auto"`, each time the record has grown by
            half; a positive integer, every so many epochs; or `None`, never. Except with `None`,
            the last one is drawn at the end of training. Images need Matplotlib (`kbptt[plot]`);
            without it `"auto"` draws none. Defaults to `"auto"`.
        max_profiles: Integer. After so many profiles, and then after each half as many again, the
            logging interval doubles, so that files grow with the logarithm of training time. Also
            the largest number of profiles in `history`. Defaults to 1000.
        lag_data: Tuple `(x, y)` or `(x, y, sample_weight)` as for `model.fit`, unpadded sequences
            to measure the gradients by lag on, before the first step and after epochs; or `None`,
            measure none. Costs about `max_lags` training steps on these data. Defaults to `None`.
        lag_freq: Positive integer. Epochs from one such measurement to the next. Defaults to 1.
        max_lags: Integer of at least 2. Number of lags measured, at most the number of timesteps.
            Defaults to 100.

    Attributes:
        log_dir: The directory written to.
        history: Dict from the layer's name to `(steps, norms)` with shapes `(records,)` and
            `(records, timesteps)`: what was logged in this process, thinned out evenly beyond
            `max_profiles` records or 64 MiB.
        lag_profiles: List of the `kbptt.analysis.lags.LagProfile` of each layer that was measured
            last on `lag_data`; empty before.
    """

    log_freq = Option(log_freq)
    heatmap_freq = Option(_heatmap_freq)
    max_profiles = Option(_checks.positive_integer)
    lag_data = Option(
        lambda name, value: None if value is None else labelled_sequences(name, value)
    )
    lag_freq = Option(_checks.positive_integer)
    max_lags = Option(lags_count)
    log_dir = Fixed(lambda self: self._writer.log_dir, FIXED_DIRECTORY)
    history = Fixed(
        lambda self: {layer: self._history.get(layer) for layer in self._history.layers()},
        "It is what was measured.",
    )
    lag_profiles = Fixed(lambda self: self._lag_profiles, "They are what was measured.")

    def __init__(
        self,
        log_dir: str | os.PathLike,
        log_freq: str | int = "epoch",
        heatmap_freq: str | int | None = "auto",
        max_profiles: int = 1000,
        lag_data: Any = None,
        lag_freq: int = 1,
        max_lags: int = 100,
    ):
        super().__init__()
        self._given_log_dir = writer.check_path(log_dir)
        self.log_freq = log_freq
        self.heatmap_freq = heatmap_freq
        self.max_profiles = max_profiles
        self.lag_data = lag_data
        self.lag_freq = lag_freq
        self.max_lags = max_lags
        self._of_model = lambda: None
        self._forget()

    def get_config(self) -> dict[str, Any]:
        return {
            "log_dir": self._given_log_dir,
            "log_freq": self.log_freq,
            "heatmap_freq": self.heatmap_freq,
            "max_profiles": self.max_profiles,
            "lag_data": keras.tree.map_structure(
                lambda a: None if a is None else np.asarray(a).tolist(), self.lag_data
            ),
            "lag_freq": self.lag_freq,
            "max_lags": self.max_lags,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientFlow":
        lag_data = config.get("lag_data")
        if lag_data is not None:
            lag_data = [None if a is None else np.asarray(a) for a in lag_data]
        return cls(**{**config, "lag_data": lag_data})

    # Keras's hooks. `on_train_end` is not called when `fit` raises, so `on_train_begin` starts
    # from any state.

    def on_train_begin(self, logs=None):
        if self.model is not self._of_model():
            self._forget()
        self._opened = False
        self._history.max_records = self.max_profiles
        self._writer.begin(self.model)
        self._logged_at = None
        self._seen = self._interval() - 1  # the first step (or epoch) is logged
        # Measures the global norm even if no callback clips. The same object in every `fit`: a new
        # one would have the train function traced anew.
        self._observer.set_params(self.params)
        self._observer.set_model(self.model)
        self._observer.on_train_begin(logs)

    def on_train_batch_begin(self, batch, logs=None):
        self._observer.on_train_batch_begin(batch, logs)
        # Not in on_train_begin: a callback after this one may still restore a checkpoint there.
        if not self._opened:
            self._opened = True
            self._open()
            self._log_lags()

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
        self._writer.end()

    # When to log.

    def _forget(self) -> None:
        """Starts anew: for the first model, or for another one."""
        self._writer = RunWriter("GradientFlow", self._given_log_dir, reader.SUFFIX)
        self._observer = GradientNorm()
        self._history = History(self.max_profiles)
        self._stretch = 1
        self._records = 0
        self._drawn = 0
        self._step = self._last_step = self._last_lag_step = -1
        self._offset = 0
        self._layers = []
        self._lag_profiles: list[lags.LagProfile] = []
        self._opened = False
        self._last_batch = -1

    def _interval(self) -> int:
        """Steps (or epochs) from one profile to the next."""
        return self._stretch * (1 if self.log_freq == "epoch" else self.log_freq)

    def _count(self, units: int) -> None:
        """Counts steps (or epochs) and logs when the interval is over."""
        self._seen += units
        interval = self._interval()
        if self._seen < interval or not self._layers:
            return
        # Only now, since reading a variable waits for the device.
        step = self._iterations() + self._offset
        if self.log_freq != "epoch" and self._logged_at is not None:
            # A batch is not always a step: gradient accumulation, skipped steps; and Keras counts
            # the last batches of an epoch as a whole execution.
            self._seen = step - self._logged_at
            if self._seen < interval:
                return
        self._seen %= interval
        self._logged_at = step - self._seen
        self._log(step)

    # Where to log.

    def _open(self) -> None:
        """Finds the layers and the directory, before the first step of a `fit`."""
        self._layers = _layers_with_gradient_norms(self.model)
        if not self._layers:
            warnings.warn(
                f"GradientFlow logs nothing: model {self.model.name!r} has no layer that records "
                "the gradient of every timestep. Use kbptt.LSTM, kbptt.GRU, kbptt.SimpleRNN or "
                "kbptt.RNN in place of the keras.layers of these names, or kbptt.convert(model).",
                stacklevel=2,
            )
            return
        if self._writer.open():
            self._last_step = self._last_lag_step = self._writer.last_step
        iterations = self._iterations()
        # The same run goes on after a new compile(), which restarts the iterations.
        last = max(self._step, self._last_step) if iterations == 0 else self._step
        self._offset = max(self._offset, last - iterations)
        self._of_model = weakref.ref(self.model)

    def _iterations(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    # What to log.

    def _log(self, step: int) -> None:
        if step <= self._last_step:
            # A skipped (non-finite) or accumulating step, or one that a run killed after its last
            # checkpoint has already logged: steps of a run must increase.
            return
        profiles, values = {}, []
        loss_scale = np.float32(gradient_transform.loss_scale(self.model))
        for name, layer in self._layers:
            norms = layer.gradient_norms
            if norms is None:
                continue
            profiles[name] = np.array(norms, np.float32) / loss_scale
            values.append(writer.profile_value(name, profiles[name], _content(name, layer)))
            for key, value in gradient_flow.summarize(profiles[name]).items():
                values.append(writer.scalar_value(layout.statistic_tag(name, key), value))
            penalty = getattr(layer, "gradient_penalty", None)
            if penalty is not None:
                tag = layout.statistic_tag(name, "gradient_penalty")
                values.append(writer.scalar_value(tag, penalty))
        for key, value in self._optimizer_statistics().items():
            values.append(writer.scalar_value(layout.statistic_tag(_OPTIMIZER, key), value))
        self._step = self._last_step = step
        self._history.add(step, profiles)
        self._writer.write(step, values)
        self._records += 1
        if self._records >= self.max_profiles:
            self._stretch *= 2
            self._records = self.max_profiles // 2
        if self.heatmap_freq == "auto" and self._history.added >= _HEATMAP_GROWTH * self._drawn + 2:
            self._draw()

    def _log_lags(self) -> None:
        """Measures and writes the gradients by lag, unless this step has them."""
        if self.lag_data is None or not self._layers or not self._writer.writable:
            return
        step = self._iterations() + self._offset
        if step <= self._last_lag_step:
            return
        self._last_lag_step = step
        measurable = lags.truncated_layers(self.model)
        layers = [pair for pair in self._layers if any(pair[1] is one for one in measurable)]
        x, y, *sample_weight = self.lag_data
        try:
            profiles = lags.lag_profiles(
                self.model, x, y, self.max_lags, [layer for _, layer in layers], *sample_weight
            )
        except Exception as error:  # whatever the model makes of inputs that it does not take
            shapes = ", ".join(str(np.shape(part)) for part in keras.tree.flatten(self.lag_data))
            first_line, *_ = str(error).split("\n")
            raise ValueError(
                "GradientFlow cannot measure gradients by lag on its `lag_data`. Expected inputs "
                f"and targets as for `fit`. Received shapes {shapes}. {first_line}"
            ) from error
        self._lag_profiles = profiles
        self._writer.write(
            step,
            [
                writer.lag_value(name, profile.norms, _content(name, layer))
                for (name, layer), profile in zip(layers, profiles, strict=True)
            ],
        )

    def _optimizer_statistics(self) -> dict[str, float]:
        """Global norm before any clipping, and what each clipping callback reports."""
        transforms = gradient_transform.active(self.model)
        # The first one that looks at all variables; at least this callback's own does.
        first = next(t for t in transforms if t.variables is None)
        statistics = {}
        if int(first.step_count.numpy()):  # else a train_step of its own bypasses the optimizer
            statistics["global_norm"] = first.statistics()["norm_before"]
        clipping = [transform for transform in transforms if not transform.observes_only]
        names = layout.unique_names(transform.name for transform in clipping)
        for name, transform in zip(names, clipping, strict=True):
            prefix = f"{name}/" if len(clipping) > 1 else ""
            for key, value in transform.statistics().items():
                if key != "norm_before":
                    statistics[prefix + key] = value
        return statistics

    def _draw(self) -> None:
        """Writes a heatmap of the whole record, if it has grown since the last."""
        if self._history.added == self._drawn or not self._writer.writable:
            return
        try:
            from kbptt.tensorboard import heatmap
        except MissingExtra:  # with "auto"; the tab draws from the profiles
            return
        self._drawn = self._history.added
        values = []
        for name, layer in self._layers:
            steps, norms = self._history.get(name)
            if not norms.size:
                continue
            length, stride, align = _windows(layer)
            # Sliding windows overlap: no timestep is a sharp cut.
            window = length if stride == length else None
            image = heatmap.to_png(heatmap.heatmap_figure(steps, norms, name, window, align))
            values.append(writer.image_value(f"gradient_flow_heatmap/{name}", *image))
        self._writer.write(self._step, values)


def _layers_with_gradient_norms(model: keras.Model) -> list[tuple[str, keras.Layer]]:
    """`(unique safe name, layer)` of the recurrent layers at any depth, wrappers included."""
    # The walk that Keras itself uses for losses and metrics; the public `layers` knows neither
    # the layers inside a wrapper nor those held by a user's own layer.
    layers = [
        layer
        for layer in model._flatten_layers(include_self=True)
        if hasattr(type(layer), "gradient_norms")
    ]
    names = layout.unique_names((layer.name for layer in layers), reserved=[_OPTIMIZER])
    return list(zip(names, layers, strict=True))


def _windows(layer: keras.Layer) -> tuple[int | None, int | None, str]:
    """`(length, stride, align)` of the layer's truncation windows, None without windows."""
    truncation = getattr(layer, "truncation", None)
    length = getattr(truncation, "length", None)
    return length, getattr(truncation, "stride", None), getattr(truncation, "align", "end")


def _content(name: str, layer: keras.Layer) -> bytes:
    loss = "all" if getattr(layer, "return_sequences", False) else "last"
    return layout.content(name, loss, *_windows(layer))
