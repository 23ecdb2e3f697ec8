"""What initializers share: seeds, and kernels made of one block for each gate.

The recurrent kernel of a gated cell is a row of square blocks: `(units, 4 * units)` for an LSTM
(gates i, f, c, o), `(units, 3 * units)` for a GRU (z, r, h), `(units, units)` for a SimpleRNN. The
papers' "recurrent matrix" is each of these blocks, so these initializers work block by block. They
compute in float64 and cast at the end, half precision included.
"""

import random
from typing import Any

import keras
from keras import ops

from kbptt._typing import Seed


class SeededInitializer(keras.initializers.Initializer):
    """Base class: a seed that behaves as in Keras' own random initializers.

    Args:
        seed: Integer, `keras.random.SeedGenerator` or None. An integer gives the same values at
            every call, a `SeedGenerator` different ones. None draws a seed from Python's `random`,
            so `keras.utils.set_random_seed` makes it reproducible. Defaults to `None`.
    """

    def __init__(self, seed: Seed = None):
        if isinstance(seed, dict):
            seed = keras.saving.deserialize_keras_object(seed)
        if not isinstance(seed, keras.random.SeedGenerator):
            check_seed(seed, "an integer, a keras.random.SeedGenerator or None")
        self._given_seed = seed
        self.seed: int | keras.random.SeedGenerator = (
            random.randint(1, 10**9) if seed is None else seed
        )

    def get_config(self) -> dict[str, Any]:
        return {"seed": keras.saving.serialize_keras_object(self._given_seed)}


def check_seed(seed: Any, expected: str = "an integer or None") -> int | None:
    """Returns `seed` if it is an integer or None, or raises `ValueError`."""
    if seed is None or (isinstance(seed, int) and not isinstance(seed, bool)):
        return seed
    raise ValueError(
        f"Invalid value for argument `seed`. Expected {expected}. "
        f"Received: seed={seed!r} (of type {type(seed).__name__})."
    )


def join(blocks: Any, dtype: Any) -> Any:
    """`(gates, rows, columns)` side by side as `(rows, gates * columns)`."""
    gates, rows, columns = blocks.shape
    return cast(ops.reshape(ops.transpose(blocks, (1, 0, 2)), (rows, gates * columns)), dtype)


def cast(values: Any, dtype: Any) -> Any:
    """`values` in `dtype`; None is Keras's default."""
    return ops.cast(values, keras.backend.standardize_dtype(dtype))
