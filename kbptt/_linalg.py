"""Eigenvalues, singular values and exponentials on one thread.

LAPACK's nonsymmetric eigenvalue solver gains nothing from BLAS threads at the size of a recurrent
kernel, and where other processes keep the cores busy they wait for one another: 512 units took 0.5
seconds on one thread and 5 to 14 on two, beside other trials.
"""

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits


def eigenvalues(matrices: np.ndarray) -> np.ndarray:
    """`np.linalg.eigvals` of `(..., n, n)`."""
    with threadpool_limits(1, user_api="blas"):
        return np.linalg.eigvals(matrices)


def singular_values(matrices: np.ndarray) -> np.ndarray:
    """Singular values of `(..., n, n)`, largest first."""
    with threadpool_limits(1, user_api="blas"):
        return np.linalg.svd(matrices, compute_uv=False)


def exponential(matrix: np.ndarray) -> np.ndarray:
    """`scipy.linalg.expm` of `(n, n)`."""
    with threadpool_limits(1, user_api="blas"):
        return scipy.linalg.expm(matrix)
