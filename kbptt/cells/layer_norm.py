"""Layer normalization of recurrent sums (Ba, Kiros & Hinton, 2016), with its gradient.

The mean that layer normalization subtracts from h·U is linear in h: centring the columns of U once
per call subtracts it from every timestep at once (`center`). What remains inside the loop is one
mean of squares per step, forward and backward.
"""

import tensorflow as tf


def center(x: tf.Tensor, groups: tuple[int, ...] = ()) -> tf.Tensor:
    """`x` minus its mean over each of the column groups; without groups over all columns."""
    parts = tf.split(x, groups, axis=-1) if groups else [x]
    return tf.concat([p - tf.reduce_mean(p, axis=-1, keepdims=True) for p in parts], axis=-1)


def scale(centred: tf.Tensor, groups: tuple[int, ...], epsilon: float) -> tf.Tensor:
    """Centred values divided by their deviation over each of the column groups; differentiable."""
    parts = tf.split(centred, groups, axis=-1)
    return tf.concat([p * inverse_deviation(p, epsilon) for p in parts], axis=-1)


def inverse_deviation(centred: tf.Tensor, epsilon: float) -> tf.Tensor:
    """1/σ of values that are already centred, ``(..., 1)``."""
    return tf.math.rsqrt(tf.reduce_mean(centred * centred, axis=-1, keepdims=True) + epsilon)


def scale_vjp(d_standard: tf.Tensor, standard: tf.Tensor, inverse: tf.Tensor) -> tf.Tensor:
    """Gradient through x̂ = x/σ(x), of centred x: (dx̂ − x̂·mean(dx̂·x̂))/σ."""
    mean = tf.reduce_mean(d_standard * standard, axis=-1, keepdims=True)
    return inverse * (d_standard - standard * mean)
