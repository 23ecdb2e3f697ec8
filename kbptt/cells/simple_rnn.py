"""Elman's recurrent network, the RNN of the guide's section 2.

    plain        h_t = φ(x_t·W + b + h_{t−1}·U)
    normalized   h_t = φ(gain ⊙ LN(x_t·W + h_{t−1}·U) + b)

`x` is x_t·W + b. The normalized cell adds b itself, and gets W and U with centred columns.
"""

from typing import ClassVar

import tensorflow as tf

from kbptt.cells.base import Cell, Weights, project, sum_over_time
from kbptt.cells.layer_norm import inverse_deviation, scale_vjp


class SimpleRNN(Cell):
    name = "SimpleRNN"
    gains: ClassVar[dict[str, int]] = {"recurrent_gain": 1}

    def forward(self, x, state, weights):
        z = x + self.product(state[0], weights)
        return (self.activation(z),), (z,) if self.activation.keeps_argument else ()

    def vjp(self, x, previous, state, residuals, gradient, weights, back):
        (kept,) = residuals or state
        dz = gradient[0] * self.activation.grad(kept)
        return (back(dz),), (dz,)

    def weight_gradients(self, x, previous, residuals, local, weights):
        (dz,) = local
        return dz, Weights(recurrent_kernel=self.kernel_gradient(previous[0], dz, weights))


class NormalizedSimpleRNN(SimpleRNN):
    def project(self, x, weights, masks=None):
        # The kernel's columns are centred; the sum of both products is scaled in the step.
        return project(x, weights.kernel, masks=masks), weights._replace(kernel=None)

    def forward(self, x, state, weights):
        a = x + self.product(state[0], weights)
        inverse = inverse_deviation(a, self.normalization.epsilon)
        standard = a * inverse
        return (self.activation(self.argument(standard, weights)),), (standard, inverse)

    def argument(self, standard: tf.Tensor, weights: Weights) -> tf.Tensor:
        y = weights.recurrent_gain * standard
        return y if weights.bias is None else y + weights.bias

    def vjp(self, x, previous, state, residuals, gradient, weights, back):
        kept = self.activation.kept(self.argument(residuals[0], weights), state[0])
        dy = gradient[0] * self.activation.grad(kept)
        da = scale_vjp(dy * weights.recurrent_gain, *residuals)
        return (back(da),), (dy,)

    def weight_gradients(self, x, previous, residuals, local, weights):
        (dy,) = local
        da = scale_vjp(dy * weights.recurrent_gain, *residuals)
        return da, Weights(
            recurrent_kernel=self.kernel_gradient(previous[0], da, weights),
            recurrent_gain=sum_over_time(dy * residuals[0]),
            bias=None if weights.bias is None else sum_over_time(dy),
        )


SimpleRNN.normalized = NormalizedSimpleRNN
