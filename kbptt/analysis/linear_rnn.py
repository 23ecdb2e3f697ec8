"""The guide's section 2 in NumPy float64: BPTT for a linear RNN, one function per equation.

The model has no bias and the identity as activation::

    h_t = W_hx x_t + W_hh h_{t-1}        o_t = W_qh h_t        L = 1/T Σ_t l(o_t, y_t)

Shapes: `W_hx` `(hidden, inputs)`, `W_hh` `(hidden, hidden)`, `W_qh` `(outputs, hidden)`;
sequences are `(timesteps, features)` or `(batch, timesteps, features)`, and with a batch L is the
mean over its sequences. Row t of an array belongs to the guide's step t + 1: row 0 is the oldest.

An oracle for the layers: plain loops in float64, to read alongside the guide. Keras multiplies from
the right (`x @ kernel`), so `kernel = W_hx.T` and `recurrent_kernel = W_hh.T`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kbptt.truncation import Windowed, windows

# l(o, y) -> (l of every step, shape (..., timesteps), and ∂l/∂o, shape of o)
StepLoss = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Gradients:
    """The loss, its gradients, and the cached ∂L/∂h_t."""

    loss: float
    W_hx: np.ndarray
    W_hh: np.ndarray
    W_qh: np.ndarray
    h: np.ndarray  # ∂L/∂h_t, (..., timesteps, hidden)
    x: np.ndarray  # ∂L/∂x_t, (..., timesteps, inputs)
    h_0: np.ndarray  # ∂L/∂h_0, (..., hidden)


def squared_error(o: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """l(o, y) = ½‖o − y‖² and ∂l/∂o = o − y."""
    return 0.5 * np.sum((o - y) ** 2, axis=-1), o - y


def run(
    x: np.ndarray, W_hx: np.ndarray, W_hh: np.ndarray, h_0: np.ndarray | None = None
) -> np.ndarray:
    """The states h_1 … h_T: `(..., timesteps, hidden)`.

    Args:
        x: Array `(timesteps, inputs)` or `(batch, timesteps, inputs)`.
        W_hx: Array `(hidden, inputs)`.
        W_hh: Array `(hidden, hidden)`.
        h_0: Array `(hidden,)` or `(batch, hidden)`, the initial state. Defaults to zeros.
    """
    x = _float64("x", x)
    _check_weights(x, W_hx, W_hh)
    h = np.zeros((*x.shape[:-1], W_hh.shape[0]))
    state = _initial_state(h, h_0)
    for t in range(x.shape[-2]):
        state = x[..., t, :] @ W_hx.T + state @ W_hh.T
        h[..., t, :] = state
    return h


def output(h: np.ndarray, W_qh: np.ndarray) -> np.ndarray:
    """o_t = W_qh h_t."""
    return h @ W_qh.T


def loss(o: np.ndarray, y: np.ndarray, step_loss: StepLoss = squared_error) -> float:
    """L = 1/T Σ_t l(o_t, y_t), averaged over the batch where there is one."""
    return float(np.mean(step_loss(o, y)[0]))


def dL_do(o: np.ndarray, y: np.ndarray, step_loss: StepLoss = squared_error) -> np.ndarray:
    """Equation 2.1: ∂L/∂o_t = 1/T ∂l(o_t, y_t)/∂o_t, and 1/batch of it with a batch."""
    steps = int(np.prod(o.shape[:-1]))
    return step_loss(o, y)[1] / steps


def dL_dW_qh(dL_do: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Equation 2.2: ∂L/∂W_qh = Σ_t ∂L/∂o_t h_tᵀ."""
    return _sum_of_outer_products(dL_do, h)


def dL_dh_T(dL_do: np.ndarray, W_qh: np.ndarray) -> np.ndarray:
    """Equation 2.3: ∂L/∂h_T = W_qhᵀ ∂L/∂o_T."""
    return dL_do[..., -1, :] @ W_qh


def dL_dh(
    dL_do: np.ndarray, W_hh: np.ndarray, W_qh: np.ndarray, xi: np.ndarray | None = None
) -> np.ndarray:
    """Equation 2.4, the recursion: ∂L/∂h_t = W_hhᵀ ∂L/∂h_{t+1} + W_qhᵀ ∂L/∂o_t.

    Args:
        dL_do: Array `(..., timesteps, outputs)`.
        W_hh: Array `(hidden, hidden)`.
        W_qh: Array `(outputs, hidden)`.
        xi: Array `(timesteps,)` or None. The guide's ξ_t (section 1.3): the factor on the
            gradient that flows from h_t to h_{t-1}. 0 cuts it there. Defaults to 1 everywhere.
    """
    timesteps = dL_do.shape[-2]
    xi = np.ones(timesteps) if xi is None else np.asarray(xi, dtype="float64")
    dh = np.zeros((*dL_do.shape[:-1], W_hh.shape[0]))
    dh[..., -1, :] = dL_dh_T(dL_do, W_qh)
    for t in range(timesteps - 2, -1, -1):
        dh[..., t, :] = xi[t + 1] * dh[..., t + 1, :] @ W_hh + dL_do[..., t, :] @ W_qh
    return dh


def dL_dh_closed(dL_do: np.ndarray, W_hh: np.ndarray, W_qh: np.ndarray) -> np.ndarray:
    """Equation 2.4 expanded: ∂L/∂h_t = Σ_{i=t}^T (W_hhᵀ)^{T−i} W_qhᵀ ∂L/∂o_{T+t−i}.

    The powers of W_hhᵀ are where gradients vanish or explode.
    """
    T = dL_do.shape[-2]
    dh = np.zeros((*dL_do.shape[:-1], W_hh.shape[0]))
    for t in range(1, T + 1):  # the guide's indices, from 1
        for i in range(t, T + 1):
            power = np.linalg.matrix_power(W_hh.T, T - i)
            dh[..., t - 1, :] += dL_do[..., T + t - i - 1, :] @ (power @ W_qh.T).T
    return dh


def dL_dh_windowed(
    dL_do: np.ndarray, W_hh: np.ndarray, W_qh: np.ndarray, length: int, stride: int | None = None
) -> np.ndarray:
    """The recursion of 2.4 truncated to windows of `length` steps (section 1.2).

    The windows are those of `kbptt.truncation.windows`, counted from the end. Gradients of
    overlapping windows add up. `stride = length` gives chunks, `stride = 1` the guide's
    τ = `length` − 1 exactly.

    Args:
        dL_do: Array `(..., timesteps, outputs)`.
        W_hh: Array `(hidden, hidden)`.
        W_qh: Array `(outputs, hidden)`.
        length: Integer of at least 1, the timesteps of a window.
        stride: Integer from 1 to `length`. Defaults to `length`.
    """
    w = windows.of(dL_do.shape[-2], Windowed(length, stride))
    dh = np.zeros((*dL_do.shape[:-1], W_hh.shape[0]))
    for start, entry, end in zip(w.starts, w.entries, w.ends, strict=True):
        own = dL_do[..., start:end, :].copy()
        own[..., : entry - start, :] = 0.0
        dh[..., start:end, :] += dL_dh(own, W_hh, W_qh)
    return dh


def dL_dW_hx(dL_dh: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Equation 2.5: ∂L/∂W_hx = Σ_t ∂L/∂h_t x_tᵀ."""
    return _sum_of_outer_products(dL_dh, x)


def dL_dW_hh(dL_dh: np.ndarray, h: np.ndarray, h_0: np.ndarray | None = None) -> np.ndarray:
    """Equation 2.5: ∂L/∂W_hh = Σ_t ∂L/∂h_t h_{t−1}ᵀ."""
    before = np.concatenate([_initial_state(h, h_0)[..., None, :], h[..., :-1, :]], axis=-2)
    return _sum_of_outer_products(dL_dh, before)


def gradient_norms(dL_dh: np.ndarray) -> np.ndarray:
    """Σ_b ‖∂L/∂h_t^(b)‖₂ for every timestep, as the layers' `gradient_norms`: `(timesteps,)`."""
    norms = np.linalg.norm(dL_dh, axis=-1)
    return norms.reshape(-1, norms.shape[-1]).sum(axis=0)


def bptt(
    x: np.ndarray,
    y: np.ndarray,
    W_hx: np.ndarray,
    W_hh: np.ndarray,
    W_qh: np.ndarray,
    h_0: np.ndarray | None = None,
    step_loss: StepLoss = squared_error,
    length: int | None = None,
    stride: int | None = None,
    xi: np.ndarray | None = None,
) -> Gradients:
    """All gradients of section 2, in its order: 2.1, 2.2, 2.4 (which starts with 2.3), 2.5.

    Args:
        x: Array `(timesteps, inputs)` or `(batch, timesteps, inputs)`.
        y: Array of targets, passed to `step_loss`.
        W_hx: Array `(hidden, inputs)`.
        W_hh: Array `(hidden, hidden)`.
        W_qh: Array `(outputs, hidden)`.
        h_0: Array `(hidden,)` or `(batch, hidden)`, the initial state. Defaults to zeros.
        step_loss: Function `(o, y) -> (l, ∂l/∂o)`. Defaults to `squared_error`.
        length: Integer or None. Truncates to windows, see `dL_dh_windowed`. Defaults to `None`.
        stride: Integer or None. Steps between two windows. Defaults to `length`.
        xi: Array `(timesteps,)` or None. Randomized truncation, see `dL_dh`.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    >>> W_hx, W_hh, W_qh = (rng.normal(size=s) / 3 for s in [(4, 3), (4, 4), (2, 4)])
    >>> bptt(x, y, W_hx, W_hh, W_qh).h.shape
    (20, 4)
    """
    if length is None and stride is not None:
        raise ValueError(f"Argument `stride` needs `length`. Received: stride={stride!r}.")
    if length is not None and xi is not None:
        raise ValueError("Pass either `length` or `xi`, not both.")
    h = run(x, W_hx, W_hh, h_0)
    o = output(h, W_qh)
    do = dL_do(o, y, step_loss)
    if length is None:
        dh = dL_dh(do, W_hh, W_qh, xi)
    else:
        dh = dL_dh_windowed(do, W_hh, W_qh, length, stride)
    # h_0 reaches the loss through h_1 alone, unless ξ_1 cuts it.
    dh_0 = dh[..., 0, :] @ W_hh * (1.0 if xi is None else xi[0])
    return Gradients(
        loss=loss(o, y, step_loss),
        W_hx=dL_dW_hx(dh, np.asarray(x, dtype="float64")),
        W_hh=dL_dW_hh(dh, h, h_0),
        W_qh=dL_dW_qh(do, h),
        h=dh,
        x=dh @ W_hx,
        h_0=dh_0,
    )


def _sum_of_outer_products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    rows = left.reshape(-1, left.shape[-1])
    return rows.T @ right.reshape(-1, right.shape[-1])


def _initial_state(h: np.ndarray, h_0: np.ndarray | None) -> np.ndarray:
    shape = (*h.shape[:-2], h.shape[-1])
    if h_0 is None:
        return np.zeros(shape)
    return np.broadcast_to(np.asarray(h_0, dtype="float64"), shape)


def _float64(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array, dtype="float64")
    if array.ndim not in (2, 3) or array.shape[-2] == 0:
        raise ValueError(
            f"Argument `{name}` must be (timesteps, features) or (batch, timesteps, features) "
            f"with at least one timestep. Received: shape {array.shape}."
        )
    return array


def _check_weights(x: np.ndarray, W_hx: np.ndarray, W_hh: np.ndarray) -> None:
    hidden = W_hh.shape[0]
    if W_hh.shape != (hidden, hidden) or W_hx.shape != (hidden, x.shape[-1]):
        raise ValueError(
            f"Expected W_hh (hidden, hidden) and W_hx (hidden, {x.shape[-1]}). "
            f"Received: W_hh {W_hh.shape}, W_hx {W_hx.shape}."
        )
