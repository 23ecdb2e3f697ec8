"""What one timestep of a recurrent network does, and its vector-Jacobian product.

A `Step` is the only part of the engine that differs between cells. `ProjectedStep` is a cell whose
only recurrent matrix product is h·U, the rest being elementwise: SimpleRNN, GRU (with
``reset_after``) and LSTM. There the step's gradient is written by hand, from values stored in the
forward pass, which is what makes it fast. `kbptt.engine.cell` has the step for any other cell.

All states and gradients are tuples of tensors ``(rows, width)``; a row is one sample, or one sample
of one window in the backward pass.
"""

from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

Tensors = tuple[tf.Tensor, ...]


class Step(Protocol):
    """One timestep, as the engine sees it.

    Attributes:
        output: Index of the state that is the step's output.
        hidden: Index of the state whose gradient norm is recorded.
        written: Indices of the states that the loop writes down; `recover` gives the others.
    """

    output: int
    hidden: int
    written: tuple[int, ...]

    def forward(self, x: tf.Tensor, state: Tensors, weights: Tensors) -> tuple[Tensors, Tensors]:
        """Returns the next state and what the backward pass wants stored of this step."""

    def recover(self, start: Tensors, stored: Tensors, written: Tensors) -> Tensors:
        """All states over time, start included, from those written down and what was stored."""

    def backward(
        self,
        x: tf.Tensor | None,
        previous: Tensors,
        state: Tensors,
        stored: Tensors,
        gradient: Tensors,
        weights: Tensors,
    ) -> tuple[Tensors, Tensors]:
        """Returns the gradient of the previous state, and what `weight_gradients` wants stored."""

    def weight_gradients(
        self, x: tf.Tensor, previous: Tensors, stored: Tensors, local: Tensors, weights: Tensors
    ) -> tuple[tf.Tensor, Tensors]:
        """Returns the gradients of the inputs and of the weights, from all timesteps at once."""


# The derivative of an activation, as a function of its output: nothing has to be recomputed.
DERIVATIVE_FROM_OUTPUT: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "linear": tf.ones_like,
    "relu": lambda y: tf.cast(y > 0, y.dtype),
    "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: 1 - y * y,
}

ACTIVATION: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "linear": tf.identity,
    "relu": tf.nn.relu,
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
}


def _rows(x: tf.Tensor) -> tf.Tensor:
    """``(T, batch, width)`` as ``(T·batch, width)``."""
    return tf.reshape(x, [-1, tf.shape(x)[-1]])


class ProjectedStep:
    """A step ``state' = f(x_t, h·U, state)`` with an elementwise f; the inputs are projected."""

    output = 0
    hidden = 0
    written = (0,)

    def recover(self, start, stored, written):
        return written

    def recurrent_gradient(self, h: tf.Tensor, dz: tf.Tensor) -> tf.Tensor:
        """∂L/∂U = Σ_t h_{t-1}ᵀ dz_t (guide 2.5), as one product over all timesteps."""
        return tf.matmul(_rows(h), _rows(dz), transpose_a=True)


class SimpleRNNStep(ProjectedStep):
    """h' = φ(x + h·U)."""

    def __init__(self, activation: str) -> None:
        self.activation = ACTIVATION[activation]
        self.derivative = DERIVATIVE_FROM_OUTPUT[activation]

    def forward(self, x, state, weights):
        (kernel,) = weights
        h = self.activation(x + tf.matmul(state[0], kernel))
        return (h,), ()

    def backward(self, x, previous, state, stored, gradient, weights):
        (kernel,) = weights
        dz = gradient[0] * self.derivative(state[0])
        return (tf.matmul(dz, kernel, transpose_b=True),), (dz,)

    def weight_gradients(self, x, previous, stored, local, weights):
        return local[0], (self.recurrent_gradient(previous[0], local[0]),)


class LSTMStep(ProjectedStep):
    """Gates i, f, g, o = σ, σ, φ, σ(x + h·U);  c' = f·c + i·g;  h' = o·φ(c')."""

    written: tuple[int, ...] = (1,)

    def __init__(self, activation: str, recurrent_activation: str) -> None:
        self.activation = ACTIVATION[activation]
        self.derivative = DERIVATIVE_FROM_OUTPUT[activation]
        self.recurrent_activation = ACTIVATION[recurrent_activation]
        self.recurrent_derivative = DERIVATIVE_FROM_OUTPUT[recurrent_activation]

    def gates(self, z: tf.Tensor) -> tf.Tensor:
        i, f, g, o = tf.split(z, 4, axis=-1)
        return tf.concat(
            [
                self.recurrent_activation(i),
                self.recurrent_activation(f),
                self.activation(g),
                self.recurrent_activation(o),
            ],
            axis=-1,
        )

    def forward(self, x, state, weights):
        (kernel,) = weights
        gates = self.gates(x + tf.matmul(state[0], kernel))
        i, f, g, o = tf.split(gates, 4, axis=-1)
        c = f * state[1] + i * g
        return (o * self.activation(c), c), (gates,)

    def recover(self, start, stored, written):
        # The loop is spared one write a step; here all outputs are computed at once.
        (c,) = written
        h = tf.split(stored[0], 4, axis=-1)[3] * self.activation(c[1:])
        return tf.concat([start[0][None], h], axis=0), c

    def backward(self, x, previous, state, stored, gradient, weights):
        (kernel,) = weights
        dh, dc = gradient
        f, o = tf.split(stored[0], 4, axis=-1)[1::2]
        d_cell, do = self.output_gradients(dh, o, state[1])
        dc = dc + d_cell
        dz = self.gate_gradients(dc, do, stored[0], previous[1])
        return (tf.matmul(dz, kernel, transpose_b=True), dc * f), (dz,)

    def output_gradients(self, dh, o, c):
        """Gradients of c and of the output gate's sum through h = o·φ(c)."""
        y = self.activation(c)
        return dh * o * self.derivative(y), dh * y * self.recurrent_derivative(o)

    def gate_gradients(self, dc, do, gates, previous_c):
        """Gradients of the four sums, from those of c' and of the output gate's sum."""
        i, f, g, _ = tf.split(gates, 4, axis=-1)
        sigma = self.recurrent_derivative
        return tf.concat(
            [dc * g * sigma(i), dc * previous_c * sigma(f), dc * i * self.derivative(g), do],
            axis=-1,
        )

    def weight_gradients(self, x, previous, stored, local, weights):
        return local[0], (self.recurrent_gradient(previous[0], local[0]),)


class GRUStep(ProjectedStep):
    """z, r = σ(x + h·U);  n = φ(x + r·(h·U + b));  h' = z·h + (1 − z)·n (``reset_after``)."""

    def __init__(self, activation: str, recurrent_activation: str) -> None:
        self.activation = ACTIVATION[activation]
        self.derivative = DERIVATIVE_FROM_OUTPUT[activation]
        self.recurrent_activation = ACTIVATION[recurrent_activation]
        self.recurrent_derivative = DERIVATIVE_FROM_OUTPUT[recurrent_activation]

    def forward(self, x, state, weights):
        kernel, bias = weights
        (h,) = state
        units = h.shape[-1]
        hu = tf.matmul(h, kernel)
        zr = self.recurrent_activation(x[:, : 2 * units] + hu[:, : 2 * units])
        z, r = tf.split(zr, 2, axis=-1)
        hn = hu[:, 2 * units :] + bias
        n = self.activation(x[:, 2 * units :] + r * hn)
        h = z * h + (1 - z) * n
        return (h,), (tf.concat([zr, n, hn], axis=-1),)

    def local_gradients(self, previous, gates, dh):
        """The direct gradient of h, and those of h·U (z, r, n) and of the candidate's sum."""
        z, r, n, hn = tf.split(gates, 4, axis=-1)
        dn = dh * (1 - z) * self.derivative(n)
        dz = dh * (previous - n) * self.recurrent_derivative(z)
        dr = dn * hn * self.recurrent_derivative(r)
        return dh * z, tf.concat([dz, dr, dn * r], axis=-1), dn

    def input_gradients(self, local):
        """Gradients of the projected inputs and of the candidate's recurrent bias."""
        dhu, dn = local
        units = dn.shape[-1]
        dx = tf.concat([dhu[..., : 2 * units], dn], axis=-1)
        return dx, tf.reduce_sum(dhu[..., 2 * units :], axis=[0, 1])

    def backward(self, x, previous, state, stored, gradient, weights):
        direct, dhu, dn = self.local_gradients(previous[0], stored[0], gradient[0])
        return (direct + tf.matmul(dhu, weights[0], transpose_b=True),), (dhu, dn)

    def weight_gradients(self, x, previous, stored, local, weights):
        dx, bias = self.input_gradients(local)
        return dx, (self.recurrent_gradient(previous[0], local[0]), bias)
