"""Lyapunov exponents that can be differentiated, and the loss of gradient flossing."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kbptt import _checks
from kbptt.analysis import lyapunov
from kbptt.layers.parametrized import holding


def flossing_loss(
    layer: keras.layers.RNN,
    x: Any,
    count: int,
    burn_in: int = 0,
    interval: int = 1,
    seed: int = 0,
) -> tf.Tensor:
    """Returns the mean of λᵢ² over the `count` leading exponents: 0 if k directions keep their
    length.

    Differentiable with respect to the weights of the layer. Each sequence has its own exponents, as
    in the author's code, which uses one sequence per step, so the loss of a batch is the mean of
    the losses of its sequences.

    Example:

    ```python
    with tf.GradientTape() as tape:
        loss = kbptt.analysis.flossing_loss(layer, x, count=16)
    gradients = tape.gradient(loss, layer.trainable_variables)
    ```

    Use it inside a `tf.function`: in eager mode, every operation of every timestep is dispatched.

    Args:
        layer: See `exponents`, as for all arguments.
        x: Array `(batch, timesteps, features)`.
        count: Integer of at least 1.
        burn_in: Integer of at least 0. Defaults to `0`.
        interval: Integer of at least 1. Defaults to `1`.
        seed: Integer of at least 0. Defaults to `0`.

    Returns:
        A scalar, float32, or float64 for a layer that computes in it.

    Reference:

    - [Engelken, 2023](https://arxiv.org/abs/2312.17306), *Gradient flossing: improving gradient
      descent through dynamic control of Jacobians*.
    """
    return loss_of(exponents(layer, x, count, burn_in, interval, seed))


def loss_of(found: tf.Tensor) -> tf.Tensor:
    """The loss of gradient flossing, given exponents of any shape."""
    return tf.reduce_mean(tf.square(found))


@tf.autograph.experimental.do_not_convert  # tracing takes half the time
def exponents(
    layer: keras.layers.RNN,
    x: Any,
    count: int,
    burn_in: int = 0,
    interval: int = 1,
    seed: int = 0,
) -> tf.Tensor:
    """Returns the leading Lyapunov exponents of each sequence, differentiably.

    `count` orthonormal vectors run forward along each sequence, through Q_t R_t = J_t Q_{t−1},
    where J_t = ∂s_t/∂s_{t−1} is the Jacobian of the whole state ((h, c) for an LSTM); λᵢ is the
    mean of log |R_ii|. `kbptt.analysis.lyapunov_exponents` runs them backward; both have the same
    limit.

    The sequences start from the layer's initial state, without dropout and mask. The trajectory is
    differentiated too, not only the Jacobians.

    Args:
        layer: A recurrent layer of kbptt or Keras. One that is not built is built for `x`.
        x: Array `(batch, timesteps, features)` without padding, the layer's input.
        count: Integer of at least 1, at most the size of the state.
        burn_in: Integer of at least 0: the first timesteps, in which the state leaves its initial
            value and the vectors align with the growing directions. They are not counted, but
            differentiated. Defaults to `0`.
        interval: Integer of at least 1: timesteps from one orthonormalization to the next. The
            exponents are the same up to rounding, which limits how many steps are possible: after n
            steps, the directions differ in length by e^{n(λ₁ − λ_k)}. Defaults to `1`.
        seed: Integer of at least 0, for the initial vectors. Defaults to `0`.

    Returns:
        Tensor `(batch, count)`, float32, or float64 for a layer that computes in it. Largest first,
        in the limit of long sequences.
    """
    x = _checked_sequences(layer, x)
    batch, timesteps, _ = x.shape
    count = check_count(layer, count)
    burn_in, interval = (
        check_burn_in(burn_in, timesteps),
        _checks.positive_integer("interval", interval),
    )
    states = lyapunov.initial_state(layer, batch)
    sizes = [part.shape[-1] for part in states]
    # QR needs single precision, in whatever precision the layer computes.
    dtype = tf.float64 if layer.compute_dtype == "float64" else tf.float32
    generator = np.random.default_rng(_checks.check_seed(seed))
    start, _ = np.linalg.qr(generator.normal(size=(batch, sum(sizes), count)))
    by_time = tf.transpose(tf.reverse(x, [1]) if layer.go_backwards else x, [1, 0, 2])

    def advance(t, vectors, total, *rows):
        rows, vectors = _push(layer, by_time[t], list(rows), vectors, sizes)
        # The last timestep has one, and none takes growth of the burn-in into what counts.
        due = tf.equal((timesteps - 1 - t) % interval, 0) | tf.equal(t, burn_in - 1)
        vectors, growth = tf.cond(
            due,
            lambda: _orthonormalize(vectors),
            lambda: (vectors, tf.zeros_like(total)),
        )
        return t + 1, vectors, total + tf.where(t >= burn_in, growth, 0), *rows

    with holding(layer.cell):
        _, _, total, *_ = tf.while_loop(
            lambda t, *_: t < timesteps,
            advance,
            (
                tf.constant(0),
                tf.constant(start, dtype),
                tf.zeros([batch, count], dtype),
                *(tf.repeat(part, count, axis=0) for part in states),
            ),
            maximum_iterations=timesteps,
        )
    return total / (timesteps - burn_in)


def check_count(layer: keras.layers.RNN, count: Any) -> int:
    """Returns `count` if the state of the layer has as many directions, or raises `ValueError`."""
    size = state_size(layer)
    if _checks.positive_integer("count", count) > size:
        raise ValueError(
            f"Invalid value for argument `count`. Expected at most {size}, the size of the state "
            f"of layer '{layer.name}'. Received: count={count}."
        )
    return int(count)


def check_burn_in(burn_in: Any, timesteps: int) -> int:
    """Returns `burn_in` if timesteps are left to count, or raises `ValueError`."""
    if _checks.count("burn_in", burn_in) >= timesteps:
        raise ValueError(
            "Invalid value for argument `burn_in`. Expected an integer below the number of "
            f"timesteps, {timesteps}. Received: burn_in={burn_in}."
        )
    return int(burn_in)


def state_size(layer: keras.layers.RNN) -> int:
    """The number of components of the whole state of a layer."""
    return sum(part.shape[-1] for part in lyapunov.initial_state(layer, 1))


def _checked_sequences(layer: Any, x: Any) -> tf.Tensor:
    if not isinstance(layer, keras.layers.RNN):
        raise ValueError(
            "Expected a recurrent layer (keras.layers.RNN, LSTM, …, or kbptt's). "
            f"Received: {layer!r}."
        )
    x = tf.convert_to_tensor(keras.ops.convert_to_tensor(x, dtype=layer.compute_dtype))
    if len(x.shape) != 3 or None in x.shape or 0 in x.shape:
        raise ValueError(
            "Argument `x` must be (batch, timesteps, features), all of them known and none of "
            f"them 0. Received: shape {tuple(x.shape)}."
        )
    if not layer.built:
        layer.build(tuple(x.shape))
    return x


def _push(
    layer: keras.layers.RNN, x_t: tf.Tensor, rows: list, vectors: tf.Tensor, sizes: list[int]
) -> tuple[list, tf.Tensor]:
    """The states after a timestep, and J_t V for the vectors V `(batch, size, count)`.

    `rows` are the states, each sequence once for every vector: forward mode takes one tangent.
    """
    batch, size, count = vectors.shape
    tangents = tf.reshape(tf.linalg.matrix_transpose(vectors), [-1, sum(sizes)])
    tangents = [
        tf.cast(part, row.dtype)
        for part, row in zip(tf.split(tangents, sizes, axis=-1), rows, strict=True)
    ]
    with tf.autodiff.ForwardAccumulator(rows, tangents) as forward:
        new = lyapunov.advance(layer, tf.repeat(x_t, count, axis=0), rows)
    pushed = forward.jvp(new, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    pushed = tf.concat([tf.cast(part, vectors.dtype) for part in pushed], axis=-1)
    new = [tf.cast(part, row.dtype) for part, row in zip(new, rows, strict=True)]
    return new, tf.linalg.matrix_transpose(tf.reshape(pushed, [batch, count, size]))


def _orthonormalize(vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """An orthonormal basis, and the logarithm `(batch, count)` of the growth along each vector."""
    basis, r = tf.linalg.qr(vectors)
    return basis, tf.math.log(tf.abs(tf.linalg.diag_part(r)))
