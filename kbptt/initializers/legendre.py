"""Legendre memories (LMU, HiPPO) as initial kernels of a linear recurrence."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kbptt import _checks, _gates, _linalg
from kbptt.initializers.base import cast

MEASURES = ("legt", "legs")
DISCRETIZATIONS = ("zoh", "bilinear")


def system(order: int, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """A `(order, order)` and B `(order,)` of θ·dm/dt = A·m + B·u, in orthonormal coordinates.

    Gu et al., 2020, equations 1 and 2; in LMU the state is this one in other units.
    """
    n = np.arange(order)
    below = n[:, None] >= n[None, :]
    signs = (-1.0) ** (n[:, None] - n[None, :])
    scale = np.sqrt(2.0 * n + 1.0)
    if measure == "legt":
        a = -np.where(below, 1.0, signs)
    else:
        a = -np.where(below, 1.0, 0.0)
    a = scale[:, None] * a * scale[None, :]
    if measure == "legs":
        a[n, n] = -(n + 1.0)
    return a, scale


def discretized(
    order: int, theta: float, measure: str, discretization: str
) -> tuple[np.ndarray, np.ndarray]:
    """Ā and B̄ of m_t = Ā·m_{t−1} + B̄·u_t, for a timestep of 1."""
    a, b = system(order, measure)
    a, b = a / theta, b / theta
    if discretization == "zoh":
        # exp of [[A, B], [0, 0]] holds both: no inverse of A, which is badly conditioned.
        both = np.zeros((order + 1, order + 1))
        both[:-1, :-1], both[:-1, -1] = a, b
        both = _linalg.exponential(both)
        return both[:-1, :-1], both[:-1, -1]
    eye = np.eye(order)
    solved = np.linalg.solve(eye - a / 2, np.concatenate([eye + a / 2, b[:, None]], axis=1))
    return solved[:, :-1], solved[:, -1]


class _Legendre(keras.initializers.Initializer):
    def __init__(self, theta: float, measure: str = "legt", discretization: str = "zoh"):
        self.theta = _checks.number("theta", theta, above=0)
        self.measure = _checks.one_of("measure", measure, MEASURES)
        self.discretization = _checks.one_of("discretization", discretization, DISCRETIZATIONS)

    def system(self, order: int) -> tuple[np.ndarray, np.ndarray]:
        """Ā `(order, order)` and B̄ `(order,)` in float64, of m_t = Ā·m_{t−1} + B̄·u_t."""
        return discretized(order, self.theta, self.measure, self.discretization)

    def get_config(self) -> dict[str, Any]:
        return {
            "theta": self.theta,
            "measure": self.measure,
            "discretization": self.discretization,
        }


@keras.saving.register_keras_serializable(package="kbptt")
class Legendre(_Legendre):
    """Recurrent kernel of a Legendre memory: the state holds the last `theta` inputs (LMU, HiPPO).

    In a linear recurrence, with `LegendreInput` as the kernel, the state is the input's history in
    orthonormal Legendre polynomials: with `measure="legt"` over a window that slides, from which
    u(t + ½ − d) ≈ Σ_n √(2n + 1) P_n(1 − 2d/θ) m_n for 1 ≤ d ≤ θ (½ since an input is held for a
    step); with `"legs"` over all of the past, weighted by e^{−s/θ}, s steps ago. (LegS with a
    window that grows with t is a recurrence whose kernel changes from step to step, which no
    initial value can produce.) Both are contractions: no singular value of the kernel is above 1,
    and if the order is small compared with `theta`, all but a few are near 1.

    For a recurrent kernel `(units, units)`: a `SimpleRNN`, or a cell with a linear state. Kernels
    of gated cells, `(units, n * units)`, raise an error, because the input of a gate is not a
    state. A memory needs `activation="linear"`; with a different activation it is only
    approximately a memory, where the activation is close to the identity.

    Example:

    >>> memory = kbptt.SimpleRNN(
    ...     32, activation="linear", use_bias=False, return_sequences=True,
    ...     kernel_initializer=LegendreInput(100), recurrent_initializer=Legendre(100),
    ... )

    Args:
        theta: Positive float, in timesteps: the length of the window, for `"legs"` the time
            constant. The order of the polynomials should be small in comparison.
        measure: `"legt"` or `"legs"`. Defaults to `"legt"`.
        discretization: `"zoh"`, exact if the input is constant within a timestep, or `"bilinear"`.
            Defaults to `"zoh"`.
        memories: Positive integer, the number of inputs, each with its own memory of
            `units / memories` units. Defaults to `1`.

    Raises:
        ValueError: If the kernel is not square, or `memories` does not divide its units.

    Reference:

    - [Voelker, Kajić & Eliasmith, 2019](https://papers.nips.cc/paper/9689), LMU
    - [Gu, Dao, Ermon, Rudra & Ré, 2020](https://arxiv.org/abs/2008.07669), HiPPO
    """

    def __init__(
        self,
        theta: float,
        measure: str = "legt",
        discretization: str = "zoh",
        memories: int = 1,
    ):
        super().__init__(theta, measure, discretization)
        self.memories = _checks.positive_integer("memories", memories)

    def __call__(self, shape, dtype=None):
        units, _, gates = _gates.split(shape, square=True)
        if gates > 1 or units % self.memories:
            raise ValueError(
                "Legendre expected the recurrent kernel of a SimpleRNN, (units, units), with units "
                f"a multiple of memories={self.memories}. Received: shape={tuple(shape)}. The "
                "state of a gated cell is not a linear memory."
            )
        transition, _ = self.system(units // self.memories)
        # Keras multiplies from the left: h_t = x_t·W + h_{t−1}·U.
        kernel = np.kron(np.eye(self.memories), transition.T)
        return cast(ops.convert_to_tensor(kernel), dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "memories": self.memories}


@keras.saving.register_keras_serializable(package="kbptt")
class LegendreInput(_Legendre):
    """Input kernel to go with `Legendre`: `(inputs, units)`, one memory per input.

    With several inputs use `Legendre(..., memories=inputs)`.

    Args:
        theta: See `Legendre`.
        measure: See `Legendre`. Defaults to `"legt"`.
        discretization: See `Legendre`. Defaults to `"zoh"`.

    Raises:
        ValueError: If the number of inputs does not divide the units.
    """

    def __call__(self, shape, dtype=None):
        if len(shape) != 2 or not shape[0] or shape[1] % shape[0]:
            raise ValueError(
                "LegendreInput expected an input kernel (inputs, units) with units a multiple of "
                f"inputs. Received: shape={tuple(shape)}."
            )
        _, inputs = self.system(shape[1] // shape[0])
        kernel = np.kron(np.eye(shape[0]), inputs[None])
        return cast(ops.convert_to_tensor(kernel), dtype)
