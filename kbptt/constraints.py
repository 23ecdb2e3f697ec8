"""Constraints on recurrent kernels, gate by gate, for any Keras layer.

Keras applies a constraint to a weight after every step of the optimizer; no gradient flows through
it. In kbptt's layers ``recurrent_constraint="orthogonal"`` and ``"spectral_norm"`` work too.
"""

from typing import Any

import keras
from keras import ops

from kbptt import _blocks, _checks, _gates
from kbptt._identifiers import unknown
from kbptt._typing import Constraint


class _SingularValues(keras.constraints.Constraint):
    """Base class: what a subclass does to the singular values of each gate's block."""

    def __init__(self, gates: int | str = _gates.AUTO) -> None:
        self.gates = _gates.check(gates)

    def __call__(self, w: Any) -> Any:
        _, _, gates = _gates.split(w.shape, self.gates)
        dtype = keras.backend.standardize_dtype(w.dtype)
        blocks = _blocks.where_finite(self._constrained, _blocks.apart(w, gates))
        return _blocks.joined(blocks, dtype)

    def _constrained(self, blocks: Any) -> Any:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {"gates": self.gates}


@keras.saving.register_keras_serializable(package="kbptt")
class Orthogonal(_SingularValues):
    """Replaces every gate's block by the orthogonal matrix nearest to it, its polar factor.

    Computed in float64 and rounded once. A block that contains NaN or Inf is left unchanged.

    Example:

    >>> layer = keras.layers.LSTM(64, recurrent_constraint=kbptt.constraints.Orthogonal())

    Args:
        gates: Integer or `"auto"`, the number of blocks side by side. `"auto"` splits the kernel
            `(units, n * units)` into n square blocks. If the number is given and blocks are not
            square, their rows or columns become orthonormal, whichever are fewer. Defaults to
            `"auto"`.

    Raises:
        ValueError: If `gates` is invalid; when called, if the kernel cannot be split into these
            blocks.

    Reference:

    - [Higham, 1986](https://doi.org/10.1137/0907079) on the polar factor.
    """

    def _constrained(self, blocks: Any) -> Any:
        return _blocks.polar(blocks)


@keras.saving.register_keras_serializable(package="kbptt")
class SpectralNorm(_SingularValues):
    """Keeps the singular values of every gate's block within [minimum, maximum].

    With `minimum=1 - m` and `maximum=1 + m` it is the margin m of Vorontsov et al.: 0 is a hard
    orthogonal constraint. Singular vectors are kept; a block within the band is left unchanged, as
    is one that contains NaN or Inf.

    Example:

    >>> layer = kbptt.LSTM(64, recurrent_constraint=kbptt.constraints.SpectralNorm(0.9, 1.1))

    Args:
        minimum: Float of at least 0. Defaults to `0.9`.
        maximum: Float above 0, at least `minimum`. Defaults to `1.1`.
        gates: Integer or `"auto"`, as in `Orthogonal`. Defaults to `"auto"`.

    Raises:
        ValueError: If an argument is out of its range; when called, if the kernel cannot be split
            into these blocks.

    Reference:

    - [Vorontsov et al., 2017](https://arxiv.org/abs/1702.00071)
    """

    def __init__(
        self, minimum: float = 0.9, maximum: float = 1.1, gates: int | str = _gates.AUTO
    ) -> None:
        super().__init__(gates)
        self.minimum = _checks.number("minimum", minimum, at_least=0)
        self.maximum = _checks.number("maximum", maximum, above=0, at_least=self.minimum)

    def _constrained(self, blocks: Any) -> Any:
        def clipped(values: Any) -> Any:
            return ops.clip(values, self.minimum, self.maximum)

        return _blocks.with_singular_values(blocks, clipped)

    def get_config(self) -> dict[str, Any]:
        return {"minimum": self.minimum, "maximum": self.maximum, **super().get_config()}


NAMES = {"orthogonal": Orthogonal, "spectral_norm": SpectralNorm}


def get(identifier: Constraint) -> Any:
    """Returns the constraint for a name, a config, an object, or None.

    Names are those of this module and then those of `keras.constraints.get`.

    Raises:
        ValueError: If the identifier is none of these.
    """
    if isinstance(identifier, str) and identifier in NAMES:
        return NAMES[identifier]()
    try:
        return keras.constraints.get(identifier)
    except (ValueError, TypeError) as error:
        raise unknown("constraint", identifier, NAMES, keras.constraints) from error
