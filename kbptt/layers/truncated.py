"""What all kbptt layers share: options, checks of the input, the engine, the gradient norms."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kbptt import truncation as truncations
from kbptt._checks import number
from kbptt.engine import BPTT, Monitor, NativeBPTT, Options, autodiff_loop, draw_factors

# Norms that are kept of a layer that does not know its number of timesteps when it is built; more
# are kept as well, except by XLA.
UNKNOWN_TIMESTEPS = 2**16

# On their way from `call` to the loop past Keras's `call`, in the thread that calls.
_resets: ContextVar[Any] = ContextVar("kbptt_resets", default=None)


def _swap(x):
    """Batch-major as time-major and back; None stays None."""
    return None if x is None else ops.swapaxes(x, 0, 1)


class Factors:
    """Draws the ξ of randomized truncation, new for every backward pass.

    Its random state is no weight: Keras does not look into such an object.
    """

    def __init__(self, truncation: truncations.Randomized) -> None:
        self.truncation = truncation
        self.seed = keras.random.SeedGenerator(truncation.seed)

    def __call__(self, timesteps: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
        """ξ as ``(timesteps, batch or 1)``."""
        schedule = getattr(self.truncation, "keep_probability", None)
        if isinstance(schedule, list):
            message = "`keep_probability` has another length than the sequence."
            tf.debugging.assert_equal(timesteps, len(schedule), message=message)
        columns = batch if self.truncation.per_sample else 1
        uniform = keras.random.uniform((timesteps, columns), dtype="float32", seed=self.seed)
        return draw_factors(uniform, self.truncation.cut_probability)


class KeptStates:
    """The states of a stateful layer: those of training, apart from those of inference.

    A validation in the middle of training does not change where training goes on.
    """

    def __init__(self, training: list, inference: list) -> None:
        self.training = training
        self.inference = inference


class TruncatedLayer:
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
        if gradient_clip is not None:
            gradient_clip = number("gradient_clip", gradient_clip, above=0)
        self.gradient_clip = gradient_clip
        self.truncation = truncation
        self.supports_masking = True
        # cuDNN, which XLA cannot contain, is not used here.
        self.supports_jit = True
        self._engines: dict = {}
        self._norms = None
        self._lag_recorder = None
        self.record_gradient_norms = True

    @property
    def truncation(self) -> truncations.Truncation:
        """The `kbptt.truncation.Truncation` of this layer.

        It may be replaced between two calls of `fit`; a model that is already compiled picks it up
        after ``model.make_train_function(force=True)``.
        """
        return self._truncation

    @truncation.setter
    def truncation(self, value: Any) -> None:
        self._truncation = truncations.get(value)
        self._factors = Factors(self._truncation) if self._truncation.stochastic else None

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
        # A norm is never negative: negative numbers tell that nothing was recorded there.
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
        saved = self._truncation, self._factors, self._lag_recorder
        self._truncation, self._factors = truncations.Windowed(maximum, stride=1), None
        self._lag_recorder = record
        try:
            yield
        finally:
            self._truncation, self._factors, self._lag_recorder = saved

    def build(self, sequences_shape, initial_state_shape=None):
        self._check_shape(tuple(sequences_shape))
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

    def _create_state_variables(self, batch_size):
        super()._create_state_variables(batch_size)
        training = self.states
        super()._create_state_variables(batch_size)
        self._kept_states = KeptStates(training, self.states)
        self._choose_states(self._kept_states.training)

    def _choose_states(self, states: list) -> None:
        # Not by `setattr`, which would count the variables among the weights.
        vars(self)["states"] = states

    def reset_state(self):
        """Sets the states that a stateful layer keeps back to zeros."""
        if self.states is not None:
            for states in (self._kept_states.training, self._kept_states.inference):
                for variable in keras.tree.flatten(states):
                    variable.assign(ops.zeros_like(variable.value))

    def call(self, sequences, initial_state=None, mask=None, training=False, resets=None):
        """Runs the layer.

        Call arguments:
            sequences: ``(batch, timesteps, features)``.
            initial_state: Optional list of states ``(batch, units)``.
            mask: Optional boolean ``(batch, timesteps)``; False holds the state.
            training: Boolean. Whether dropout is active.
            resets: Optional boolean ``(batch, timesteps)``. True returns that sample to its initial
                state before the timestep; no gradient crosses such a place.
        """
        self._check_call(sequences, initial_state, mask, resets)
        if self.stateful and not training:
            self._choose_states(self._kept_states.inference)
        token = _resets.set(resets)
        try:
            return super().call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )
        finally:
            _resets.reset(token)
            if self.stateful:
                self._choose_states(self._kept_states.training)

    def _check_shape(self, shape: tuple) -> None:
        if len(shape) < 3 or shape[1] == 0:
            raise ValueError(
                f"Layer '{self.name}' expected sequences of shape (batch, timesteps, features) "
                f"with at least one timestep. Received shape {shape}."
            )

    def _check_call(self, sequences, initial_state, mask, resets) -> None:
        shape = tuple(sequences.shape)
        if isinstance(sequences, tf.RaggedTensor):
            raise ValueError(
                f"Layer '{self.name}' expected a dense tensor. Received a RaggedTensor. Pad it "
                "with `sequences.to_tensor()` and pass a mask."
            )
        self._check_shape(shape)
        for name, value in (("mask", mask), ("resets", resets)):
            value = value[0] if isinstance(value, (list, tuple)) else value
            if value is None:
                continue
            known = tuple(value.shape)
            if len(known) != 2 or any(
                a is not None and b is not None and a != b
                for a, b in zip(known, shape[:2], strict=True)
            ):
                raise ValueError(
                    f"Layer '{self.name}' expected `{name}` of shape (batch, timesteps) = "
                    f"{shape[:2]}. Received shape {known}."
                )
        if initial_state is not None:
            given = keras.tree.flatten(initial_state)
            widths = keras.tree.flatten(self.state_size)
            right = len(given) == len(widths) and all(
                len(s.shape) == 2
                and s.shape[1] in (None, w)
                and (s.shape[0] is None or shape[0] is None or s.shape[0] == shape[0])
                for s, w in zip(given, widths, strict=True)
            )
            if not right:
                raise ValueError(
                    f"Layer '{self.name}' expected `initial_state` of {len(widths)} tensor(s) of "
                    f"shape (batch, units) = {[(shape[0], w) for w in widths]}. Received "
                    f"{len(given)} of shape {[tuple(s.shape) for s in given]}."
                )
        if self.stateful and self._expected_batch_size is not None:
            message = (
                f"Layer '{self.name}' is stateful: the batch size must stay the same, "
                f"{self._expected_batch_size}."
            )
            if shape[0] is None and not isinstance(sequences, keras.KerasTensor):
                tf.debugging.assert_equal(
                    tf.shape(sequences)[0], int(self._expected_batch_size), message=message
                )
            elif shape[0] not in (None, self._expected_batch_size):
                raise ValueError(f"{message} Received a batch of {shape[0]}.")

    # The loop ---------------------------------------------------------------------------------

    def _prepare(self, sequences, mask):
        """Inputs, mask and resets ``(batch, timesteps, …)`` in the order of processing."""
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        if self.truncation.stochastic and sequences.shape[1] is not None:
            self.truncation.check_timesteps(sequences.shape[1])
        x, resets = sequences, _resets.get()
        if not x.dtype.is_floating:
            x = tf.cast(x, self.compute_dtype)
        if mask is not None:
            mask = tf.cast(mask, tf.bool)
            # What stands in a masked step, NaN included, must not reach any gradient.
            shape = tf.concat([tf.shape(mask), tf.ones([len(x.shape) - 2], tf.int32)], 0)
            x = tf.where(tf.reshape(mask, shape), x, tf.zeros_like(x))
        if resets is not None:
            resets = tf.cast(resets, tf.bool)
        if self.go_backwards:
            x, mask, resets = (None if v is None else tf.reverse(v, [1]) for v in (x, mask, resets))
        return x, mask, resets

    def _run(self, engine: BPTT | NativeBPTT, x, initial_state, weights, mask, resets):
        """Runs the engine; returns what `keras.layers.RNN.inner_loop` returns."""
        dtype = self._loop_dtype(x)
        x, state, weights = tf.nest.map_structure(
            lambda v: None if v is None else tf.cast(v, dtype), (x, tuple(initial_state), weights)
        )
        given = (x, mask, resets)
        if engine.time_major:
            given = map(_swap, given)
        x, kept, resets = given
        outputs, states = engine(
            x,
            state,
            weights,
            mask=kept,
            resets=resets,
            sequences=self.return_sequences,
            factors=self._factors,
            monitor=self._lag_recorder or (self._record if self.record_gradient_norms else None),
            penalty_weight=self._penalty_weight,
        )
        if engine.time_major:
            outputs = _swap(outputs)
        return *self._show(outputs, states[engine.output], mask), states

    def _loop_dtype(self, x) -> tf.DType:
        dtype = tf.as_dtype(
            self.cell.compute_dtype if hasattr(self.cell, "compute_dtype") else x.dtype
        )
        # Half precision keeps its inputs and outputs; the recurrence runs in float32, which is at
        # least as fast on a CPU and does not lose small gradients.
        return tf.float32 if dtype.size < 4 else dtype

    def _run_autodiff(self, forward, step, x, initial_state, mask, resets):
        """Runs the ordinary loop that TensorFlow differentiates; returns as `_run`."""
        factors = None
        if self._factors is not None:
            factors = self._factors(tf.shape(x)[1], tf.shape(x)[0])
        states, final = autodiff_loop(
            forward,
            step.hidden,
            self._options(),
            _swap(x),
            initial_state,
            _swap(mask),
            _swap(resets),
            factors,
            self._record if self.record_gradient_norms else None,
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

    def _options(self) -> Options:
        t = self.truncation
        record = self.record_gradient_norms
        lags = self._lag_recorder is not None
        return Options(t.length, t.stride, t.align, self.gradient_clip, record, lags)

    def _penalty_weight(self) -> tf.Tensor:
        raise NotImplementedError

    def _record(self, monitor: Monitor) -> None:
        """Keeps what the backward pass measured."""
        if self._norms is not None:
            norms = monitor.norms
            if norms.shape[0] != self._norms_size:
                # Filled up to a size that stays the same, as XLA wants it.
                missing = tf.maximum(self._norms_size - tf.shape(norms)[0], 0)
                norms = tf.pad(norms, [[0, missing]], constant_values=-1.0)
            self._norms.assign(norms)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        full = isinstance(self.truncation, truncations.Full)
        config["truncation"] = None if full else truncations.serialize(self.truncation)
        config["gradient_clip"] = self.gradient_clip
        return config
