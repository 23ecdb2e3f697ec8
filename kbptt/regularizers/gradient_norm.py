"""Gradient of the gradient-norm penalty λ‖∂L/∂θ‖² or λ‖∂L/∂θ‖: exact, or by one difference.

Both need a Hessian-vector product: ∇λ‖g‖² = 2λ·H·g and ∇λ‖g‖ = λ·H·g/‖g‖. Exactly, it comes from
backpropagating through backpropagation; approximately, from the change of the gradient at a small
step along itself. Not imported by the package: this module needs TensorFlow's tapes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# L at given values of the trainable variables, times the loss scale.
ScaledLoss = Callable[[Sequence[tf.Tensor]], tf.Tensor]


def gradient(loss: ScaledLoss, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """∂L/∂θ at `values`, dense and in at least float32; zeros where L does not depend on θ_i."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        value = loss(values)
    return dense(tape.gradient(value, values), values)


def global_norm(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """‖g‖ over all variables."""
    return tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))


def finite_difference(
    loss: ScaledLoss,
    values: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    weight: tf.Tensor,
    radius: float,
    squared: bool,
    scale: tf.Tensor,
) -> list[tf.Tensor]:
    """(λ/r)·(∇L(θ + r·g/‖g‖) − g), times 2‖g‖ for the squared norm.

    Args:
        loss: Function of the values, the loss times `scale`.
        values: θ.
        gradients: g = ∂L/∂θ at `values`, times `scale`.
        weight: λ.
        radius: r, the length of the step along g.
        squared: Whether the penalty is λ‖g‖² rather than λ‖g‖.
        scale: The loss scale; 1 without.

    Returns:
        The penalty's gradient, times `scale`.
    """
    norm = global_norm(gradients)
    direction = [tf.math.divide_no_nan(g, norm) for g in gradients]
    moved = [
        value + tf.cast(radius * d, value.dtype) for value, d in zip(values, direction, strict=True)
    ]
    factor = weight / radius * (2.0 * norm / scale if squared else 1.0)
    there = gradient(loss, moved)
    return [factor * (t - g) for t, g in zip(there, gradients, strict=True)]


def exact(
    loss: ScaledLoss,
    values: Sequence[tf.Tensor],
    weight: tf.Tensor,
    squared: bool,
    scale: tf.Tensor,
) -> list[tf.Tensor]:
    """∇λ‖∂L/∂θ‖² (or of λ‖∂L/∂θ‖) by double backpropagation. Arguments as `finite_difference`."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        squares = [tf.square(g / scale) for g in gradient(loss, values)]
        total = tf.add_n([tf.reduce_sum(square) for square in squares])
        # √ has no derivative at 0, where the penalty has its minimum.
        norm = total if squared else tf.sqrt(tf.where(total > 0, total, 1.0))
        penalty = weight * scale * tf.where(total > 0, norm, 0.0)
    return dense(tape.gradient(penalty, values), values)


def dense(gradients: Sequence[Any], values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Gradients as tensors of at least float32: no None, no IndexedSlices of an Embedding."""
    result = []
    for g, value in zip(gradients, values, strict=True):
        g = tf.zeros_like(value) if g is None else tf.convert_to_tensor(g)
        result.append(g if g.dtype == tf.float64 else tf.cast(g, tf.float32))
    return result
