"""What all kbptt layers share: options, checks of the input, the engine, the gradient norms."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from kbptt import gradient_clip as gradient_clips, truncation as truncations
from kbptt._tensorflow import is_being_exported
from kbptt.engine import (
    Context,
    Dropout,
    Effects,
    Loop,
    Monitor,
    Observation,
    Options,
    Resets,
    effects_are_possible,
    settings,
)
from kbptt.gradient_clip import GradientClipLike
from kbptt.layers import inputs
from kbptt.layers.call import StatefulCall
from kbptt.truncation.policies import TruncationLike

# Norms that are kept if the number of timesteps is unknown when the layer is built; more
# are kept as well, except by XLA.
UNKNOWN_TIMESTEPS = 2**16


def _swap(x: Any) -> Any:
    """Batch-major as time-major and back; None stays None."""
    return None if x is None else ops.swapaxes(x, 0, 1)


def _constant(value: tf.Tensor) -> Callable[..., tf.Tensor]:
    return lambda *_: value


def _swap_resets(resets: Resets | None) -> Resets | None:
    return None if resets is None else resets._replace(at=_swap(resets.at))


class Stacked(NamedTuple):
    """The place of a cell that runs by itself, as one of a stack.

    Attributes:
        number: Counted from the bottom.
        top: Whether its outputs are those of the layer.
    """

    number: int
    top: bool


class TruncatedLayer(StatefulCall):
    """Mixin in front of a `keras.layers.RNN`: replaces its loop and leaves everything else.

    Weights, outputs, masks, states and the constructor stay those of the Keras layer; only how the
    gradient is computed, and how far back it flows, changes.
    """

    # Whether no one reads the outputs at masked timesteps: `kbptt.layers.call.Beginning`.
    _holds = False
    # Timesteps that were processed before those of a loop, which keep no norm.
    _burnt = 0

    def _set_up(
        self,
        truncation: TruncationLike,
        gradient_clip: GradientClipLike,
        trainable_initial_state: bool = False,
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                "kbptt computes its gradients with TensorFlow. Expected the Keras backend "
                f"'tensorflow'. Received: '{keras.backend.backend()}'. Set the environment "
                "variable KERAS_BACKEND=tensorflow before Keras is imported."
            )
        self._norms: tf.Variable | None = None
        self.trainable_initial_state: bool = bool(trainable_initial_state)
        self._set_options(truncation, gradient_clip)
        self.supports_masking = True
        # cuDNN, which XLA cannot contain, is not used here.
        self.supports_jit = True
        self._loops: dict[Any, Loop] = {}
        self._warned = False

    # Gradient norms -------------------------------------------------------------------------

    @property
    def gradient_norms(self) -> np.ndarray | None:
        """Σ_b ‖∂L/∂h_t‖₂ of the last backward pass: float32 ``(timesteps,)``, or None before it.

        ∂L/∂h_t is the total derivative, through the output of step t and through step t+1, as far
        as the truncation lets it flow, before `gradient_clip`. For a loss that is a mean over the
        batch, this is the mean norm per sample. Index 0 is the step processed first. The loss is
        the one that was differentiated: under mixed_float16 it includes the loss scale, which the
        layer cannot see; `kbptt.callbacks.GradientFlow` divides it out.
        """
        if self._norms is None:
            return None
        norms = self._norms.numpy()
        # −1 marks timesteps without a recorded norm.
        norms = norms[~(norms < 0)]
        return norms if norms.size else None

    @contextlib.contextmanager
    def recording_lags(self, maximum: int, record: Callable[[Monitor], None]) -> Iterator[None]:
        """A scope in which backward passes measure ∂L_s/∂h_{s−k} for every loss s and lag k.

        Inside, every loss flows back through `maximum` states, whatever `truncation` is, and
        `gradient_norms` keeps its value. See `kbptt.analysis.lag_profile`.

        Args:
            maximum: Positive integer. Number of lags.
            record: Called with the `kbptt.engine.Monitor` of each backward pass, in place of
                keeping `gradient_norms`.
        """
        windows = truncations.Windowed(maximum, stride=1)
        others = self.overriding(detachment=None, lag_recorder=record)
        with self.temporarily(truncation=windows), others:
            yield

    @contextlib.contextmanager
    def observing(self, record: Callable[[Observation, Any, bool], None]) -> Iterator[None]:
        """A scope in which calls run eagerly, without a gradient, and show their states and gates.

        Of a stack of cells in one layer those of the top. See `kbptt.analysis.health`.

        Args:
            record: Called for every loop with the `kbptt.engine.Observation`, the mask, boolean
                ``(batch, timesteps)`` or None, and whether the timesteps follow those of the loop
                before (after a burn-in).
        """
        with self.overriding(observer=record):
            yield

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        inputs.check_shape(self.name, tuple(sequences_shape))
        super().build(sequences_shape, initial_state_shape)
        self._build_further_weights()
        self._build_initial_state()
        self._norms_size = sequences_shape[1] or UNKNOWN_TIMESTEPS
        with tf.init_scope():
            # A tf.Variable, which Keras does not count among the weights. Every replica of a
            # distribution strategy sees its share of the batch, hence the sum.
            self._norms = tf.Variable(
                tf.fill([self._norms_size], -1.0),
                trainable=False,
                shape=tf.TensorShape([None]),
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
                name="gradient_norms",
            )
            self._versions = tf.Variable(
                tf.constant(self._changes, tf.int64), trainable=False, name="versions"
            )

    def _build_further_weights(self) -> None:
        """Adds weights beside those of the cell."""

    # The loop ---------------------------------------------------------------------------------

    def _prepare(self, sequences, initial_state, mask, resets):
        """Inputs ``(batch, timesteps, …)``, initial states, mask and `Resets` as loops read them.

        Half precision keeps its inputs and outputs; what is carried from step to step is float32,
        which is at least as fast on a CPU and does not lose small gradients.
        """
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        if self.truncation.stochastic and sequences.shape[1] is not None:
            self.truncation.check_timesteps(sequences.shape[1])
        x = sequences
        if not x.dtype.is_floating:
            x = tf.cast(x, self.compute_dtype)
        if mask is not None:
            mask = tf.cast(mask, tf.bool)
            # The content of a masked step, NaN included, must not reach any gradient.
            shape = tf.concat([tf.shape(mask), tf.ones([len(x.shape) - 2], tf.int32)], 0)
            x = tf.where(tf.reshape(mask, shape), x, tf.zeros_like(x))
        start = self._as_carried(initial_state)
        if resets is not None:
            resets = Resets(tf.cast(resets.at, tf.bool), self._as_carried(resets.states))
        if self.go_backwards:
            x, mask = tf.reverse(x, [1]), None if mask is None else tf.reverse(mask, [1])
            if resets is not None:
                resets = resets._replace(at=tf.reverse(resets.at, [1]))
        return x, start, mask, resets

    def _as_carried(self, states) -> tuple[tf.Tensor, ...]:
        dtype = self._loop_dtype()
        return tuple(tf.cast(s, dtype) for s in tree.flatten(states))

    def _run_loop(
        self,
        loop: Loop,
        x,
        start,
        weights,
        mask,
        resets,
        stacked=None,
        dropout=Dropout(),  # noqa: B008
    ) -> tuple[Any, Any, Any]:
        """Runs the loop; returns what `keras.layers.RNN.inner_loop` returns.

        `stacked` is the `Stacked` of a part of a stack, or None.
        """
        kept = mask
        top = stacked is None or stacked.top
        if loop.time_major:
            x, kept, resets = _swap(x), _swap(mask), _swap_resets(resets)
        # The gradient norms are those of the top.
        context = self._context(x, loop) if top else Context(Effects())
        sequences = self.return_sequences or not top
        context = context._replace(
            mask=kept,
            resets=resets,
            sequences=sequences,
            dropout=dropout,
            influence=self._influence,
        )
        if self._observer is None or not top:
            outputs, states = loop(x, start, weights, context)
        else:
            observed = loop.observe(x, start, weights, context)
            outputs, states = observed.outputs, observed.final
            self._observer(observed, mask, self._burnt > 0)
        if loop.time_major:
            outputs = _swap(outputs)
        if not top:
            return None, outputs, states
        return *self._show(outputs, states[loop.output], mask), states

    def _loop_dtype(self) -> tf.DType:
        """Of what is carried from step to step."""
        dtype = tf.as_dtype(getattr(self.cell, "compute_dtype", self.compute_dtype))
        return tf.float32 if dtype.size < 4 else dtype

    def _show(self, outputs, last, mask):
        """Last and all outputs ``(batch, timesteps, units)`` as Keras shows them under a mask."""
        if mask is not None and not self._holds:
            # A masked step repeats the output before it, which is zero before the first one.
            shown = mask
            if not self.zero_output_for_mask:
                shown = tf.cumsum(tf.cast(mask, tf.int32), axis=1) > 0
            last = tf.where(shown[:, -1:], last, tf.zeros_like(last))
            if outputs is not None:
                outputs = tf.where(shown[:, :, None], outputs, tf.zeros_like(outputs))
        return last, last[:, None] if outputs is None else outputs

    @property
    def loops(self) -> frozenset[str]:
        """Which loops calls of this layer have used: `"cpu"` (C++) and `"tensorflow"`."""
        return frozenset(name for name, *_ in self._loops)

    def _loop(self, name: str, make: Callable[[Options], Loop], *call: Any) -> Loop:
        """The loop for the present options and settings: made once, since compiling costs.

        `call` is what else the loop depends on.
        """
        options = self._options()
        key = name, options, settings(), *call
        if key not in self._loops:
            self._loops[key] = make(options)
        return self._loops[key]

    # The backward pass -------------------------------------------------------------------------

    def _penalty_weight(self, effects: Effects) -> Callable[[], tf.Tensor] | None:
        return None

    def _context(self, x: tf.Tensor, loop: Loop) -> Context:
        """What the backward pass of this call draws and keeps."""
        effects = Effects()
        if is_being_exported():
            return Context(effects)  # a gradient that is saved is never run
        drawers = {
            name: draws.drawer(effects)
            for name, draws in (("factors", self._factors), ("through", self._detachment))
            if draws is not None
        }
        if effects_are_possible():
            monitor = self._monitor(effects, loop.reads_windows_late)
            weight = self._penalty_weight(effects)
            context = Context(effects, monitor=monitor, penalty_weight=weight)
            return context._replace(**drawers)
        first, second = tf.unstack(tf.shape(x)[:2])
        sizes = (first, second) if loop.time_major else (second, first)
        drawn = effects.before(tuple(draw(*sizes) for draw in drawers.values()))
        drawers = {name: _constant(v) for name, v in zip(drawers, drawn, strict=True)}
        if self._lag_recorder is None and self.record_gradient_norms and not self._warned:
            self._warned = True
            warnings.warn(
                f"Layer '{self.name}' keeps no `gradient_norms` here: it is traced into a loop "
                "(`tf.map_fn`, `tf.while_loop`) inside a second loop or a branch, whose gradient "
                "cannot write to variables. Training works as usual. Set "
                "`record_gradient_norms = False` on the layer to silence this warning.",
                stacklevel=2,
            )
        return Context(effects, monitor=self._lag_recorder)._replace(**drawers)

    def _monitor(self, effects: Effects, reads_late: bool) -> Callable[[Monitor], None] | None:
        """Keeps what the backward pass measures, unless the options have changed since."""
        keep = self._lag_recorder
        if keep is None and self.record_gradient_norms:
            keep = self._recorder(effects)
        if tf.executing_eagerly() or self._versions is None:
            return keep
        versions, traced = effects.capture(self._versions), tuple(self._changes)
        late = [0, 1] if reads_late else [1, 1]

        def monitor(measured: Monitor) -> None:
            versions.check(
                lambda now: tf.equal((now - traced) * late, 0),
                f"The options of layer '{self.name}' (truncation, gradient_clip, …) have changed "
                "since this tf.function was traced: make a new tf.function.",
            )
            if keep is not None:
                keep(measured)

        return monitor

    def _recorder(self, effects: Effects) -> Callable[[Monitor], None]:
        assert self._norms is not None
        kept, burnt = effects.capture(self._norms), self._burnt

        def record(measured: Monitor) -> None:
            norms = measured.norms
            assert norms is not None
            if burnt:
                norms = tf.pad(norms, [[burnt, 0]])
            if norms.shape[0] != self._norms_size:
                # Filled up to a size that stays the same, as XLA wants it.
                missing = tf.maximum(self._norms_size - tf.shape(norms)[0], 0)
                norms = tf.pad(norms, [[0, missing]], constant_values=-1.0)
            kept.assign(norms)

        return record

    def changing_variables(self) -> list[tf.Variable]:
        """Variables that training changes but saved models do not contain: not weights."""
        return self.random_states()

    def random_states(self) -> list[tf.Variable]:
        """Random states of backward passes (ξ, h-detach): seed and count, two integers each."""
        drawn = self._factors, self._detachment
        return [draws.uniform.state for draws in drawn if draws is not None]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        full = isinstance(self.truncation, truncations.Full)
        config["truncation"] = None if full else truncations.serialize(self.truncation)
        config["gradient_clip"] = gradient_clips.serialize(self.gradient_clip)
        if self.trainable_initial_state:
            config["trainable_initial_state"] = True
        return config
