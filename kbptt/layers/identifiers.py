"""Names of kbptt's initializers, regularizers and constraints in the arguments of its layers."""

import random
from typing import Any

import keras

from kbptt import constraints, initializers, regularizers

# By the last word of an argument: what Keras understands, and what kbptt does.
_GET = {
    "initializer": (keras.initializers.get, initializers.get),
    "regularizer": (keras.regularizers.get, regularizers.get),
    "constraint": (keras.constraints.get, constraints.get),
}


def resolved(arguments: dict[str, Any]) -> dict[str, Any]:
    """`arguments` of a layer, with names that only kbptt defines replaced by objects.

    A name of Keras, or one that a user registered with it, keeps its meaning.

    Raises:
        ValueError: If a name is known to neither, or needs an argument.
    """
    return {name: resolve(name, value) for name, value in arguments.items()}


def resolve(argument: str, value: Any) -> Any:
    """The `value` of one argument, as in `resolved`."""
    kind = _GET.get(argument.rpartition("_")[2])
    if kind is None or not isinstance(value, str):
        return value
    of_keras, own = kind
    state = random.getstate()  # of which an initializer takes a seed
    try:
        of_keras(value)
    except (ValueError, TypeError):
        pass
    else:
        return value
    finally:
        random.setstate(state)
    try:
        return own(value)
    except ValueError as error:
        raise ValueError(f"Invalid value for argument `{argument}`. {error}") from error
