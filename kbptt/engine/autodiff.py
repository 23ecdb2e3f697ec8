"""The same truncated gradient by an ordinary loop that TensorFlow differentiates itself.

Slower and larger than `kbptt.engine.bptt`, but differentiable any number of times, and the only way
for a cell that changes variables while it runs. Truncation is an identity between two timesteps
with a gradient of its own: what it does to the carried gradient, the loop needs not know.
"""

from collections.abc import Callable

import tensorflow as tf

from kbptt.engine.bptt import norm_per_sample
from kbptt.engine.loop import Backward, Monitor, Options, Resets
from kbptt.engine.steps import Tensors


def autodiff_loop(
    forward: Callable[[tf.Tensor, Tensors], Tensors],
    hidden: int,
    options: Options,
    x: tf.Tensor,
    initial_state: Tensors,
    mask: tf.Tensor | None = None,
    resets: Resets | None = None,
    factors: tf.Tensor | None = None,
    backward: Backward | None = None,
    weights: Tensors = (),
) -> tuple[tf.Tensor, Tensors]:
    """Runs ``forward(x_t, state) -> state`` over time.

    Args:
        forward: One timestep, of ordinary differentiable operations.
        hidden: Index of the state whose gradient norm is recorded.
        options: Windows must not overlap (``stride == length``).
        x: ``(timesteps, batch, features)``.
        initial_state: Tuple of ``(batch, width)``.
        mask: As for `kbptt.engine.BPTT`.
        resets: As for `kbptt.engine.BPTT`.
        factors: ξ as ``(timesteps, batch or 1)``, or None.
        backward: As for `kbptt.engine.BPTT`, without factors. Its monitor is called if a gradient
            of `x`, `initial_state` or `weights` is asked for: in every backward pass, that of a
            gradient of it included.
        weights: What `forward` reads.

    Returns:
        All states over time, a tuple of ``(timesteps, batch, width)``, and the final states.

    Raises:
        ValueError: If windows overlap.
    """
    if options.stride != options.length:
        raise ValueError(
            "Sliding windows cannot be expressed by an ordinary loop, which is what runs inside "
            "kbptt.engine.differentiable() and for cells that change variables while they run. "
            f"Expected stride == length. Received stride={options.stride}, length={options.length}."
        )
    timesteps = tf.shape(x)[0]
    carried = tf.ones([timesteps, 1], initial_state[0].dtype)
    if options.length is not None:
        last = timesteps if options.align == "end" else 0
        cut = (tf.range(timesteps) - last) % options.length == 0
        cut &= tf.range(timesteps) > 0  # the way to the initial state is no cut
        carried = tf.where(cut[:, None], tf.zeros_like(carried), carried)
    if factors is not None:
        carried *= tf.cast(factors, carried.dtype)
    sources = (initial_state[hidden], x, *initial_state, *weights)
    tap = _tap(sources, timesteps, backward)

    def body(t, state, histories):
        previous = tuple(_gate(s, carried[t][:, None], options.clip) for s in state)
        if resets is not None:
            reset = resets.at[t][:, None]
            previous = tuple(
                tf.where(reset, a, b) for a, b in zip(resets.states, previous, strict=True)
            )
        new = forward(x[t], previous)
        if mask is not None:
            kept = mask[t][:, None]
            new = tuple(tf.where(kept, a, b) for a, b in zip(new, previous, strict=True))
        new = tuple(s + tap[t] if index == hidden else s for index, s in enumerate(new))
        histories = tuple(h.write(t, s) for h, s in zip(histories, new, strict=True))
        return t + 1, new, histories

    histories = tuple(
        tf.TensorArray(s.dtype, size=timesteps, element_shape=s.shape) for s in initial_state
    )
    static = x.shape[0]
    _, final, histories = tf.while_loop(
        lambda t, *_: t < timesteps,
        body,
        (0, tuple(initial_state), histories),
        maximum_iterations=static,  # XLA needs the bound to differentiate the loop
    )
    return tuple(h.stack() for h in histories), final


def _gate(state: tf.Tensor, factor: tf.Tensor, clip: float | None) -> tf.Tensor:
    """The identity, whose gradient is multiplied by `factor` and clipped."""

    @tf.custom_gradient
    def identity(state, factor):
        def gradient(upstream):
            carried = tf.where(factor == 0, tf.zeros_like(upstream), upstream * factor)
            if clip is not None:
                carried = tf.clip_by_value(carried, -clip, clip)
            return carried, None

        return tf.identity(state), gradient

    return identity(state, factor)


def _tap(sources: Tensors, timesteps: tf.Tensor, backward: Backward | None) -> tf.Tensor:
    """Zeros ``(timesteps, batch, width)`` to add to h_t: their gradient is ∂L/∂h_t.

    They pass for a function of `sources`, or else no backward pass would come by. The first of
    them is a state like h_t.
    """
    state = sources[0]
    shape = tf.concat([[timesteps], tf.shape(state)], axis=0)

    @tf.custom_gradient
    def zeros(*sources):
        def gradient(upstream):
            nothing = (None,) * len(sources)
            if backward is None or backward.monitor is None:
                return nothing
            backward.monitor(Monitor(tf.reduce_sum(norm_per_sample(upstream), axis=1)))
            return *backward.effects.before((tf.zeros_like(state),)), *nothing[1:]

        return tf.zeros(shape, state.dtype), gradient

    return zeros(*sources)
