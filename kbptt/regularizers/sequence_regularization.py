"""A layer that adds the penalty of a sequence regularizer and passes its input through."""

from typing import Any, Unpack

import keras

from kbptt._typing import Config, LayerOptions
from kbptt.regularizers import _sequence


@keras.saving.register_keras_serializable(package="kbptt")
class SequenceRegularization(keras.layers.Layer):
    """Adds a sequence regularizer's penalty on its input, taking the mask into account.

    `activity_regularizer=` never sees the mask, and treats returned states as outputs. This layer
    takes only the sequence and excludes padded steps from the mean.

    Example:

    >>> x = keras.layers.LSTM(64, return_sequences=True)(x)
    >>> x = SequenceRegularization("norm_stabilizer")(x)

    Args:
        regularizer: A `SequenceRegularizer` (`NormStabilizer`, `ActivationRegularization`) or its
            identifier.
        **kwargs: Base layer keyword arguments, such as `name`.

    Call arguments:
        inputs: Tensor `(batch, timesteps, units)`.
        mask: Boolean tensor `(batch, timesteps)`, passed on by Keras. Defaults to `None`.
    """

    def __init__(
        self,
        regularizer: str | Config | _sequence.SequenceRegularizer,
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**kwargs)
        from kbptt import regularizers  # not at the top: the package imports this module

        self.regularizer = regularizers.get(regularizer)
        if not isinstance(self.regularizer, _sequence.SequenceRegularizer):
            raise ValueError(
                "Invalid value for argument `regularizer`. Expected a NormStabilizer, an "
                f"ActivationRegularization or their name. Received: regularizer={regularizer!r}."
            )
        self.supports_masking = True

    def build(self, input_shape):
        self.built = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        self.add_loss(self.regularizer.penalty(inputs, mask))
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict[str, Any]:
        serialized = keras.regularizers.serialize(self.regularizer)
        return {**super().get_config(), "regularizer": serialized}
