"""Initializers for recurrent kernels and biases, for any Keras layer.

Imported eagerly: `keras.models.load_model` finds a class only once its module is imported.
"""

from typing import Any

import keras

from kbptt._identifiers import unknown
from kbptt._typing import Initializer
from kbptt.initializers.base import SeededInitializer
from kbptt.initializers.gate_biases import Chrono, UniformGate
from kbptt.initializers.identity import Identity, irnn
from kbptt.initializers.legendre import Legendre, LegendreInput
from kbptt.initializers.orthogonal import OrthogonalPerGate
from kbptt.initializers.rotations import Cayley, Henaff
from kbptt.initializers.spectral_radius import SpectralRadius

__all__ = [
    "Cayley",
    "Chrono",
    "Henaff",
    "Identity",
    "Legendre",
    "LegendreInput",
    "OrthogonalPerGate",
    "SeededInitializer",
    "SpectralRadius",
    "UniformGate",
    "get",
    "irnn",
]

NAMES = {
    "orthogonal_per_gate": OrthogonalPerGate,
    "spectral_radius": SpectralRadius,
    "identity": Identity,
    "henaff": Henaff,
    "cayley": Cayley,
    "chrono": Chrono,
    "uniform_gate": UniformGate,
    "legendre": Legendre,
    "legendre_input": LegendreInput,
}
_NEED_A_TIME_SCALE = {"chrono": "T_max", "legendre": "theta", "legendre_input": "theta"}


def get(identifier: Initializer) -> Any:
    """Returns the initializer for a snake_case name, a config, an object, or None.

    Names are those of this module (`"identity"` is per gate here) and then those of
    `keras.initializers.get`. In the arguments of layers, Keras's names come first: there
    `"identity"` is Keras's.

    Raises:
        ValueError: If the identifier is none of these.
    """
    if isinstance(identifier, str) and identifier in NAMES:
        make = NAMES[identifier]
        if identifier in _NEED_A_TIME_SCALE:
            raise ValueError(
                f"{identifier!r} needs a time scale: pass kbptt.initializers."
                f"{make.__name__}({_NEED_A_TIME_SCALE[identifier]})."
            )
        return make()
    try:
        return keras.initializers.get(identifier)
    except (ValueError, TypeError) as error:
        raise unknown("initializer", identifier, NAMES, keras.initializers) from error
