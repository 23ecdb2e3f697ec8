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

from kbptt.cells.activations import Activation
from kbptt.cells.base import Cell, Weights, sum_over_time
from kbptt.cells.layer_norm import center, inverse_deviation, scale_vjp
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

    @property
    def gate_activations(self) -> tuple[Activation, ...]:
        sigma = self.recurrent_activation
        return sigma, sigma, self.activation, sigma

    def gate_values(self, z: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The gates i, f, g, o, and what the backward pass needs of them, ``(batch, 4 units)``."""
        arguments = tf.split(z, 4, axis=-1)
        pairs = list(zip(self.gate_activations, arguments, strict=True))
        gates = [activation(a) for activation, a in pairs]
        kept = [f.kept(a, y) for (f, a), y in zip(pairs, gates, strict=True)]
        return gates, tf.concat(kept, axis=-1)

    def kept_gates(self, kept):
        """The gates i, f, g, o and their derivatives, from what was kept."""
        pairs = list(zip(self.gate_activations, tf.split(kept, 4, axis=-1), strict=True))
        return [f.output(k) for f, k in pairs], [f.grad(k) for f, k in pairs]

    def named_gates(self, residuals):
        (i, f, _, o), _ = self.kept_gates(residuals[0])
        return {"i": i, "f": f, "o": o}

    def forward(self, x, state, weights):
        (i, f, g, o), kept = self.gate_values(x + self.product(state[0], weights))
        c = f * state[1] + i * g
        return (o * self.activation(c), c), (kept,)

    def recover(self, start, residuals, written):
        # The loop is spared one write a step; here all outputs are computed at once.
        (c,) = written
        o = self.recurrent_activation.output(tf.split(residuals[0], 4, axis=-1)[3])
        h = o * self.activation(c[1:])
        return tf.concat([start[0][None], h], axis=0), c

    def vjp(self, x, previous, state, residuals, gradient, weights, back):
        dh, dc = gradient
        (i, f, g, o), (di, df, dg, do) = self.kept_gates(residuals[0])
        y = self.activation(state[1])
        dc = dc + dh * o * self.activation.grad(self.activation.kept(state[1], y))
        parts = dc * g * di, dc * previous[1] * df, dc * i * dg, dh * y * do
        dz = tf.concat(parts, axis=-1)
        return (back(dz), dc * f), (dz,)

    def weight_gradients(self, x, previous, residuals, local, weights):
        (dz,) = local
        return dz, Weights(recurrent_kernel=self.kernel_gradient(previous[0], dz, weights))


class NormalizedLSTM(LSTM):
    written = (0, 1)

    def forward(self, x, state, weights):
        epsilon = self.normalization.epsilon
        a = self.product(state[0], weights)
        inverse = inverse_deviation(a, epsilon)
        standard = a * inverse
        (i, f, g, o), kept = self.gate_values(x + weights.recurrent_gain * standard)
        c = f * state[1] + i * g
        # Unlike h·U, the cell state is centred inside the step.
        centred = center(c) if self.normalization.centred else c
        c_inverse = inverse_deviation(centred, epsilon)
        c_standard = centred * c_inverse
        normalized = weights.state_gain * c_standard + weights.state_bias
        carried = normalized if self.normalization.carry_normalized else c
        h = o * self.activation(normalized)
        return (h, carried), (kept, standard, inverse, c_standard, c_inverse)

    def recover(self, start, residuals, written):
        return written

    def vjp(self, x, previous, state, residuals, gradient, weights, back):
        dh, dc = gradient
        kept, standard, inverse, c_standard, c_inverse = residuals
        (i, f, g, o), (di, df, dg, do) = self.kept_gates(kept)
        normalized = weights.state_gain * c_standard + weights.state_bias
        y = self.activation(normalized)
        d_normalized = dh * o * self.activation.grad(self.activation.kept(normalized, y))
        if self.normalization.carry_normalized:
            d_normalized += dc
        d_cell = scale_vjp(d_normalized * weights.state_gain, c_standard, c_inverse)
        if self.normalization.centred:
            d_cell = center(d_cell)
        dc = d_cell if self.normalization.carry_normalized else dc + d_cell
        parts = dc * g * di, dc * previous[1] * df, dc * i * dg, dh * y * do
        dz = tf.concat(parts, axis=-1)
        da = scale_vjp(dz * weights.recurrent_gain, standard, inverse)
        return (back(da), dc * f), (dz, d_normalized)

    def weight_gradients(self, x, previous, residuals, local, weights):
        dz, d_normalized = local
        _, standard, inverse, c_standard, _ = residuals
        da = scale_vjp(dz * weights.recurrent_gain, standard, inverse)
        return dz, Weights(
            recurrent_kernel=self.kernel_gradient(previous[0], da, weights),
            recurrent_gain=sum_over_time(dz * standard),
            state_gain=sum_over_time(d_normalized * c_standard),
            state_bias=sum_over_time(d_normalized),
        )


LSTM.normalized = NormalizedLSTM
