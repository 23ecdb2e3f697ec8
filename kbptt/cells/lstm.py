"""Long short-term memory, with Keras's order of gates.

    plain        i, f, o = σ(z),  g = φ(z),  z = x_t·W + b + h_{t−1}·U
                 c_t = f ⊙ c_{t−1} + i ⊙ g
                 h_t = o ⊙ φ(c_t)
    normalized   z = gain_x ⊙ LN(x_t·W) + b + gain_h ⊙ LN(h_{t−1}·U)
                 h_t = o ⊙ φ(gain_c ⊙ LN(c_t) + b_c)

`x` is x_t·W + b, in the normalized cell gain_x ⊙ LN(x_t·W) + b. With `carry_normalized` the state
that is carried is LN(c_t) instead of c_t, as in TensorFlow Addons: other dynamics under the same
name.
"""

from typing import ClassVar

import tensorflow as tf

from kbptt.cells.base import Cell, Weights, sum_over_time
from kbptt.cells.layer_norm import inverse_deviation, scale_vjp
from kbptt.cells.names import NAMES


class LSTM(Cell):
    name = "LSTM"
    gates = NAMES["LSTM"].gates  # i, f, g, o
    states = ("h", "c")
    gains: ClassVar[dict[str, int]] = {
        "recurrent_gain": 4,
        "input_gain": 4,
        "state_gain": 1,
        "state_bias": 1,
    }
    written: tuple[int, ...] = (1,)

    def gate_values(self, z):
        i, f, g, o = tf.split(z, 4, axis=-1)
        sigma = self.recurrent_activation
        return tf.concat([sigma(i), sigma(f), self.activation(g), sigma(o)], axis=-1)

    def forward(self, x, state, weights):
        gates = self.gate_values(x + tf.matmul(state[0], weights.recurrent_kernel))
        i, f, g, o = tf.split(gates, 4, axis=-1)
        c = f * state[1] + i * g
        return (o * self.activation(c), c), (gates,)

    def recover(self, start, residuals, written):
        # The loop is spared one write a step; here all outputs are computed at once.
        (c,) = written
        h = tf.split(residuals[0], 4, axis=-1)[3] * self.activation(c[1:])
        return tf.concat([start[0][None], h], axis=0), c

    def vjp(self, x, previous, state, residuals, gradient, weights):
        dh, dc = gradient
        f, o = tf.split(residuals[0], 4, axis=-1)[1::2]
        y = self.activation(state[1])
        do = dh * y * self.recurrent_activation_grad(o)
        dc = dc + dh * o * self.activation_grad(y)
        dz = self.gate_gradients(dc, do, residuals[0], previous[1])
        return (tf.matmul(dz, weights.recurrent_kernel, transpose_b=True), dc * f), (dz,)

    def gate_gradients(self, dc, do, gates, previous_c):
        """∂L/∂z, from the gradients of c_t and of the output gate's sum."""
        i, f, g, _ = tf.split(gates, 4, axis=-1)
        sigma_grad = self.recurrent_activation_grad
        di, df = dc * g * sigma_grad(i), dc * previous_c * sigma_grad(f)
        return tf.concat([di, df, dc * i * self.activation_grad(g), do], axis=-1)

    def weight_gradients(self, x, previous, residuals, local, weights):
        (dz,) = local
        return dz, Weights(recurrent_kernel=self.kernel_gradient(previous[0], dz))


class NormalizedLSTM(LSTM):
    written = (0, 1)

    def forward(self, x, state, weights):
        epsilon = self.normalization.epsilon
        a = tf.matmul(state[0], weights.recurrent_kernel)
        inverse = inverse_deviation(a, epsilon)
        standard = a * inverse
        gates = self.gate_values(x + weights.recurrent_gain * standard)
        i, f, g, o = tf.split(gates, 4, axis=-1)
        c = f * state[1] + i * g
        # Unlike h·U, the cell state is centred inside the step.
        centred = c - tf.reduce_mean(c, axis=-1, keepdims=True)
        c_inverse = inverse_deviation(centred, epsilon)
        c_standard = centred * c_inverse
        normalized = weights.state_gain * c_standard + weights.state_bias
        carried = normalized if self.normalization.carry_normalized else c
        h = o * self.activation(normalized)
        return (h, carried), (gates, standard, inverse, c_standard, c_inverse)

    def recover(self, start, residuals, written):
        return written

    def vjp(self, x, previous, state, residuals, gradient, weights):
        dh, dc = gradient
        gates, standard, inverse, c_standard, c_inverse = residuals
        f, o = tf.split(gates, 4, axis=-1)[1::2]
        y = self.activation(weights.state_gain * c_standard + weights.state_bias)
        d_normalized = dh * o * self.activation_grad(y)
        if self.normalization.carry_normalized:
            d_normalized += dc
        d_cell = scale_vjp(d_normalized * weights.state_gain, c_standard, c_inverse)
        d_cell -= tf.reduce_mean(d_cell, axis=-1, keepdims=True)
        dc = d_cell if self.normalization.carry_normalized else dc + d_cell
        do = dh * y * self.recurrent_activation_grad(o)
        dz = self.gate_gradients(dc, do, gates, previous[1])
        da = scale_vjp(dz * weights.recurrent_gain, standard, inverse)
        carried = tf.matmul(da, weights.recurrent_kernel, transpose_b=True), dc * f
        return carried, (dz, d_normalized)

    def weight_gradients(self, x, previous, residuals, local, weights):
        dz, d_normalized = local
        _, standard, inverse, c_standard, _ = residuals
        da = scale_vjp(dz * weights.recurrent_gain, standard, inverse)
        return dz, Weights(
            recurrent_kernel=self.kernel_gradient(previous[0], da),
            recurrent_gain=sum_over_time(dz * standard),
            state_gain=sum_over_time(d_normalized * c_standard),
            state_bias=sum_over_time(d_normalized),
        )


LSTM.normalized = NormalizedLSTM
