"""Lossless encoding of float32 arrays in JSON types."""

import base64
from typing import Any

import numpy as np


def bins(timesteps: int, count: int) -> np.ndarray:
    """Edges, integer `(at most count + 1,)`, of bins of neighbouring timesteps.

    As in `numpy.array_split`, the first bins hold one timestep more where sizes differ.
    """
    count = min(count, timesteps)
    size, larger = divmod(timesteps, count)
    return np.cumsum([0, *[size + 1] * larger, *[size] * (count - larger)])


def encode(array: np.ndarray) -> dict[str, Any]:
    """The array as its shape and its bytes (little-endian float32) in base64."""
    array = np.ascontiguousarray(array, "<f4")
    return {"shape": list(array.shape), "base64": base64.b64encode(array.tobytes()).decode()}


def decode(encoded: dict[str, Any]) -> np.ndarray:
    """The inverse of `encode`."""
    flat = np.frombuffer(base64.b64decode(encoded["base64"]), "<f4")
    return flat.reshape(encoded["shape"])
