"""Regularizers that keep gradients through time alive: on kernels, states and gradients.

Imported eagerly: `keras.models.load_model` knows a class only after its module ran.
"""

from typing import Any

import keras

from kbptt.regularizers._sequence import SequenceRegularizer
from kbptt.regularizers.activation import ActivationRegularization
from kbptt.regularizers.norm_stabilizer import NormStabilizer
from kbptt.regularizers.orthogonality import Orthogonality
from kbptt.regularizers.sequence_regularization import SequenceRegularization
from kbptt.regularizers.vanishing_gradient import VanishingGradient

__all__ = [
    "ActivationRegularization",
    "NormStabilizer",
    "Orthogonality",
    "SequenceRegularization",
    "SequenceRegularizer",
    "VanishingGradient",
    "get",
]

NAMES = {
    "orthogonality": Orthogonality,
    "norm_stabilizer": NormStabilizer,
    "ar": lambda: ActivationRegularization(beta=0.0),
    "tar": lambda: ActivationRegularization(alpha=0.0),
    "ar_tar": ActivationRegularization,
}


def get(identifier: Any) -> Any:
    """Returns the regularizer for a snake_case name, a config, an object, or None.

    Names are those of this module and then those of `keras.regularizers.get`.
    """
    if isinstance(identifier, str) and identifier in NAMES:
        return NAMES[identifier]()
    try:
        return keras.regularizers.get(identifier)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "Invalid regularizer. Expected one of "
            + ", ".join(repr(name) for name in NAMES)
            + ", the name or config of a Keras regularizer, or a callable. "
            f"Received: {identifier!r}."
        ) from error
