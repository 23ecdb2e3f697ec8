"""Types in public signatures: what Keras and kbptt accept as an identifier.

Python evaluates them, so `typing.get_type_hints` works on every public class.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, TypedDict

import keras
from numpy.typing import ArrayLike

Config: TypeAlias = Mapping[str, Any]
"""What `keras.saving.serialize_keras_object` returns."""

# Identifiers of Keras: a name, a configuration, an object, a class or a function.
Activation: TypeAlias = str | Config | Callable[..., Any] | None
Initializer: TypeAlias = str | Config | keras.initializers.Initializer | Callable[..., Any] | None
Regularizer: TypeAlias = str | Config | keras.regularizers.Regularizer | Callable[..., Any] | None
Constraint: TypeAlias = str | Config | keras.constraints.Constraint | Callable[..., Any] | None
Seed: TypeAlias = int | keras.random.SeedGenerator | None


# What `model.fit` takes: an array, or one by name for each input or output.
Arrays: TypeAlias = ArrayLike | Mapping[str, ArrayLike]
Labelled: TypeAlias = tuple[Arrays, Arrays] | tuple[Arrays, Arrays, Arrays | None]


class Cell(Protocol):
    """An RNN cell of Keras or of the user."""

    @property
    def state_size(self) -> Any: ...

    @property
    def call(self) -> Callable[..., Any]: ...


class LayerOptions(TypedDict, total=False):
    """Keyword arguments of `keras.layers.Layer`."""

    name: str | None
    dtype: str | Config | keras.DTypePolicy | None
    trainable: bool
    autocast: bool
    input_shape: tuple[int | None, ...]
    input_dim: int


class RNNOptions(LayerOptions, total=False):
    """Further keyword arguments of `keras.layers.RNN`."""

    activity_regularizer: Regularizer


class SimpleRNNOptions(LayerOptions, total=False):
    """Further keyword arguments of `keras.layers.SimpleRNN`."""

    zero_output_for_mask: bool


class GatedOptions(SimpleRNNOptions, total=False):
    """Further keyword arguments of `keras.layers.GRU` and `keras.layers.LSTM`."""

    implementation: int
