"""Eigenvalues and singular values of recurrent matrices, and growth along real sequences.

The guide's equation 2.4 multiplies a gradient by Wᵀ once per timestep, hence exercise 1: M^k has
the eigenvalues λ_i^k, and M^k x aligns with the dominant eigenvector. With activations and gates
the matrices differ from step to step; `lyapunov_exponents` generalizes log |λ_i|.
"""

import keras
import numpy as np

from kbptt import _checks, _gates, _linalg
from kbptt.layers.find import recurrent_layers as recurrent_layers

_GATE_NAMES = [
    (keras.layers.LSTMCell, ("i", "f", "c", "o")),
    (keras.layers.GRUCell, ("z", "r", "h")),
]


def spectral_radius(matrix: np.ndarray) -> float:
    """Largest |eigenvalue|: the asymptotic factor per step of a linear recurrence."""
    return float(np.abs(_linalg.eigenvalues(_square(matrix))).max())


def singular_values(matrix: np.ndarray) -> np.ndarray:
    """Singular values, largest first: bounds of the factor of one step on a gradient's norm."""
    return _linalg.singular_values(_square(matrix))


def eigenvalues_of_power(matrix: np.ndarray, exponent: int) -> np.ndarray:
    """Eigenvalues of M^k, computed from M^k itself, by modulus, largest first.

    By exercise 1 they are λ_i^k: compare with `np.linalg.eigvals(matrix) ** exponent`.
    """
    power = np.linalg.matrix_power(_square(matrix), exponent)
    return _by_modulus(_linalg.eigenvalues(power))


def dominant_eigenvector(matrix: np.ndarray) -> np.ndarray:
    """Unit eigenvector of the eigenvalue with the largest modulus; complex if that is complex."""
    values, vectors = np.linalg.eig(_square(matrix))
    return vectors[:, np.argmax(np.abs(values))]


def power_alignment(
    matrix: np.ndarray, steps: int, x: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """|cos| of the angle between M^k x and the dominant eigenvector, k = 0 … `steps`.

    M^k x is normalized at each step against overflow. For a symmetric M the tangent of the angle
    shrinks by at least |λ₂/λ₁| per step: the second half of exercise 1.

    Args:
        matrix: Array `(n, n)`.
        steps: Integer of at least 1.
        x: Array `(n,)` or None, the initial vector. Defaults to a random one.
        seed: Integer, for the random vector. Defaults to `0`.

    Returns:
        Array `(steps + 1,)`, 1 where aligned.
    """
    matrix = _square(matrix)
    dominant = dominant_eigenvector(matrix)
    if x is None:
        x = np.random.default_rng(seed).normal(size=len(matrix))
    x = np.asarray(x, dtype="float64")
    cosines = []
    for _ in range(_checks.positive_integer("steps", steps) + 1):
        norm = np.linalg.norm(x)
        if norm == 0:
            raise ValueError("M^k x is exactly 0: `x` lies in the null space of M^k.")
        x = x / norm
        cosines.append(abs(np.vdot(dominant, x)))
        x = matrix @ x
    return np.array(cosines)


def gate_blocks(layer: keras.Layer) -> dict[str, np.ndarray]:
    """Square blocks of a built layer's (or cell's) recurrent kernel, by gate, in float64.

    Args:
        layer: A recurrent layer or cell. In a stack of cells the names start with the cell's
            number, `0_f`. Cells without a `recurrent_kernel` of square blocks have none.

    Returns:
        Dict: `i`, `f`, `c`, `o` for an LSTM, `z`, `r`, `h` for a GRU, `""` for a single block,
        otherwise `0`, `1`, …
    """
    cell = getattr(layer, "cell", layer)
    cells = getattr(cell, "cells", None)
    if cells is not None:
        return {
            f"{number}_{name}".rstrip("_"): block
            for number, one in enumerate(cells)
            for name, block in gate_blocks(one).items()
        }
    kernel = getattr(cell, "recurrent_kernel", None)
    if kernel is None or len(kernel.shape) != 2 or kernel.shape[1] % kernel.shape[0]:
        return {}
    _, _, number = _gates.split(kernel.shape)
    names = tuple(str(i) for i in range(number)) if number > 1 else ("",)
    for kind, known in _GATE_NAMES:
        if isinstance(cell, kind) and len(known) == number:
            names = known
    kernel = keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float64"))
    return dict(zip(names, np.split(kernel, number, axis=1), strict=True))


def summarize(layer: keras.Layer) -> dict[str, float]:
    """`spectral_radius_<gate>`, `largest_` and `smallest_singular_value_<gate>` of every gate.

    For a SimpleRNN, which has one matrix, the names have no `_<gate>`. NaN for a matrix that is not
    finite.
    """
    summary = {}
    for gate, block in gate_blocks(layer).items():
        suffix = f"_{gate}" if gate else ""
        finite = np.isfinite(block).all()
        values = singular_values(block) if finite else np.array([np.nan])
        summary[f"spectral_radius{suffix}"] = spectral_radius(block) if finite else np.nan
        summary[f"largest_singular_value{suffix}"] = float(values[0])
        summary[f"smallest_singular_value{suffix}"] = float(values[-1])
    return summary


def _square(matrix: np.ndarray) -> np.ndarray:
    matrix = np.asarray(matrix, dtype="float64")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"Expected a square matrix. Received: shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise ValueError("Expected a matrix of finite numbers. Received one with NaN or Inf.")
    return matrix


def _by_modulus(values: np.ndarray) -> np.ndarray:
    return values[np.argsort(-np.abs(values))]
