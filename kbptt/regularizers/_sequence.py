"""What the regularizers of a sequence of states share: shapes, masks, and Keras' division."""

from typing import Any

import keras
from keras import ops


class SequenceRegularizer(keras.regularizers.Regularizer):
    """Base class: a penalty on the states h_1 … h_T, `(batch, timesteps, units)`.

    As `activity_regularizer=` of a recurrent layer with `return_sequences=True`, it receives the
    outputs without their mask. Wrap it in `SequenceRegularization` to exclude padding, or if the
    layer also returns its state.
    """

    def penalty(self, h: Any, mask: Any = None) -> Any:
        """The paper's penalty, a scalar: means over the batch.

        Args:
            h: Tensor `(batch, timesteps, units)`.
            mask: Boolean tensor `(batch, timesteps)` or None. Steps where it is False, and
                differences across them, are excluded. Defaults to `None`.
        """
        raise NotImplementedError

    def __call__(self, x: Any, mask: Any = None) -> Any:
        """The penalty times the batch size, because Keras divides activity penalties by it."""
        penalty = self.penalty(x, mask)
        return penalty * ops.cast(ops.shape(x)[0], penalty.dtype)


def prepare(h: Any, mask: Any = None) -> tuple[Any, Any]:
    """`h` in at least float32 with masked steps zeroed, and weights `(batch, timesteps)`."""
    h = ops.convert_to_tensor(h)
    if len(h.shape) != 3:
        raise ValueError(
            "Expected the states of every timestep, (batch, timesteps, units). Received: shape "
            f"{tuple(h.shape)}. Use return_sequences=True; if the layer also returns its state, "
            "apply a kbptt.regularizers.SequenceRegularization layer to the sequence instead."
        )
    dtype = keras.backend.standardize_dtype(h.dtype)
    dtype = "float64" if dtype == "float64" else "float32"
    h = ops.cast(h, dtype)
    if mask is None:
        return h, ops.ones(ops.shape(h)[:2], dtype)
    mask = ops.cast(mask, "bool")
    # where, not a product: 0 * NaN of a padded step would be NaN.
    return ops.where(mask[..., None], h, 0.0), ops.cast(mask, dtype)


def pairs(weights: Any) -> Any:
    """Weights of the steps (t − 1, t), `(batch, timesteps - 1)`: both must count."""
    return weights[:, 1:] * weights[:, :-1]
