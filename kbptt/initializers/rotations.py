"""Block-diagonal rotations: Henaff's and Helfrich's."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kbptt import _gates
from kbptt._typing import Seed
from kbptt.initializers.base import SeededInitializer, join


class _Rotations(SeededInitializer):
    """Block-diagonal 2 × 2 rotations: orthogonal, with eigenvalues exp(± i angle).

    An odd `units` leaves a 1 × 1 block, which is 1 (a rotation by nothing).
    """

    lowest: float
    highest: float

    def __init__(self, gates: int | str = _gates.AUTO, seed: Seed = None):
        super().__init__(seed)
        self.gates = _gates.check(gates)

    def __call__(self, shape, dtype=None):
        units, _, gates = _gates.split(shape, self.gates, square=True)
        drawn = keras.random.uniform(
            (gates, units // 2), self.lowest, self.highest, dtype="float64", seed=self.seed
        )
        angle = ops.repeat(drawn, 2, axis=-1)
        if units % 2:
            angle = ops.pad(angle, ((0, 0), (0, 1)))
        eye = ops.eye(units, dtype="float64")
        # 1 at (0, 1), (2, 3), … only: the upper corner of each 2 × 2 block.
        pairs = np.arange(units - 1) % 2 == 0
        upper = ops.convert_to_tensor(np.diag(pairs.astype("float64"), k=1))
        skew = upper - ops.transpose(upper)
        angle = ops.expand_dims(angle, axis=-1)
        return join(ops.cos(angle) * eye + ops.sin(angle) * skew, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"gates": self.gates, **super().get_config()}


@keras.saving.register_keras_serializable(package="kbptt")
class Henaff(_Rotations):
    """exp(A), A skew with 2 × 2 blocks [[0, s], [−s, 0]], s ~ U(−π, π), for every gate.

    The exponential of such a block is the rotation by s: orthogonal, and eigenvalues e^{±is} all
    over the unit circle.

    Args:
        gates: Integer or `"auto"`, as in `OrthogonalPerGate`; square blocks. Defaults to `"auto"`.
        seed: Integer, `SeedGenerator` or None. Defaults to `None`.

    Reference:

    - [Henaff, Szlam & LeCun, 2016](https://arxiv.org/abs/1602.06662)
    """

    lowest, highest = -math.pi, math.pi


@keras.saving.register_keras_serializable(package="kbptt")
class Cayley(_Rotations):
    """(I + A)⁻¹(I − A), A skew with blocks of s = −√((1 − cos u)/(1 + cos u)), u ~ U(0, π/2).

    s = −tan(u/2), and the Cayley transform of that block is the rotation by u: orthogonal, with
    eigenvalues e^{±iu} in the right half of the unit circle, so neighbouring states stay similar.

    Args:
        gates: Integer or `"auto"`, as in `OrthogonalPerGate`; square blocks. Defaults to `"auto"`.
        seed: Integer, `SeedGenerator` or None. Defaults to `None`.

    Reference:

    - [Helfrich, Willmott & Ye, 2018](https://arxiv.org/abs/1707.09520)
    """

    lowest, highest = 0.0, math.pi / 2
