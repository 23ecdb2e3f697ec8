"""Randomized truncation (guide 1.3): the random factors ξ_t of the carried gradient."""

from collections.abc import Callable

import tensorflow as tf


def draw_factors(uniform: tf.Tensor, cut_probability: Callable) -> tf.Tensor:
    """ξ_t from uniform random numbers: 0 with probability c, else 1/(1 − c), so that E ξ_t = 1.

    c may depend on the number δ of steps since the last cut, counted as the backward pass goes:
    δ = 1 at the last timestep and right after a cut. The same δ decides and reweights, which is
    what makes the gradient unbiased.

    δ of a timestep depends only on the cuts after it. So instead of walking through time, all
    timesteps are decided at once from an estimate of δ, and again from the δ that follows, until
    nothing changes: then all are as if decided one after the other. Most cuts fall whatever δ is,
    and a few rounds do.

    Args:
        uniform: ``(timesteps, columns)`` in [0, 1), of the dtype that ξ is to have.
        cut_probability: Function of the timesteps ``(timesteps, 1)`` and δ ``(timesteps,
            columns)``, element by element.

    Returns:
        ``(timesteps, columns)``. Row 0 is 1: the way to the initial state is never cut.
    """
    timesteps, columns = tf.shape(uniform)[0], tf.shape(uniform)[1]
    dtype = uniform.dtype
    t = tf.range(timesteps)[:, None]

    def probability(cut):
        c = cut_probability(t, _steps_since(cut, dtype))
        # A Python float would pass through float32.
        c = tf.cast(c, dtype) if tf.is_tensor(c) else tf.constant(c, dtype)
        return tf.broadcast_to(c, tf.shape(uniform))

    def decide(cut, _):
        decided = uniform < probability(cut)
        return decided, tf.reduce_any(decided != cut)

    cut, _ = tf.while_loop(
        lambda cut, changed: changed, decide, (tf.zeros_like(uniform, tf.bool), True)
    )
    factors = tf.where(cut, tf.zeros([], dtype), 1 / (1 - probability(cut)))
    return tf.concat([tf.ones([tf.minimum(timesteps, 1), columns], dtype), factors[1:]], 0)


def _steps_since(cut: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """δ: timesteps from the next cut, or from the end, back to each timestep, at least 1."""
    timesteps, columns = tf.shape(cut)[0], tf.shape(cut)[1]
    t = tf.range(timesteps)
    never = tf.fill([1, columns], timesteps)
    following = tf.concat([tf.where(cut, t[:, None], timesteps), never], 0)[1:][:timesteps]

    # The smallest of all later ones: over 1, 2, 4, … timesteps. The last timestep has none.
    def double(reach, following):
        later = tf.gather(following, tf.minimum(t + reach, timesteps - 1))
        return 2 * reach, tf.minimum(following, later)

    _, following = tf.while_loop(lambda reach, _: reach < timesteps, double, (1, following))
    return tf.cast(following - t[:, None], dtype)
