"""GRU with truncated backpropagation through time."""

from typing import Any

import keras
from keras import ops

from kbptt.engine.normalized import NormalizedGRUStep
from kbptt.engine.steps import GRUStep
from kbptt.layers.projected import ProjectedLayer


@keras.saving.register_keras_serializable(package="kbptt")
class GRU(ProjectedLayer, keras.layers.GRU):
    """`keras.layers.GRU` with truncated backpropagation through time.

    Arguments, weights (names, shapes and order), outputs, masks and states are those of
    `keras.layers.GRU`; ``use_cudnn`` is ignored. With ``reset_after=False`` the reset gate stands
    inside the recurrent product and the layer runs the engine's path for any cell, which is slower.

    Args:
        units: Positive integer. Width of the state.
        truncation: See `kbptt.LSTM`.
        normalization: See `kbptt.LSTM`.
        gradient_regularizer: See `kbptt.LSTM`.
        gradient_clip: See `kbptt.LSTM`.
        *args: Further positional arguments of `keras.layers.GRU`.
        **kwargs: Further keyword arguments of `keras.layers.GRU`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    cell_name = "GRU"

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
        if names is None or not self.reset_after:
            return None
        if self.normalization is not None:
            return NormalizedGRUStep(*names, self.normalization.epsilon)
        return GRUStep(*names)

    def _groups(self):
        return 2 * self.units, self.units

    def _projection_bias(self):
        """The input bias, and the recurrent bias of z and r, which adds to it."""
        if self.cell.bias is None:
            return None
        inputs, recurrent = ops.unstack(self.cell.bias, 2)
        units = self.units
        return inputs + ops.concatenate([recurrent[: 2 * units], ops.zeros_like(inputs[:units])])

    def _native_weights(self):
        weights = super()._native_weights()
        if self.cell.bias is None:
            return weights
        return weights._replace(recurrent_bias=self.cell.bias[1, 2 * self.units :])

    def _recurrent_weights(self):
        units = self.units
        if self.cell.bias is None:
            bias = ops.zeros((units,), self.cell.compute_dtype)
        else:
            bias = self.cell.bias[1, 2 * units :]
        if self.normalization is None:
            return self.cell.recurrent_kernel, bias
        return self._centred_recurrent_kernel(), bias, self.recurrent_gain
