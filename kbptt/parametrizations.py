"""Recurrent kernels that stay orthogonal: the layers' argument ``recurrent_parametrization=``.

Each gate's block W of the recurrent kernel is computed from an unconstrained parameter: W = B·Q(A),
with the block B of the initial kernel, a map Q from the skew (or strictly lower triangular)
matrices onto the orthogonal ones, Q(0) = I, and A = 0 at first.
"""

import math
from typing import Any, TypeAlias

import keras
from keras import ops

from kbptt import _blocks, _gates
from kbptt._checks import number
from kbptt._frozen import Freezable
from kbptt._identifiers import option
from kbptt._typing import Config


class Parametrization(Freezable):
    """Base class. Subclasses implement `orthogonal` and are registered like Keras objects.

    The weight of a layer is P = A / `learning_rate_multiplier`, so that a step of P moves A by
    `learning_rate_multiplier` times as much. This is the learning rate of A for optimizers whose
    step does not depend on the scale of the gradient (Adam, RMSprop, Adagrad, Lion, …); for plain
    SGD, with or without momentum, the factor is the multiplier's square.

    Args:
        learning_rate_multiplier: Float above 0. Defaults to `0.1`: the papers train the recurrent
            matrix at about a tenth of the learning rate of the other weights.

    Raises:
        ValueError: If it is not a number above 0.
    """

    def __init__(self, learning_rate_multiplier: float = 0.1) -> None:
        name = "learning_rate_multiplier"
        self.learning_rate_multiplier: float = number(name, learning_rate_multiplier, above=0)

    def orthogonal(self, lower: Any) -> Any:
        """Q: orthogonal matrices, the identity for zeros.

        Args:
            lower: ``(gates, units, units)``, float64, strictly lower triangular.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `orthogonal`.")

    def kernel(self, parameter: Any, base: Any) -> Any:
        """The recurrent kernel, computed in float64; a float32 kernel is only rounded once.

        Args:
            parameter: P, ``(units, gates * units)``. The entries on and above the diagonal of each
                block are not read.
            base: B of each gate, orthogonal, in the same shape.

        Returns:
            ``(units, gates * units)``: float64 if `parameter` is, else float32. NaN throughout if
            `parameter` is not finite.

        Raises:
            ValueError: If the blocks are not square.
        """
        _, _, gates = _gates.split(parameter.shape, square=True)
        dtype = keras.backend.standardize_dtype(parameter.dtype)
        scaled = self.learning_rate_multiplier * _blocks.apart(parameter, gates)
        finite = ops.all(ops.isfinite(scaled))
        # An inverse of NaN is an error of TensorFlow's, which would hide the cause.
        lower = ops.where(finite, ops.tril(scaled, -1), ops.zeros_like(scaled))
        blocks = _blocks.apart(base, gates) @ self.orthogonal(lower)
        blocks = ops.where(finite, blocks, ops.full_like(blocks, math.nan))
        return _blocks.joined(blocks, "float64" if dtype == "float64" else "float32")

    def get_config(self) -> dict[str, Any]:
        return {"learning_rate_multiplier": self.learning_rate_multiplier}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Parametrization":
        return cls(**config)


@keras.saving.register_keras_serializable(package="kbptt")
class MatrixExponential(Parametrization):
    """Q = exp(A), A skew: reaches every rotation (expRNN).

    Example:

    >>> layer = kbptt.LSTM(64, recurrent_parametrization="exp")

    Args:
        learning_rate_multiplier: See `Parametrization`. Defaults to `0.1`.

    Reference:

    - [Lezcano-Casado & Martínez-Rubio, 2019](https://arxiv.org/abs/1901.08428)
    """

    def orthogonal(self, lower: Any) -> Any:
        return _exp(lower - _blocks.transposed(lower))


@keras.saving.register_keras_serializable(package="kbptt")
class CayleyTransform(Parametrization):
    """Q = (I − A/2)⁻¹(I + A/2), A skew: one inverse; no Q has an eigenvalue −1 (scoRNN).

    Args:
        learning_rate_multiplier: See `Parametrization`. Defaults to `0.1`.

    Reference:

    - [Helfrich, Willmott & Ye, 2018](https://arxiv.org/abs/1707.09520)
    """

    def orthogonal(self, lower: Any) -> Any:
        eye = ops.eye(lower.shape[-1], dtype=lower.dtype)
        skew = lower - _blocks.transposed(lower)
        # I + A/2 = 2I − (I − A/2), which saves the product.
        return 2 * ops.inv(eye - skew / 2) - eye


@keras.saving.register_keras_serializable(package="kbptt")
class HouseholderReflections(Parametrization):
    """Q = −H₁H₂⋯Hₙ, Hᵢ = I − 2vᵢvᵢᵀ/‖vᵢ‖², vᵢ = eᵢ + column i of A, A strictly lower triangular.

    The n reflections are multiplied in compact form, I − V·S⁻¹·Vᵀ with the upper triangle S of VᵀV
    and half its diagonal: three matrix products instead of n vector products.

    Args:
        learning_rate_multiplier: See `Parametrization`. Defaults to `0.1`.

    Reference:

    - [Mhammedi et al., 2017](https://arxiv.org/abs/1612.00188)
    - [Joffrain et al., 2006](https://doi.org/10.1145/1141885.1141886) on the compact form.
    """

    def orthogonal(self, lower: Any) -> Any:
        eye = ops.eye(lower.shape[-1], dtype=lower.dtype)
        v = lower + eye
        v = v / ops.sqrt(ops.sum(v * v, axis=1, keepdims=True))
        s = ops.triu(_blocks.transposed(v) @ v, 1) + eye / 2
        return v @ ops.solve_triangular(s, _blocks.transposed(v)) - eye


def _exp(a: Any) -> Any:
    """exp of skew matrices ``(…, n, n)`` in float64, by scaling, Taylor and squaring.

    The polynomial of degree 12 takes five products (Paterson & Stockmeyer, 1973). A skew matrix is
    normal, so that the root of a norm of A⁴ bounds its 2-norm closely.
    """
    a2 = a @ a
    a3, a4 = a2 @ a, a2 @ a2
    norm = ops.max(ops.sum(ops.abs(a4), axis=-1)) ** 0.25
    # θ¹³/13! is below 1e-15 for θ = 0.35.
    halvings = ops.ceil(ops.log2(ops.maximum(norm / 0.35, 1.0)))
    scale = ops.stop_gradient(2.0**-halvings)
    eye = ops.eye(a.shape[-1], dtype=a.dtype)
    powers = [eye, scale * a, scale**2 * a2, scale**3 * a3]
    a4 = scale**4 * a4

    def terms(first: int) -> Any:
        return sum(p / math.factorial(first + k) for k, p in enumerate(powers))

    series = terms(8) + a4 / math.factorial(12)
    series = terms(0) + a4 @ (terms(4) + a4 @ series)
    return _squared(series, ops.cast(halvings, "int32"))


@ops.custom_gradient
def _squared(x: Any, times: Any) -> Any:
    """x to the power 2^times.

    XLA differentiates no loop of unknown length. The adjoint of a power's derivative at X is the
    derivative at Xᵀ, a loop that needs nothing of the forward one.
    """
    _, result = ops.while_loop(lambda k, _: k < times, lambda k, x: (k + 1, x @ x), (0, x))

    def gradient(upstream: Any) -> Any:
        def square(k, x, dx):
            return k + 1, x @ x, x @ dx + dx @ x

        start = 0, _blocks.transposed(x), upstream
        _, _, dx = ops.while_loop(lambda k, *_: k < times, square, start)
        return dx, None

    return result, gradient


NAMES = {
    "exp": MatrixExponential,
    "cayley": CayleyTransform,
    "householder": HouseholderReflections,
}

ParametrizationLike: TypeAlias = str | Config | Parametrization | None


def get(identifier: ParametrizationLike) -> Parametrization | None:
    """Returns the parametrization for None, a name in `NAMES`, a config or an object.

    Raises:
        ValueError: If the identifier is none of these.
    """
    return option("recurrent_parametrization", identifier, Parametrization, NAMES)


def serialize(parametrization: Parametrization | None) -> dict[str, Any] | None:
    """Returns the configuration that `get` turns back into `parametrization`."""
    if parametrization is None:
        return None
    config: Any = keras.saving.serialize_keras_object(parametrization)
    return config
