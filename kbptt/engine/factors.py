"""Randomized truncation (guide 1.3): the random factors ξ_t of the carried gradient."""

from collections.abc import Callable

import tensorflow as tf


def draw_factors(uniform: tf.Tensor, cut_probability: Callable) -> tf.Tensor:
    """ξ_t from uniform random numbers: 0 with probability c, else 1/(1 − c), so that E ξ_t = 1.

    c may depend on the number δ of steps since the last cut, counted as the backward pass goes:
    δ = 1 at the last timestep and right after a cut. The same δ decides and reweights, which is
    what makes the gradient unbiased.

    Args:
        uniform: ``(timesteps, columns)`` in [0, 1).
        cut_probability: Function of the timestep (scalar) and δ ``(columns,)``.

    Returns:
        float32 ``(timesteps, columns)``. Row 0 is 1: the way to the initial state is never cut.
    """
    timesteps, columns = tf.shape(uniform)[0], tf.shape(uniform)[1]

    def body(t, since, factors):
        c = tf.cast(cut_probability(t, since), tf.float32)
        cut = uniform[t] < c
        xi = tf.where(cut, tf.zeros_like(since), 1 / (1 - c))
        since = tf.where(cut, tf.ones_like(since), since + 1)
        return t - 1, since, factors.write(t, xi)

    factors = tf.TensorArray(tf.float32, size=timesteps, element_shape=[None])
    factors = factors.write(0, tf.ones([columns]))
    since = tf.ones([columns])
    *_, factors = tf.while_loop(lambda t, *_: t > 0, body, (timesteps - 1, since, factors))
    return factors.stack()
