"""Regularizers that keep gradients through time alive: on kernels, states and gradients.

Imported eagerly: `keras.models.load_model` finds a class only once its module is imported.
"""

from typing import Any

import keras

from kbptt._identifiers import unknown
from kbptt._typing import Regularizer
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
    "vanishing_gradient": VanishingGradient,
}
_CLASSES = {
    one.__name__: one
    for one in (ActivationRegularization, NormStabilizer, Orthogonality, VanishingGradient)
}


def get(identifier: Regularizer) -> Any:
    """Returns the regularizer for a name, a config, an object, or None.

    Names are the snake_case names and the classes of this module, then those of
    `keras.regularizers.get`. A config is what `keras.saving.serialize_keras_object` returns, or
    only its `class_name` and `config`.

    Raises:
        ValueError: If the identifier is none of these, or an argument in a config is wrong.
    """
    make = {**_CLASSES, **NAMES}.get(identifier) if isinstance(identifier, str) else None
    if make is not None:
        return make()
    if isinstance(identifier, dict):
        # Keras would hide which argument is wrong, and wants the package before the class.
        name = identifier.get("registered_name") or identifier.get("class_name")
        own = _CLASSES.get(str(name).removeprefix("kbptt>"))
        if own is not None:
            return own.from_config(identifier.get("config", {}))
    try:
        return keras.regularizers.get(identifier)
    except (ValueError, TypeError) as error:
        raise unknown("regularizer", identifier, NAMES, keras.regularizers) from error
