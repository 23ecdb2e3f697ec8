"""Gated recurrent unit, Keras's form with ``reset_after=True`` (that of cuDNN).

    plain        z, r = σ(x_t·W + b + h_{t−1}·U)
                 n    = φ(x_t·W + b + r ⊙ (h_{t−1}·U + b_n))
                 h_t  = z ⊙ h_{t−1} + (1 − z) ⊙ n
    normalized   gain_x ⊙ LN(x_t·W) for x_t·W, gain_h ⊙ LN(h_{t−1}·U) for h_{t−1}·U

`x` is x_t·W + b, likewise normalized. The two gates are normalized together, the candidate on its
own, as in the paper.
"""

from typing import ClassVar

import tensorflow as tf

from kbptt.cells.base import Cell, Weights, sum_over_time
from kbptt.cells.layer_norm import inverse_deviation, scale_vjp
from kbptt.cells.names import NAMES


class GRU(Cell):
    name = "GRU"
    gates = NAMES["GRU"].gates  # z, r, n
    gains: ClassVar[dict[str, int]] = {"recurrent_gain": 3, "input_gain": 3}

    @classmethod
    def groups(cls, units):
        return 2 * units, units

    def update(self, x, hu, h, weights):
        """h_t and its residuals, from h_{t−1}·U."""
        units = h.shape[-1]
        a = x[:, : 2 * units] + hu[:, : 2 * units]
        zr = self.recurrent_activation(a)
        z, r = tf.split(zr, 2, axis=-1)
        hn = hu[:, 2 * units :]
        if weights.recurrent_bias is not None:
            hn += weights.recurrent_bias
        b = x[:, 2 * units :] + r * hn
        n = self.activation(b)
        kept = self.recurrent_activation.kept(a, zr), self.activation.kept(b, n)
        return z * h + (1 - z) * n, tf.concat([*kept, hn], axis=-1)

    def forward(self, x, state, weights):
        (h,) = state
        h, gates = self.update(x, self.product(h, weights), h, weights)
        return (h,), (gates,)

    def named_gates(self, residuals):
        kept_z, kept_r, *_ = tf.split(residuals[0], 4, axis=-1)
        sigma = self.recurrent_activation
        return {"z": sigma.output(kept_z), "r": sigma.output(kept_r)}

    def local_gradients(self, previous, gates, dh):
        """The direct gradient of h_{t−1}, and those of h·U (z, r, n) and of the candidate's sum."""
        phi, sigma = self.activation, self.recurrent_activation
        kept_z, kept_r, kept_n, hn = tf.split(gates, 4, axis=-1)
        z, r, n = sigma.output(kept_z), sigma.output(kept_r), phi.output(kept_n)
        dn = dh * (1 - z) * phi.grad(kept_n)
        dz = dh * (previous - n) * sigma.grad(kept_z)
        dr = dn * hn * sigma.grad(kept_r)
        return dh * z, tf.concat([dz, dr, dn * r], axis=-1), dn

    def vjp(self, x, previous, state, residuals, gradient, weights, back):
        direct, dhu, dn = self.local_gradients(previous[0], residuals[0], gradient[0])
        da = self.product_gradient(dhu, residuals, weights)
        return (direct + back(da),), (dhu, dn)

    def product_gradient(self, dhu, residuals, weights):
        """∂L/∂(h·U) from the gradient of what enters the gates."""
        return dhu

    def weight_gradients(self, x, previous, residuals, local, weights):
        dhu, dn = local
        units = dn.shape[-1]
        da = self.product_gradient(dhu, residuals, weights)
        gradients = Weights(recurrent_kernel=self.kernel_gradient(previous[0], da, weights))
        if weights.recurrent_bias is not None:
            gradients = gradients._replace(recurrent_bias=sum_over_time(dhu[..., 2 * units :]))
        return tf.concat([dhu[..., : 2 * units], dn], axis=-1), gradients


class NormalizedGRU(GRU):
    def forward(self, x, state, weights):
        (h,) = state
        groups = self.groups(h.shape[-1])
        parts = tf.split(self.product(h, weights), groups, axis=-1)
        inverses = [inverse_deviation(part, self.normalization.epsilon) for part in parts]
        standard = tf.concat([p * i for p, i in zip(parts, inverses, strict=True)], axis=-1)
        h, gates = self.update(x, weights.recurrent_gain * standard, h, weights)
        return (h,), (gates, standard, *inverses)

    def product_gradient(self, dhu, residuals, weights):
        _, standard, *inverses = residuals
        groups = self.groups(standard.shape[-1] // 3)
        d_parts = tf.split(dhu * weights.recurrent_gain, groups, axis=-1)
        parts = zip(d_parts, tf.split(standard, groups, axis=-1), inverses, strict=True)
        return tf.concat([scale_vjp(*part) for part in parts], axis=-1)

    def weight_gradients(self, x, previous, residuals, local, weights):
        dx, gradients = super().weight_gradients(x, previous, residuals, local, weights)
        gain = sum_over_time(local[0] * residuals[1])
        return dx, gradients._replace(recurrent_gain=gain)


GRU.normalized = NormalizedGRU
