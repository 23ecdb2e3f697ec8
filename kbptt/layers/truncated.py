"""What all kbptt layers share: options, checks of the input, the engine, the gradient norms."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from kbptt import truncation as truncations
from kbptt._tensorflow import is_being_exported
from kbptt.engine import (
    Backward,
    Effects,
    Loop,
    Monitor,
    Options,
    Resets,
    autodiff_loop,
    effects_are_possible,
)
from kbptt.layers import inputs
from kbptt.layers.options import GradientOptions
from kbptt.layers.states import CarriedStates

# Norms that are kept of a layer that does not know its number of timesteps when it is built; more
# are kept as well, except by XLA.
UNKNOWN_TIMESTEPS = 2**16

# Passes `resets`, and what they return to, from `call` to `inner_loop`; Keras's `call` has no such
# arguments. Thread-local.
_resets: ContextVar[tuple | None] = ContextVar("kbptt_resets", default=None)


def _swap(x):
    """Batch-major as time-major and back; None stays None."""
    return None if x is None else ops.swapaxes(x, 0, 1)


def _swap_resets(resets: Resets | None) -> Resets | None:
    return None if resets is None else resets._replace(at=_swap(resets.at))


def _sizes(x: tf.Tensor, time_major: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Timesteps and batch."""
    first, second = tf.unstack(tf.shape(x)[:2])
    return (first, second) if time_major else (second, first)


class TruncatedLayer(GradientOptions):
    """Mixin in front of a `keras.layers.RNN`: replaces its loop and leaves everything else.

    Weights, outputs, masks, states and the constructor stay those of the Keras layer; only how the
    gradient is computed, and how far back it flows, changes.
    """

    def _set_up(self, truncation: Any, gradient_clip: float | None) -> None:
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                "kbptt computes its gradients with TensorFlow. Expected the Keras backend "
                f"'tensorflow'. Received: '{keras.backend.backend()}'. Set the environment "
                "variable KERAS_BACKEND=tensorflow before Keras is imported."
            )
        self._norms = None
        self._set_options(truncation, gradient_clip)
        self.supports_masking = True
        # cuDNN, which XLA cannot contain, is not used here.
        self.supports_jit = True
        self._engines: dict = {}
        self._warned = False

    # Gradient norms -------------------------------------------------------------------------

    @property
    def gradient_norms(self) -> np.ndarray | None:
        """Σ_b ‖∂L/∂h_t‖₂ of the last backward pass: float32 ``(timesteps,)``, or None before it.

        ∂L/∂h_t is the total derivative: through the output of step t and through step t+1, as far
        as the truncation lets it flow, before `gradient_clip`. For a loss that is a mean over the
        batch this is the mean norm per sample. Index 0 is the step processed first. The loss is the
        one that was differentiated: under mixed_float16 it carries the loss scale, which the layer
        does not know and `kbptt.callbacks.GradientFlow` divides out.
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
        with self.temporarily(truncation=windows, lag_recorder=record):
            yield

    def build(self, sequences_shape, initial_state_shape=None):
        inputs.check_shape(self.name, tuple(sequences_shape))
        super().build(sequences_shape, initial_state_shape)
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
                self._changes, trainable=False, name="versions", dtype=tf.int64
            )

    # State ------------------------------------------------------------------------------------

    def _create_state_variables(self, batch_size):
        with keras.name_scope(self.name):
            carried = CarriedStates(self.get_initial_state(batch_size), self.variable_dtype)
        # Not by `setattr`, which would count the variables among the weights.
        vars(self).update(_carried=carried, states=carried.shown)

    @property
    def training_states(self) -> list[keras.Variable] | None:
        """Where a stateful layer goes on in its next training pass; `states` if those are newer."""
        return None if self.states is None else self._carried.training

    @property
    def inference_states(self) -> list[keras.Variable] | None:
        """Where a stateful layer goes on in `predict`, `evaluate` and calls without training."""
        return None if self.states is None else self._carried.inference

    def reset_state(self):
        """Sets the states that a stateful layer keeps back to zeros."""
        if self.states is not None:
            self._carried.reset()

    # Calls ------------------------------------------------------------------------------------

    def call(self, sequences, initial_state=None, mask=None, training=False, resets=None):
        """Runs the layer.

        Call arguments:
            sequences: ``(batch, timesteps, features)``.
            initial_state: Optional list of states ``(batch, units)``.
            mask: Optional boolean ``(batch, timesteps)``; False holds the state.
            training: Boolean. Whether dropout is active.
            resets: Optional boolean ``(batch, timesteps)``. True returns that sample to its initial
                state before the timestep; no gradient crosses such a place. The initial state is
                `initial_state` if given, else the one of a fresh sequence (zeros for the cells of
                Keras), in a stateful layer too.
        """
        sequences, initial_state, mask, resets = inputs.as_tensors(
            sequences, initial_state, mask, resets
        )
        inputs.check_sequences(self.name, sequences)
        shape = tuple(sequences.shape)
        inputs.check_by_timestep(self.name, "mask", mask, shape)
        inputs.check_by_timestep(self.name, "resets", resets, shape)
        widths = tree.flatten(self.state_size)
        inputs.check_initial_state(self.name, initial_state, widths, shape[0])
        if self.stateful and self._expected_batch_size is not None:
            sequences = inputs.check_batch(self.name, sequences, int(self._expected_batch_size))
        restart = initial_state
        if self.stateful and initial_state is None:
            initial_state = self._carried.start(training)
            if resets is not None:
                restart = self.get_initial_state(batch_size=ops.shape(sequences)[0])
        self._callers.note()
        token = _resets.set(None if resets is None else (resets, restart))
        try:
            results = super().call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )
        finally:
            _resets.reset(token)
        if self.stateful:
            self._carried.finish(training)
        return results

    # The loop ---------------------------------------------------------------------------------

    def _prepare(self, sequences, initial_state, mask):
        """Inputs ``(batch, timesteps, …)``, initial states, mask and resets as loops read them.

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
            # What stands in a masked step, NaN included, must not reach any gradient.
            shape = tf.concat([tf.shape(mask), tf.ones([len(x.shape) - 2], tf.int32)], 0)
            x = tf.where(tf.reshape(mask, shape), x, tf.zeros_like(x))
        start = self._as_carried(initial_state)
        resets = None
        if _resets.get() is not None:
            at, restart = _resets.get()
            at = tf.cast(at, tf.bool)
            resets = Resets(at, start if restart is None else self._as_carried(restart))
        if self.go_backwards:
            x, mask = tf.reverse(x, [1]), None if mask is None else tf.reverse(mask, [1])
            if resets is not None:
                resets = resets._replace(at=tf.reverse(resets.at, [1]))
        return x, start, mask, resets

    def _as_carried(self, states) -> tuple[tf.Tensor, ...]:
        dtype = self._loop_dtype()
        return tuple(tf.cast(s, dtype) for s in tree.flatten(states))

    def _run(self, engine: Loop, x, start, weights, mask, resets):
        """Runs the engine; returns what `keras.layers.RNN.inner_loop` returns."""
        given = (x, mask, resets)
        if engine.time_major:
            given = _swap(x), _swap(mask), _swap_resets(resets)
        x, kept, resets = given
        outputs, states = engine(
            x,
            start,
            weights,
            mask=kept,
            resets=resets,
            sequences=self.return_sequences,
            backward=self._backward(*_sizes(x, engine.time_major), engine.reads_windows_late),
        )
        if engine.time_major:
            outputs = _swap(outputs)
        return *self._show(outputs, states[engine.output], mask), states

    def _loop_dtype(self) -> tf.DType:
        """Of what is carried from step to step."""
        dtype = tf.as_dtype(getattr(self.cell, "compute_dtype", self.compute_dtype))
        return tf.float32 if dtype.size < 4 else dtype

    def _run_autodiff(self, forward, step, x, start, mask, resets):
        """Runs the ordinary loop that TensorFlow differentiates; returns as `_run`."""
        timesteps, batch = _sizes(x, False)
        backward = self._backward(timesteps, batch, reads_late=False)
        factors = None
        if backward.factors is not None:
            (factors,) = backward.effects.before((backward.factors(timesteps, batch),))
        states, final = autodiff_loop(
            forward,
            step.hidden,
            self._options(),
            _swap(x),
            start,
            _swap(mask),
            _swap_resets(resets),
            factors,
            backward,
            tuple(tf.convert_to_tensor(v.value) for v in self.trainable_variables),
        )
        outputs = _swap(states[step.output]) if self.return_sequences else None
        return *self._show(outputs, final[step.output], mask), final

    def _show(self, outputs, last, mask):
        """Last and all outputs ``(batch, timesteps, units)`` as Keras shows them under a mask."""
        if mask is not None:
            # A masked step repeats the output before it, which is zero before the first one.
            shown = mask
            if not self.zero_output_for_mask:
                shown = tf.cumsum(tf.cast(mask, tf.int32), axis=1) > 0
            last = tf.where(shown[:, -1:], last, tf.zeros_like(last))
            if outputs is not None:
                outputs = tf.where(shown[:, :, None], outputs, tf.zeros_like(outputs))
        return last, last[:, None] if outputs is None else outputs

    def _engine(self, key: Any, make: Callable[[Options], Any]) -> Any:
        """The engine for the present options: made once, since compiling costs."""
        options = self._options()
        if (key, options) not in self._engines:
            self._engines[key, options] = make(options)
        return self._engines[key, options]

    # The backward pass -------------------------------------------------------------------------

    def _penalty_weight(self, effects: Effects) -> Callable[[], tf.Tensor] | None:
        return None

    def _backward(self, timesteps: tf.Tensor, batch: tf.Tensor, reads_late: bool) -> Backward:
        """What the backward pass of this call draws and keeps.

        `reads_late` says that the loop reads windows and clip when it runs.
        """
        effects = Effects()
        if is_being_exported():
            return Backward(effects)  # a gradient that is saved is never run
        factors = self._factors and self._factors.drawer(effects)
        if effects_are_possible():
            monitor = self._monitor(effects, reads_late)
            return Backward(effects, factors, monitor, self._penalty_weight(effects))
        if factors is not None:
            (drawn,) = effects.before((factors(timesteps, batch),))

            def factors(timesteps, batch):
                return drawn

        if self._lag_recorder is None and self.record_gradient_norms and not self._warned:
            self._warned = True
            warnings.warn(
                f"Layer '{self.name}' keeps no `gradient_norms` here: it is traced into a loop "
                "(`tf.map_fn`, `tf.while_loop`) inside another loop or a branch, whose gradient "
                "cannot write to variables. It is trained all the same. Set its "
                "`record_gradient_norms = False` to say that this is known.",
                stacklevel=2,
            )
        return Backward(effects, factors, self._lag_recorder)

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
                "since this tf.function was traced: make the tf.function anew.",
            )
            if keep is not None:
                keep(measured)

        return monitor

    def _recorder(self, effects: Effects) -> Callable[[Monitor], None]:
        kept = effects.capture(self._norms)

        def record(measured: Monitor) -> None:
            norms = measured.norms
            if norms.shape[0] != self._norms_size:
                # Filled up to a size that stays the same, as XLA wants it.
                missing = tf.maximum(self._norms_size - tf.shape(norms)[0], 0)
                norms = tf.pad(norms, [[0, missing]], constant_values=-1.0)
            kept.assign(norms)

        return record

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        full = isinstance(self.truncation, truncations.Full)
        config["truncation"] = None if full else truncations.serialize(self.truncation)
        config["gradient_clip"] = self.gradient_clip
        return config
