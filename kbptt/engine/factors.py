"""Randomized truncation (guide 1.3): the random factors ξ_t of the carried gradient."""

from collections.abc import Callable

import tensorflow as tf


def draw_factors(uniform: tf.Tensor, cut_probability: Callable) -> tf.Tensor:
    """ξ_t from uniform random numbers: 0 with probability c, else 1/(1 − c), so that E ξ_t = 1.

    c may depend on the number δ of steps since the last cut, counted as the backward pass goes:
    δ = 1 at the last timestep and right after a cut. The same δ decides and reweights, which is
    what makes the gradient unbiased.

    Args:
        uniform: ``(timesteps, columns)`` in [0, 1), of the dtype that ξ is to have.
        cut_probability: Function of the timestep (scalar) and δ ``(columns,)``.

    Returns:
        ``(timesteps, columns)``. Row 0 is 1: the way to the initial state is never cut.
    """
    timesteps, columns = tf.shape(uniform)[0], tf.shape(uniform)[1]
    dtype = uniform.dtype

    def body(t, since, factors):
        c = cut_probability(t, since)
        # A Python float would pass through float32.
        c = tf.cast(c, dtype) if tf.is_tensor(c) else tf.constant(c, dtype)
        cut = uniform[t] < c
        xi = tf.where(cut, tf.zeros_like(since), 1 / (1 - c))
        since = tf.where(cut, tf.ones_like(since), since + 1)
        return t - 1, since, factors.write(t, xi)

    factors = tf.TensorArray(dtype, size=timesteps, element_shape=[None])
    factors = factors.write(0, tf.ones([columns], dtype))
    since = tf.ones([columns], dtype)
    *_, factors = tf.while_loop(lambda t, *_: t > 0, body, (timesteps - 1, since, factors))
    return factors.stack()
