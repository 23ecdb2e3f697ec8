"""Activations with their derivatives, by their names in Keras: the only list of them in Python.

The C++ loops have the same list, ``engine/native/activations.hpp``. Numbers are those of
`keras.activations` with default arguments.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

Elementwise: TypeAlias = Callable[[tf.Tensor], tf.Tensor]


class Activation:
    """An elementwise function and its derivative.

    A cell keeps `kept(z, y)` of ``y = activation(z)`` for its backward pass, which computes
    `output` and `grad` from that.

    Args:
        function: φ, made of ordinary differentiable operations.
        of_output: φ′ as a function of the output y.
        of_argument: φ′ as a function of the argument z; for functions whose output does not
            determine it.

    Attributes:
        function: φ.
        keeps_argument: Whether the argument is kept for the backward pass, or else the output.
    """

    def __init__(
        self,
        function: Elementwise,
        of_output: Elementwise | None = None,
        *,
        of_argument: Elementwise | None = None,
    ) -> None:
        derivative = of_output or of_argument
        assert derivative is not None
        self.function: Elementwise = function
        self.keeps_argument: bool = of_output is None
        self._derivative = derivative

    def __call__(self, z: tf.Tensor) -> tf.Tensor:
        return self.function(z)

    def kept(self, z: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """What the backward pass needs of y = φ(z)."""
        return z if self.keeps_argument else y

    def output(self, kept: tf.Tensor) -> tf.Tensor:
        """φ(z), from what was kept."""
        return self.function(kept) if self.keeps_argument else kept

    def grad(self, kept: tf.Tensor) -> tf.Tensor:
        """φ′(z), from what was kept."""
        return self._derivative(kept)


SELU_SCALE, SELU_SCALE_ALPHA = 1.05070098735548049342, 1.75809934084737685994


def _where(condition: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(condition, dtype)


def _hard_sigmoid(z: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu6(z + 3) / 6


def _hard_sigmoid_grad(y: tf.Tensor) -> tf.Tensor:
    return _where((y > 0) & (y < 1), y.dtype) / 6


def _hard_silu_grad(z: tf.Tensor) -> tf.Tensor:
    gate = _hard_sigmoid(z)
    return gate + z * _hard_sigmoid_grad(gate)


def _silu_grad(z: tf.Tensor) -> tf.Tensor:
    gate = tf.sigmoid(z)
    return gate * (1 + z * (1 - gate))


def _mish(z: tf.Tensor) -> tf.Tensor:
    return z * tf.tanh(tf.math.softplus(z))


def _mish_grad(z: tf.Tensor) -> tf.Tensor:
    t = tf.tanh(tf.math.softplus(z))
    return t + z * tf.sigmoid(z) * (1 - t * t)


def _gelu_grad(z: tf.Tensor) -> tf.Tensor:
    """Φ(z) + z·φ(z) of the normal distribution."""
    # `tf.nn.gelu` takes √½ as a float32.
    s = z * tf.cast(tf.constant(math.sqrt(0.5)), z.dtype)
    return 0.5 * tf.math.erfc(-s) + s * tf.exp(-s * s) / math.sqrt(math.pi)


ACTIVATION: dict[str, Activation] = {
    "linear": Activation(tf.identity, tf.ones_like),
    "relu": Activation(tf.nn.relu, lambda y: _where(y > 0, y.dtype)),
    "sigmoid": Activation(tf.sigmoid, lambda y: y * (1 - y)),
    "tanh": Activation(tf.tanh, lambda y: 1 - y * y),
    "elu": Activation(tf.nn.elu, lambda y: tf.where(y < 0, y + 1, tf.ones_like(y))),
    "selu": Activation(
        tf.nn.selu,
        lambda y: tf.where(y < 0, y + SELU_SCALE_ALPHA, SELU_SCALE * tf.ones_like(y)),
    ),
    "softplus": Activation(tf.math.softplus, lambda y: -tf.math.expm1(-y)),
    "log_sigmoid": Activation(tf.math.log_sigmoid, lambda y: -tf.math.expm1(y)),
    "exponential": Activation(tf.exp, tf.identity),
    "softsign": Activation(tf.nn.softsign, lambda y: (1 - tf.abs(y)) ** 2),
    # TensorFlow takes 0.2 as a float32.
    "leaky_relu": Activation(
        tf.nn.leaky_relu,
        lambda y: tf.where(y > 0, tf.ones_like(y), tf.cast(tf.constant(0.2), y.dtype)),
    ),
    "relu6": Activation(tf.nn.relu6, lambda y: _where((y > 0) & (y < 6), y.dtype)),
    "hard_sigmoid": Activation(_hard_sigmoid, _hard_sigmoid_grad),
    # At ±1 itself the derivative is 1, which ±1 as an output does not show.
    "hard_tanh": Activation(
        lambda z: tf.clip_by_value(z, -1, 1), of_argument=lambda z: _where(tf.abs(z) <= 1, z.dtype)
    ),
    "hard_silu": Activation(lambda z: z * _hard_sigmoid(z), of_argument=_hard_silu_grad),
    "silu": Activation(tf.nn.silu, of_argument=_silu_grad),
    "mish": Activation(_mish, of_argument=_mish_grad),
    "gelu": Activation(tf.nn.gelu, of_argument=_gelu_grad),
}
