"""Orthogonal blocks, one for each gate."""

from typing import Any

import keras
from keras import ops

from kbptt import _checks, _gates
from kbptt._typing import Seed
from kbptt.initializers.base import SeededInitializer, join


@keras.saving.register_keras_serializable(package="kbptt")
class OrthogonalPerGate(SeededInitializer):
    """Makes every gate's block of the kernel orthogonal: WᵀW = gain² I.

    `keras.initializers.Orthogonal` on an LSTM's `(units, 4 * units)` kernel makes the rows of the
    whole kernel orthonormal; the four square blocks are then only random contractions with singular
    values below 1, and the gradient shrinks by them at each step. Here each block is drawn
    separately, uniformly over the orthogonal matrices.

    Example:

    >>> layer = keras.layers.LSTM(64, recurrent_initializer=OrthogonalPerGate(seed=1))

    Args:
        gain: Float above 0, the singular values of every block. Defaults to `1.0`.
        gates: Integer or `"auto"`, the number of blocks side by side. `"auto"` splits the kernel
            `(units, n * units)` of a recurrent layer into n square blocks. For an input kernel,
            whose blocks are not square, pass the number; their rows or columns become orthonormal,
            whichever are fewer. Defaults to `"auto"`.
        seed: Integer, `SeedGenerator` or None. Defaults to `None`.

    Reference:

    - [Saxe et al., 2014](https://arxiv.org/abs/1312.6120)
    - [Henaff et al., 2016](https://arxiv.org/abs/1602.06662) on recurrent networks.
    """

    def __init__(self, gain: float = 1.0, gates: int | str = _gates.AUTO, seed: Seed = None):
        super().__init__(seed)
        self.gain = _checks.number("gain", gain, above=0)
        self.gates = _gates.check(gates)

    def __call__(self, shape, dtype=None):
        rows, columns, gates = _gates.split(shape, self.gates)
        tall = (max(rows, columns), min(rows, columns))
        normal = keras.random.normal((gates, *tall), dtype="float64", seed=self.seed)
        q, r = ops.qr(normal)
        # QR leaves the signs of R's diagonal to the library; fixing them makes Q uniform (Haar).
        signs = ops.sign(ops.diagonal(r, axis1=-2, axis2=-1))
        q = q * ops.expand_dims(signs, axis=-2)
        if rows < columns:
            q = ops.transpose(q, (0, 2, 1))
        return join(self.gain * q, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain, "gates": self.gates, **super().get_config()}
