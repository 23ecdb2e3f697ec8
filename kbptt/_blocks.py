"""A recurrent kernel as a batch of its gates' blocks, and their singular values."""

from collections.abc import Callable
from typing import Any

from keras import ops

# Below it the smallest of a block's singular values, as a fraction of the largest, is taken from
# the singular value decomposition: the eigenvalues of WᵀW know it to 1e-16 of the largest squared.
_NEARLY_SINGULAR = 1e-5


def apart(kernel: Any, gates: int) -> Any:
    """`(rows, gates * columns)` as `(gates, rows, columns)`, in float64.

    Errors of a product of many matrices add up, and a kernel is small beside what it is applied to.
    """
    rows, columns = kernel.shape
    kernel = ops.reshape(ops.cast(kernel, "float64"), (rows, gates, columns // gates))
    return ops.transpose(kernel, (1, 0, 2))


def joined(blocks: Any, dtype: str) -> Any:
    """`(gates, rows, columns)` as `(rows, gates * columns)` of the dtype."""
    gates, rows, columns = blocks.shape
    kernel = ops.reshape(ops.transpose(blocks, (1, 0, 2)), (rows, gates * columns))
    return ops.cast(kernel, dtype)


def transposed(blocks: Any) -> Any:
    """The transpose of each block."""
    return ops.transpose(blocks, (0, 2, 1))


def with_singular_values(blocks: Any, function: Callable[[Any], Any]) -> Any:
    """UΣVᵀ as U·function(Σ)·Vᵀ, of each block whose singular values change.

    Args:
        blocks: `(gates, rows, columns)`, float64, finite.
        function: Of the singular values `(gates, n)`, n the smaller of rows and columns.
    """
    if blocks.shape[1] < blocks.shape[2]:
        return transposed(with_singular_values(transposed(blocks), function))
    squares, v = ops.eigh(transposed(blocks) @ blocks)

    def from_eigenvalues() -> Any:
        # In a fraction of the time of the decomposition itself.
        values = ops.sqrt(squares)
        factors = function(values) / values
        changed = blocks @ (v * factors[:, None]) @ transposed(v)
        return ops.where(ops.all(factors == 1, axis=-1)[:, None, None], blocks, changed)

    def from_svd() -> Any:
        u, values, vt = ops.svd(blocks, full_matrices=False)
        return (u * function(values)[:, None]) @ vt

    smallest, largest = ops.min(squares, axis=-1), ops.max(squares, axis=-1)
    well = ops.all(smallest > _NEARLY_SINGULAR**2 * largest)
    return ops.cond(well, from_eigenvalues, from_svd)


def polar(blocks: Any) -> Any:
    """UVᵀ of each block UΣVᵀ: the nearest matrix with orthonormal rows or columns."""
    q = with_singular_values(blocks, ops.ones_like)
    # One step of Newton and Schulz squares what is missing, which is much where XLA decomposes.
    return q @ (3 * ops.eye(q.shape[-1], dtype=q.dtype) - transposed(q) @ q) / 2


def where_finite(function: Callable[[Any], Any], blocks: Any) -> Any:
    """`function` of each block that is finite; the others stay as they are.

    LAPACK raises an error, or does not return, on NaN.
    """
    finite = ops.all(ops.isfinite(blocks), axis=(1, 2), keepdims=True)
    safe = ops.where(finite, blocks, ops.eye(*blocks.shape[1:], dtype=blocks.dtype))
    return ops.where(finite, function(safe), blocks)


def distance_from_orthogonal(blocks: Any) -> Any:
    """‖WᵀW − I‖_F of each block `(n, n)`."""
    gram = transposed(blocks) @ blocks
    return ops.sqrt(ops.sum((gram - ops.eye(gram.shape[-1], dtype=gram.dtype)) ** 2, (1, 2)))
