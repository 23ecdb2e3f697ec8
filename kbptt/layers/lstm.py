"""LSTM with truncated backpropagation through time."""

from typing import Any

import keras

from kbptt.engine.normalized import NormalizedLSTMStep
from kbptt.engine.steps import LSTMStep
from kbptt.layers.projected import ProjectedLayer


@keras.saving.register_keras_serializable(package="kbptt")
class LSTM(ProjectedLayer, keras.layers.LSTM):
    """`keras.layers.LSTM` with truncated backpropagation through time.

    Arguments, weights (names, shapes and order), outputs, masks and states are those of
    `keras.layers.LSTM`; ``use_cudnn`` is ignored. Only how the gradient is computed, and how
    far back it flows, differs.

    Example:

    >>> layer = kbptt.LSTM(64, truncation=32, return_sequences=True)
    >>> layer(np.zeros((8, 256, 16), "float32")).shape
    TensorShape([8, 256, 64])

    Args:
        units: Positive integer. Width of the state.
        truncation: None for full BPTT, an integer for chunks of that many timesteps, or a
            `kbptt.truncation.Truncation`. Defaults to `None`.
        normalization: None, or a `kbptt.normalization` identifier such as `"layer"`. Defaults to
            `None`.
        gradient_regularizer: None, or a `kbptt.regularizers` identifier such as
            `"vanishing_gradient"` (Pascanu's Ω). Defaults to `None`.
        gradient_clip: None, or a positive float that bounds every element of the gradient carried
            from one timestep to the one before (Graves, 2013). Defaults to `None`.
        *args: Further positional arguments of `keras.layers.LSTM`.
        **kwargs: Further keyword arguments of `keras.layers.LSTM`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    cell_name = "LSTM"

    def __init__(
        self,
        units: int,
        *args: Any,
        truncation: Any = None,
        normalization: Any = None,
        gradient_regularizer: Any = None,
        gradient_clip: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, *args, **kwargs)
        self._set_up(truncation, gradient_clip, normalization, gradient_regularizer)

    def _projected_step(self):
        names = self._activation_names()
        if names is None:
            return None
        n = self.normalization
        if n is not None:
            return NormalizedLSTMStep(*names, n.epsilon, n.carry_normalized)
        return LSTMStep(*names)

    def _build_normalization(self):
        super()._build_normalization()
        shape = (self.units,)
        self.state_gain = self.add_weight(shape=shape, name="state_gain", initializer="ones")
        self.state_bias = self.add_weight(shape=shape, name="state_bias", initializer="zeros")

    def _native_weights(self):
        weights = super()._native_weights()
        if self.normalization is None:
            return weights
        return weights._replace(state_gain=self.state_gain, state_bias=self.state_bias)

    def _recurrent_weights(self):
        if self.normalization is None:
            return super()._recurrent_weights()
        kernel = self._centred_recurrent_kernel()
        return kernel, self.recurrent_gain, self.state_gain, self.state_bias
