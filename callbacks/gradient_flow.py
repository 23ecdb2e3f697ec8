"""The callback that writes the gradient of every timestep to TensorBoard."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from kbptt import _checks
from kbptt._attributes import Fixed, Option
from kbptt._extras import require
from kbptt._typing import Labelled
from kbptt.analysis import gradient_flow, lags, summary as summaries, thresholds as bounds
from kbptt.analysis.evidence import OPTIMIZER, Evidence, Key
from kbptt.analysis.findings import Finding, find_faults
from kbptt.analysis.thresholds import Thresholds
from kbptt.callbacks import _run_logger, gradient_transform
from kbptt.callbacks._cadence import Cadence
from kbptt.callbacks._clips import in_group, optimizer_statistics
from kbptt.callbacks._health import VARIABLES, HealthMonitor, Measured, lags_on, parts
from kbptt.callbacks._heatmaps import Heatmaps
from kbptt.callbacks._judging import Judge, OnVerdict, on_verdict as check_on_verdict
from kbptt.callbacks._observer import Observer
from kbptt.callbacks._options import Frequency, epoch_or_steps, labelled_sequences, lags_count
from kbptt.callbacks._records import Records, content, division, summary_values
from kbptt.callbacks._run_logger import RunLogger
from kbptt.layers import find
from kbptt.tensorboard import layout, reader, writer

HeatmapFrequency: TypeAlias = int | Literal["auto"] | None


def _heatmap_freq(name: str, value: Any) -> HeatmapFrequency:
    if value is None:
        return None
    if isinstance(value, str) and value == "auto":
        return "auto"
    require("matplotlib")
    return _checks.positive_integer(name, value, 'Or pass "auto" or None.')


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
    gradients, `nonfinite_steps` (of all `fit` so far), if a kbptt callback clips the gradient
    `clip_rate`, `threshold` and `norm_after`, and if the optimizer does `clipnorm/clip_rate`.

    With `health` it also examines the batch of the logged step (see `kbptt.analysis.health`), and
    writes for every layer the tensors `…/h_norm` and `…/c_norm`, the norms of the states of all
    timesteps, the scalars `dead_units`, `saturated_units`, `gate_f_closed`, `gate_f_open`, …; for
    every trainable variable, under `gradient_flow_stats/variables/<path>/…`, `gradient_norm`
    (before any clipping) and `update_to_weight`, ‖Δw‖/‖w‖ of that step; and, where layers return
    sequences, the gradients by lag on a few samples of the batch.

    The norms are those of the unscaled loss: the loss scale of mixed precision, which the layer's
    `gradient_norms` include, is divided out.

    The step is `optimizer.iterations`, which keeps increasing over several calls of `fit` and when
    training is resumed from a checkpoint into the same directory. If a model starts at iteration 0
    in a directory that already contains profiles, or that a different process is writing to, it is
    a new run: it goes to `<log_dir>_2`, with a warning, as do the other callbacks with this
    directory.

    If the disk is full or a permission is missing, logging stops with one warning; training
    continues.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.GradientFlow("runs/a", log_freq=50)])
    ```

    Args:
        log_dir: String, path-like or None. Directory of this run, below TensorBoard's `--logdir`.
            Can be the directory of `keras.callbacks.TensorBoard`. None writes no files and only
            keeps what `history`, `scalars`, `plot` and `summary` show. Defaults to `None`.
        log_freq: `"epoch"` or a positive integer, the training steps between profiles. Defaults to
            `"epoch"`.
        heatmap_freq: When to draw the heatmap images: `"auto"`, each time the history has grown by
            half, as long as drawing takes at most about 2 % of the time of `fit`; a positive
            integer, the number of epochs between images; or `None`, never. Unless `None`, also at
            the end of training; if `fit` raised, when the next one with this callback starts or the
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
        health: Boolean, or some of `"states"`, `"variables"` and `"lags"`. Whether to also measure
            the health of the network. With `log_freq="epoch"` it is measured at the last step of an
            epoch, as long as that takes at most 4 % of the time of `fit`; otherwise with every
            profile. Defaults to `False`.
        on_verdict: What to do when something is found to be wrong (see
            `kbptt.analysis.find_faults`): `"warn"`; `"stop"`, which also ends training after the
            step; or a function that receives the list of new `kbptt.analysis.Finding`. Checked at
            every profile (before the third, so for two epochs by default, only non-finite steps can
            be found); each finding triggers it once. Defaults to `None`, nothing.
        thresholds: `kbptt.analysis.Thresholds`, or a dict of those that differ from the defaults.
            Defaults to `None`.

    Attributes:
        log_dir: The directory written to, or None.
        history: Dict from layer name to `(steps, norms)` with shapes `(records,)` and
            `(records, timesteps)`: the records of this process, evenly thinned out beyond
            `max_profiles` records or 64 MiB.
        states: Dict from `"<layer>/h"` and `"<layer>/c"` to `(steps, norms)`, with `health`.
        scalars: Dict from `"<layer>/decay"`, `"optimizer/global_norm"`, … to `(steps, values)`.
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
    health = Option(parts)
    on_verdict = Option(check_on_verdict)
    thresholds = Option(lambda _, value: bounds.get(value))
    history = Fixed(lambda self: self._records.profiles.all(), "It is what was measured.")
    states = Fixed(
        lambda self: {"/".join(key): v for key, v in self._records.states.all().items()},
        "They are what was measured.",
    )
    scalars = Fixed(lambda self: self._records.scalars(), "They are what was measured.")
    lag_profiles = Fixed(lambda self: self._lag_profiles, "They are what was measured.")

    suffix = reader.SUFFIX

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        log_freq: Frequency = "epoch",
        heatmap_freq: HeatmapFrequency = "auto",
        max_profiles: int = 1000,
        lag_data: Labelled | None = None,
        lag_freq: int = 1,
        max_lags: int = 100,
        health: bool | str | Sequence[str] = False,
        on_verdict: OnVerdict = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
    ):
        self.max_profiles = max_profiles
        self.health = health
        self.on_verdict = on_verdict
        self.thresholds = thresholds
        super().__init__(log_dir)
        self.log_freq = log_freq
        self.heatmap_freq = heatmap_freq
        self.lag_data = lag_data
        self.lag_freq = lag_freq
        self.max_lags = max_lags

    # What was seen.

    def findings(self) -> list[Finding]:
        """Returns what is wrong so far: `kbptt.analysis.find_faults` on the run's records."""
        return find_faults(self._evidence(), self.thresholds)

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints the verdict for each layer, what is wrong and what to try, and the thresholds."""
        print_fn(summaries.text(self._evidence(), self.thresholds))

    def plot(self, layer: str | None = None) -> Any:
        """A figure of one layer: the heatmap of ‖∂L/∂h_t‖, and its first and last profile.

        With `health` also the norms of the states, and the fractions of dead and saturated units
        over training. A notebook displays it; `figure.savefig` saves it.

        Args:
            layer: The layer's name. Defaults to `None`, the first one.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ValueError: If there is no such layer, or it has no profile yet.
        """
        require("matplotlib")
        from kbptt.tensorboard import overview

        names = dict.fromkeys(self._records.profiles.layers())
        if not names:
            raise ValueError(
                "There is nothing to plot: expected at least one profile. Call `fit` with this "
                "callback first, on a model with a recurrent kbptt layer."
            )
        name = next(iter(names)) if layer is None else _checks.one_of("layer", layer, names)
        return overview.figure(name, self.history[name], self.states, self.scalars)

    # Keras's hooks.

    def on_train_begin(self, logs=None):
        self._finish_images()
        super().on_train_begin(logs)
        self._images.start()
        self._records.limit(self.max_profiles)
        self._cadence.start(self.log_freq, self.max_profiles, (self.params or {}).get("steps"))
        self._judge.set(self.on_verdict, self.thresholds)
        self._records.begin()
        # The same object in every `fit`: a new one would have the train function traced again.
        each = VARIABLES in self.health
        if each not in self._observers:
            self._observers[each] = Observer(each)
        self._observer = self._observers[each]
        self._observer.set_params(self.params)
        self._observer.set_model(self.model)
        self._observer.on_train_begin(logs)
        self._join_health()

    def on_train_batch_begin(self, batch, logs=None):
        self._observer.on_train_batch_begin(batch, logs)
        self._start_once()
        monitor = self._monitor
        if monitor is not None and self._cadence.ends_with(batch, self.model.steps_per_execution):
            if not self._cadence.by_epoch or monitor.affordable():
                monitor.want()

    def on_epoch_begin(self, epoch, logs=None):
        self._cadence.begin_epoch()

    def on_train_batch_end(self, batch, logs=None):
        self._log(self._cadence.end_batch(batch, self._now))

    def on_epoch_end(self, epoch, logs=None):
        self._log(self._cadence.end_epoch(self._now))
        self._evidence()  # while all clips are here to show what they have counted
        if (epoch + 1) % self.lag_freq == 0:
            self._log_lags()
        if isinstance(self.heatmap_freq, int) and (epoch + 1) % self.heatmap_freq == 0:
            self._draw()

    def on_train_end(self, logs=None):
        if self.heatmap_freq is not None:
            self._draw()
        self._observer.on_train_end(logs)
        if self._monitor is not None:
            self._monitor.leave()
        super().on_train_end(logs)

    # A `fit`.

    def _forget(self) -> None:
        super()._forget()
        self._observers: dict[bool, Observer] = {}
        self._records = Records(self.max_profiles)
        self._cadence = Cadence()
        self._judge = Judge()
        self._images = Heatmaps(self._records.profiles)
        # Steps up to these are in the directory.
        self._last_step = self._last_lag_step = -1
        self._layers: dict[str, keras.Layer] = {}
        self._lag_profiles: list[lags.LagProfile] = []
        self._monitor: HealthMonitor | None = None

    def _join_health(self) -> None:
        """Has the steps of this `fit` looked at, if the health of the network is asked for."""
        chosen = [part for part in self.health if part != "lags" or self.lag_data is None]
        if not chosen:
            self._monitor = None
            return
        if self._monitor is None:
            self._monitor = HealthMonitor(self.model)
        self._monitor.join(chosen, self.max_lags)

    def _start(self) -> None:
        layers = find.layers_with_norms(self.model)
        reserved = [OPTIMIZER, VARIABLES]
        names = layout.unique_names((layer.name for layer in layers), reserved=reserved)
        self._layers = dict(zip(names, layers, strict=True))
        if not layers:
            warnings.warn(
                f"GradientFlow logs nothing: model {self.model.name!r} has no layer that records "
                "the gradient of every timestep. Replace the recurrent keras.layers by kbptt.LSTM, "
                "kbptt.GRU, kbptt.SimpleRNN or kbptt.RNN, or use kbptt.convert(model).",
                stacklevel=2,
            )
            return
        if self._open():
            self._last_step = self._last_lag_step = self._found_step
        iterations = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        # Iterations of 0 in a directory with profiles: the same run, after a new compile().
        self._resume(self._step if iterations else max(self._step, self._last_step))
        self._log_lags()

    # What to log.

    def _log(self, step: int | None) -> None:
        if step is None or not self._layers:
            return
        measured = None if self._monitor is None else self._monitor.take()
        # Not a skipped (non-finite) or accumulating step, nor one that was logged before the run
        # was killed and resumed from an older checkpoint: steps of a run must increase.
        if step > self._last_step:
            self._record(step, measured)
        if self.on_verdict is not None:
            self._judge.judge(self.model, self._evidence())

    def _record(self, step: int, measured: Measured | None) -> None:
        contents = self._contents()
        divisions = {name: division(layer) for name, layer in self._layers.items()}
        profiles, scalars = {}, self._optimizer_scalars()
        loss_scale = np.float32(gradient_transform.loss_scale(self.model))
        for name, layer in self._layers.items():
            norms = layer.gradient_norms
            if norms is None:
                continue
            profiles[name] = np.array(norms, np.float32) / loss_scale
            statistics = gradient_flow.summarize(profiles[name])
            if getattr(layer, "gradient_penalty", None) is not None:
                statistics["gradient_penalty"] = layer.gradient_penalty
            scalars |= in_group(name, statistics)
        states = {}
        if measured is not None:
            norms = self._observer.norm_of_each(self.model.trainable_variables)
            states, more = measured.named(self._layers, norms, self.model.name)
            scalars |= more
        values = summary_values(profiles, states, scalars, contents)
        self._step = self._last_step = step
        self._records.add(step, profiles, states, scalars, divisions)
        self._write(step, values)
        if measured is not None and measured.lags:
            self._write_lags(step, measured.lags)
        self._cadence.recorded()
        if self.heatmap_freq is not None and self._events is not None:
            self._images.note(step, divisions, self._events)
            if self.heatmap_freq == "auto" and self._images.due():
                self._draw()

    def _log_lags(self) -> None:
        """Measures and writes the gradients by lag on `lag_data`, once per step."""
        if self.lag_data is None or not self._layers or not self._writable:
            return
        step = self._now()
        if step <= self._last_lag_step:
            return
        self._write_lags(step, lags_on(self.model, self.lag_data, self.max_lags))

    def _write_lags(self, step: int, measured: Sequence[tuple[Any, lags.LagProfile]]) -> None:
        self._last_lag_step = step
        contents = self._contents()
        names = {id(layer): name for name, layer in self._layers.items()}
        self._lag_profiles = [profile for _, profile in measured]
        values = []
        for layer, profile in measured:
            name = names[id(layer)]
            self._records.lags[name] = profile.norms
            values.append(writer.lag_value(name, profile.norms, contents[name]))
        self._write(step, values)

    def _contents(self) -> dict[str, bytes]:
        layers = enumerate(self._layers.items())
        return {name: content(name, layer, index) for index, (name, layer) in layers}

    def _optimizer_scalars(self) -> dict[Key, float]:
        found = in_group(OPTIMIZER, optimizer_statistics(self.model, self._observer))
        return self._records.of_run(found)

    def _evidence(self) -> Evidence:
        if self._layers and gradient_transform.active(self.model):
            # Steps that leave no profile count too.
            self._records.note(self._optimizer_scalars())
        return self._records.evidence(self._layers)

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
