"""The same truncated gradient by an ordinary loop that TensorFlow differentiates itself.

Slower and larger than `kbptt.engine.tensorflow`, but differentiable any number of times, and the
only way for a cell that changes variables while it runs. Truncation is an identity between two
timesteps with a gradient of its own; the loop around it is an ordinary one.
"""

from typing import Any

import tensorflow as tf

from kbptt.cells.base import Step, Tensors
from kbptt.engine.blocks import divide
from kbptt.engine.gradient import Context, Loop, Monitor, Observation, Options
from kbptt.engine.tensors import clip, norm_per_sample, select, size
from kbptt.engine.zoneout import held, hold


class AutodiffLoop(Loop):
    """A recurrent loop whose gradient is TensorFlow's.

    The monitor is called if a gradient of the inputs, initial states or weights is asked for: in
    every backward pass, that of a gradient of it included.

    Args:
        step: The `kbptt.cells.Step`, of ordinary differentiable operations.
        options: The `Options`. Windows must not overlap (``stride == length``).

    Raises:
        ValueError: If windows overlap, or at a call that leaves out what flows through h alone.
    """

    time_major = True

    def __init__(self, step: Step, options: Options) -> None:
        super().__init__(options)
        self.step = step
        self.output = step.output
        if options.diagonal:
            raise ValueError(
                "The gradient of SnAp-1 is not the derivative of any loss, so it is not available "
                "in kbptt.engine.differentiable() or for a cell that changes variables while it "
                "runs. Choose a different `truncation`, such as None."
            )
        if options.stride != options.length:
            raise ValueError(
                "Sliding windows cannot be expressed by an ordinary loop, which runs "
                "inside kbptt.engine.differentiable() and for cells that change variables while "
                f"they run. Expected stride == length. Received stride={options.stride}, "
                f"length={options.length}."
            )

    def __call__(self, x, start, weights, context):
        histories, final = self._run(x, start, weights, context)
        return histories[self.output].stack() if context.sequences else None, final

    def observe(self, x, start, weights, context):
        histories, final = self._run(x, start, weights, context)
        states = tuple(h.stack() for h in histories)
        return Observation(states[self.output], tuple(final), states, {})

    def _run(self, x, start, weights, context) -> tuple[Any, Tensors]:
        """The states over time, each a `tf.TensorArray`, and the final ones."""
        if context.through is not None:
            raise ValueError(
                "h-detach cannot be expressed by an ordinary loop, which runs inside "
                "kbptt.engine.differentiable(). Expected h_detach == 0."
            )
        if context.dropout.h_masks is not None:
            weights = weights._replace(h_masks=context.dropout.h_masks)
        timesteps, batch = size(x, 0), tf.shape(x)[1]
        factors = self._factors(timesteps, batch, start[0].dtype, context)
        tap = self._tap(x, start, weights, context)
        mask, resets, hidden = context.mask, context.resets, self.step.hidden
        holds = held(self.options.zoneout, context.zoneout_key, timesteps, tuple(start))

        def body(t, state, histories):
            previous = _carry(state, factors[t][:, None], self.options)
            if resets is not None:
                previous = select(resets.at[t][:, None], resets.states, previous)
            new, _ = self.step.forward(x[t], previous, weights)
            new = hold(tuple(d[t] for d in holds), previous, new)
            if mask is not None:
                new = select(mask[t][:, None], new, previous)
            new = tuple(s + tap[t] if index == hidden else s for index, s in enumerate(new))
            return t + 1, new, tuple(h.write(t, s) for h, s in zip(histories, new, strict=True))

        histories = tuple(
            tf.TensorArray(s.dtype, size=timesteps, element_shape=s.shape) for s in start
        )
        _, final, histories = tf.while_loop(
            lambda t, *_: t < timesteps,
            body,
            (0, tuple(start), histories),
            maximum_iterations=x.shape[0],  # XLA needs the bound to differentiate the loop
        )
        return histories, final

    def _factors(self, timesteps, batch, dtype, context: Context) -> tf.Tensor:
        """What multiplies the gradient carried from t to t−1: ``(timesteps, batch or 1)``."""
        factors = tf.ones([timesteps, 1], dtype)
        windows = divide(timesteps, self.options)
        ends = windows.end(tf.range(windows.count - 1))
        cuts = tf.zeros([windows.count - 1, 1], dtype)
        factors = tf.tensor_scatter_nd_update(factors, ends[:, None], cuts)
        if context.factors is None:
            return factors
        (xi,) = context.effects.before((context.factors(tf.convert_to_tensor(timesteps), batch),))
        return factors * tf.cast(xi, dtype)

    def _tap(self, x, start, weights, context: Context) -> tf.Tensor:
        """Zeros ``(timesteps, batch, width)`` to add to h_t: their gradient is ∂L/∂h_t (guide 2.3).

        They pass for a function of what the loop reads, or else no backward pass would come by.
        """
        state = start[self.step.hidden]
        shape = tf.concat([tf.shape(x)[:1], tf.shape(state)], axis=0)
        sources = (state, x, *start, *(w for w in tf.nest.flatten(weights) if w is not None))

        @tf.custom_gradient
        def zeros(*sources):
            def gradient(upstream):
                nothing = (None,) * len(sources)
                if context.monitor is None:
                    return nothing
                context.monitor(Monitor(tf.reduce_sum(norm_per_sample(upstream), axis=1)))
                return *context.effects.before((tf.zeros_like(state),)), *nothing[1:]

            return tf.zeros(shape, state.dtype), gradient

        return zeros(*sources)


def _carry(state: Tensors, factor: tf.Tensor, options: Options) -> Tensors:
    """The identity; multiplies its gradient J_tᵀ ∂L/∂h_t (guide 2.4) by `factor` and clips it."""

    @tf.custom_gradient
    def identity(factor, *state) -> Any:
        def gradient(*upstream):
            carried = tuple(tf.where(factor == 0, tf.zeros_like(d), d * factor) for d in upstream)
            if options.clip is not None:
                carried = clip(carried, options.clip, options.clip_by_norm)
            return None, *carried

        return tuple(map(tf.identity, state)), gradient

    return identity(factor, *state)
