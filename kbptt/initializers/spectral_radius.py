"""Blocks scaled to a spectral radius."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kbptt import _checks, _gates, _linalg
from kbptt._typing import Initializer
from kbptt.initializers.base import check_seed, join


@keras.saving.register_keras_serializable(package="kbptt")
class SpectralRadius(keras.initializers.Initializer):
    """Scales each gate's block of an initializer's kernel to an exact spectral radius.

    The largest |eigenvalue| of every block becomes `radius`: below 1 the linear part of the
    recurrence forgets at that rate per step, above 1 it explodes (the guide's equation 2.4).

    Example:

    >>> initializer = SpectralRadius(0.95, "random_normal")
    >>> layer = keras.layers.SimpleRNN(50, recurrent_initializer=initializer)

    Args:
        radius: Float above 0. Defaults to `1.0`.
        initializer: Initializer or its identifier, drawn for the whole kernel and then scaled.
            With an orthogonal one (the default) *all* eigenvalues and singular values get this
            modulus. Defaults to `"orthogonal_per_gate"`.
        gates: Integer or `"auto"`, as in `OrthogonalPerGate`; the blocks must be square.
            Defaults to `"auto"`.
        seed: Integer or None, the seed of an initializer given by name. Defaults to `None`.
    """

    def __init__(
        self,
        radius: float = 1.0,
        initializer: Initializer = "orthogonal_per_gate",
        gates: int | str = _gates.AUTO,
        seed: int | None = None,
    ):
        from kbptt.initializers import get  # which knows this class

        self.radius = _checks.number("radius", radius, above=0)
        self.gates = _gates.check(gates)
        self.seed = check_seed(seed)
        if isinstance(initializer, str) and seed is not None:
            known = get(initializer)
            config = known.get_config()
            if "seed" in config:  # not of those that draw nothing, such as the identity
                initializer = type(known).from_config({**config, "seed": seed})
        self.initializer = get(initializer)
        if self.initializer is None:
            raise ValueError(
                "Invalid value for argument `initializer`. Expected an initializer or its name. "
                "Received: initializer=None."
            )

    def __call__(self, shape, dtype=None):
        rows, columns, gates = _gates.split(shape, self.gates, square=True)
        kernel = ops.convert_to_numpy(self.initializer(shape, dtype="float64"))
        blocks = kernel.reshape(rows, gates, columns).transpose(1, 0, 2)
        radii = np.abs(_linalg.eigenvalues(blocks)).max(axis=-1)
        if not (radii > 0).all():
            raise ValueError(
                "SpectralRadius cannot scale a block whose spectral radius is 0. Received: "
                f"initializer={self.initializer!r}. Use a different one."
            )
        return join(ops.convert_to_tensor(blocks * (self.radius / radii)[:, None, None]), dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            "radius": self.radius,
            "initializer": keras.initializers.serialize(self.initializer),
            "gates": self.gates,
            "seed": self.seed,
        }
