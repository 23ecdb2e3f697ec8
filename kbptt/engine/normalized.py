"""Layer-normalised steps (Ba, Kiros & Hinton, 2016), with hand-written gradients.

The mean that layer normalisation subtracts from h·U is linear in h: centring the columns of U once
per call subtracts it from every timestep at once (`center`). What remains inside the loop is one
mean of squares per step, forward and backward.
"""

import tensorflow as tf

from kbptt.engine.steps import GRUStep, LSTMStep, SimpleRNNStep


def center(x: tf.Tensor, groups: tuple[int, ...]) -> tf.Tensor:
    """`x` minus its mean over each of the column groups."""
    parts = tf.split(x, groups, axis=-1)
    return tf.concat([p - tf.reduce_mean(p, axis=-1, keepdims=True) for p in parts], axis=-1)


def standardize(x: tf.Tensor, groups: tuple[int, ...], epsilon: float) -> tf.Tensor:
    """Layer normalisation without gain, over each of the column groups; differentiable."""
    parts = tf.split(center(x, groups), groups, axis=-1)
    return tf.concat([p * _inverse_deviation(p, epsilon) for p in parts], axis=-1)


def _inverse_deviation(centred: tf.Tensor, epsilon: float) -> tf.Tensor:
    """1/σ of values that are already centred, ``(..., 1)``."""
    return tf.math.rsqrt(tf.reduce_mean(centred * centred, axis=-1, keepdims=True) + epsilon)


def _back(d_standard: tf.Tensor, standard: tf.Tensor, inverse: tf.Tensor) -> tf.Tensor:
    """Gradient through x̂ = x/σ(x), of centred x: (dx̂ − x̂·mean(dx̂·x̂))/σ."""
    mean = tf.reduce_mean(d_standard * standard, axis=-1, keepdims=True)
    return inverse * (d_standard - standard * mean)


class NormalizedSimpleRNNStep(SimpleRNNStep):
    """h' = φ(gain·LN(x + h·U) + b), with x and the columns of U centred beforehand."""

    def __init__(self, activation: str, epsilon: float) -> None:
        super().__init__(activation)
        self.epsilon = epsilon

    def forward(self, x, state, weights):
        kernel, gain, bias = weights
        a = x + tf.matmul(state[0], kernel)
        inverse = _inverse_deviation(a, self.epsilon)
        standard = a * inverse
        h = self.activation(gain * standard + bias)
        return (h,), (standard, inverse)

    def _pre_activation(self, dy, stored, weights):
        return _back(dy * weights[1], *stored)

    def backward(self, x, previous, state, stored, gradient, weights):
        dy = gradient[0] * self.derivative(state[0])
        da = self._pre_activation(dy, stored, weights)
        return (tf.matmul(da, weights[0], transpose_b=True),), (dy,)

    def weight_gradients(self, x, previous, stored, local, weights):
        (dy,) = local
        da = self._pre_activation(dy, stored, weights)
        gain = tf.reduce_sum(dy * stored[0], axis=[0, 1])
        bias = tf.reduce_sum(dy, axis=[0, 1])
        return da, (self.recurrent_gradient(previous[0], da), gain, bias)


class NormalizedLSTMStep(LSTMStep):
    """z = x + gain·LN(h·U);  c' = f·c + i·g;  h' = o·φ(LN(c')).

    The inputs x are normalised outside. With `carry_normalized` the state that is carried is
    LN(c') instead of c', as in TensorFlow Addons: other dynamics under the same name.
    """

    written = (0, 1)

    def __init__(
        self,
        activation: str,
        recurrent_activation: str,
        epsilon: float,
        carry_normalized: bool,
    ) -> None:
        super().__init__(activation, recurrent_activation)
        self.epsilon = epsilon
        self.carry_normalized = carry_normalized

    def _normalize_cell(self, c, weights):
        """LN(c) with gain and bias, and what its gradient needs."""
        centred = c - tf.reduce_mean(c, axis=-1, keepdims=True)
        inverse = _inverse_deviation(centred, self.epsilon)
        standard = centred * inverse
        return weights[2] * standard + weights[3], standard, inverse

    def forward(self, x, state, weights):
        kernel, gain = weights[:2]
        a = tf.matmul(state[0], kernel)
        inverse = _inverse_deviation(a, self.epsilon)
        standard = a * inverse
        gates = self.gates(x + gain * standard)
        i, f, g, o = tf.split(gates, 4, axis=-1)
        c = f * state[1] + i * g
        normalized, cell_standard, cell_inverse = self._normalize_cell(c, weights)
        h = o * self.activation(normalized)
        carried = normalized if self.carry_normalized else c
        return (h, carried), (gates, standard, inverse, cell_standard, cell_inverse)

    def recover(self, start, stored, written):
        return written

    def _recurrent(self, dz, stored, weights):
        return _back(dz * weights[1], stored[1], stored[2])

    def backward(self, x, previous, state, stored, gradient, weights):
        dh, dc = gradient
        gates, _, _, cell_standard, cell_inverse = stored
        f, o = tf.split(gates, 4, axis=-1)[1::2]
        y = self.activation(weights[2] * cell_standard + weights[3])
        d_normalized = dh * o * self.derivative(y)
        if self.carry_normalized:
            d_normalized += dc
        d_cell = _back(d_normalized * weights[2], cell_standard, cell_inverse)
        # Unlike h·U, the cell state is centred inside the step.
        d_cell -= tf.reduce_mean(d_cell, axis=-1, keepdims=True)
        dc = d_cell if self.carry_normalized else dc + d_cell
        do = dh * y * self.recurrent_derivative(o)
        dz = self.gate_gradients(dc, do, gates, previous[1])
        da = self._recurrent(dz, stored, weights)
        carry = tf.matmul(da, weights[0], transpose_b=True), dc * f
        return carry, (dz, d_normalized)

    def weight_gradients(self, x, previous, stored, local, weights):
        dz, d_normalized = local
        da = self._recurrent(dz, stored, weights)
        return dz, (
            self.recurrent_gradient(previous[0], da),
            tf.reduce_sum(dz * stored[1], axis=[0, 1]),
            tf.reduce_sum(d_normalized * stored[3], axis=[0, 1]),
            tf.reduce_sum(d_normalized, axis=[0, 1]),
        )


class NormalizedGRUStep(GRUStep):
    """z, r = σ(x + gain·LN(h·U));  n = φ(x + r·(gain·LN(h·U) + b));  h' = z·h + (1 − z)·n.

    The two gates are normalised together, the candidate on its own, as in the paper.
    """

    def __init__(self, activation: str, recurrent_activation: str, epsilon: float) -> None:
        super().__init__(activation, recurrent_activation)
        self.epsilon = epsilon

    def forward(self, x, state, weights):
        kernel, bias, gain = weights
        (h,) = state
        units = h.shape[-1]
        a = tf.matmul(h, kernel)
        inverse_zr = _inverse_deviation(a[:, : 2 * units], self.epsilon)
        inverse_n = _inverse_deviation(a[:, 2 * units :], self.epsilon)
        standard = tf.concat([a[:, : 2 * units] * inverse_zr, a[:, 2 * units :] * inverse_n], -1)
        hu = gain * standard
        zr = self.recurrent_activation(x[:, : 2 * units] + hu[:, : 2 * units])
        z, r = tf.split(zr, 2, axis=-1)
        hn = hu[:, 2 * units :] + bias
        n = self.activation(x[:, 2 * units :] + r * hn)
        h = z * h + (1 - z) * n
        return (h,), (tf.concat([zr, n, hn], -1), standard, inverse_zr, inverse_n)

    def _recurrent(self, dhu, stored, weights):
        units = stored[0].shape[-1] // 4
        d_standard, standard = dhu * weights[2], stored[1]
        groups = (2 * units, units)
        parts = zip(
            tf.split(d_standard, groups, axis=-1),
            tf.split(standard, groups, axis=-1),
            stored[2:],
            strict=True,
        )
        return tf.concat([_back(d, s, inverse) for d, s, inverse in parts], axis=-1)

    def backward(self, x, previous, state, stored, gradient, weights):
        (dh,) = gradient
        direct, dhu, dn = self.local_gradients(previous[0], stored[0], dh)
        da = self._recurrent(dhu, stored, weights)
        return (direct + tf.matmul(da, weights[0], transpose_b=True),), (dhu, dn)

    def weight_gradients(self, x, previous, stored, local, weights):
        dhu, _ = local
        dx, bias = self.input_gradients(local)
        da = self._recurrent(dhu, stored, weights)
        gain = tf.reduce_sum(dhu * stored[1], axis=[0, 1])
        return dx, (self.recurrent_gradient(previous[0], da), bias, gain)
