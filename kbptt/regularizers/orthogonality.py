"""A soft constraint: recurrent matrices that stay near the orthogonal ones."""

from typing import Any

import keras
from keras import ops

from kbptt import _checks, _gates


@keras.saving.register_keras_serializable(package="kbptt")
class Orthogonality(keras.regularizers.Regularizer):
    """factor · Σ_gates ‖WᵀW − I‖_F², for the recurrent kernel of any Keras recurrent layer.

    (`keras.regularizers.OrthogonalRegularizer` penalizes only the angles between rows of the whole
    kernel. It leaves their norms free, so gradients can still vanish and explode.)

    Example:

    >>> layer = keras.layers.LSTM(64, recurrent_regularizer=Orthogonality(0.01))

    Args:
        factor: Float above 0. Defaults to `0.01`.
        gates: Integer or `"auto"`, the number of blocks side by side. `"auto"` splits the kernel
            `(units, n * units)` into n square blocks. If the number is given and blocks are not
            square, WᵀW or WWᵀ is penalized, whichever is smaller. Defaults to `"auto"`.

    Reference:

    - [Vorontsov et al., 2017](https://arxiv.org/abs/1702.00071)
    """

    def __init__(self, factor: float = 0.01, gates: int | str = _gates.AUTO):
        self.factor = _checks.number("factor", factor, above=0)
        self.gates = _gates.check(gates)

    def __call__(self, x: Any) -> Any:
        rows, columns, gates = _gates.split(x.shape, self.gates)
        dtype = keras.backend.standardize_dtype(x.dtype)
        kernel = ops.cast(x, "float64" if dtype == "float64" else "float32")
        blocks = ops.transpose(ops.reshape(kernel, (rows, gates, columns)), (1, 0, 2))
        transposed = ops.transpose(blocks, (0, 2, 1))
        product = transposed @ blocks if columns <= rows else blocks @ transposed
        return self.factor * ops.sum(
            ops.square(product - ops.eye(min(rows, columns), dtype=product.dtype))
        )

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor, "gates": self.gates}
