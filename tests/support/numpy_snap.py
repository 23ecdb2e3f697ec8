"""SnAp-1 in NumPy, forward in time, as Menick et al. (2020) define it; nothing here is kbptt's.

The influence J_t = ∂s_t/∂θ of all parameters on all states goes on by

    J_t = mask ⊙ (I_t + D_t J_{t−1}),    D_t = ∂s_t/∂s_{t−1},  I_t the influence within the step,

and each loss adds ∂L_t/∂s_t J_t. The mask keeps what a parameter does to the states of the unit
that it belongs to. Both Jacobians are complex-step derivatives of the cell, exact to rounding.
"""

from collections.abc import Callable

import numpy as np

Weights = list[np.ndarray]
Step = Callable[[np.ndarray, np.ndarray, Weights], np.ndarray]
STEP = 1e-30


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def simple_rnn(x, state, weights):
    w, u, b = weights
    return np.tanh(x @ w + state @ u + b)


def gru(x, state, weights):
    w, u, b = weights  # b: (2, 3 units), as Keras has it
    zx, rx, nx = np.split(x @ w + b[0], 3)
    zh, rh, nh = np.split(state @ u + b[1], 3)
    z, r = _sigmoid(zx + zh), _sigmoid(rx + rh)
    return z * state + (1 - z) * np.tanh(nx + r * nh)


def lstm(x, state, weights):
    w, u, b = weights
    h, c = np.split(state, 2)
    i, f, g, o = np.split(x @ w + h @ u + b, 4)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return np.concatenate([_sigmoid(o) * np.tanh(c), c])


CELLS: dict[str, Step] = {"SimpleRNN": simple_rnn, "GRU": gru, "LSTM": lstm}


def own_units(weights: Weights, units: int, states: int) -> np.ndarray:
    """The mask, ``(states, parameters)``: columns of weights go by units, gate after gate."""
    owner = np.concatenate(
        [np.broadcast_to(np.arange(w.shape[-1]) % units, w.shape).ravel() for w in weights]
    )
    return (np.arange(states)[:, None] % units == owner).astype(float)


def all_units(weights: Weights, units: int, states: int) -> np.ndarray:
    """The mask of real-time recurrent learning: everything."""
    return np.ones([states, sum(w.size for w in weights)])


def _pack(weights: Weights) -> np.ndarray:
    return np.concatenate([w.ravel() for w in weights])


def unpack(flat: np.ndarray, weights: Weights) -> Weights:
    ends = np.cumsum([w.size for w in weights])[:-1]
    return [f.reshape(w.shape) for f, w in zip(np.split(flat, ends), weights, strict=True)]


def jacobian(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray) -> np.ndarray:
    """By complex steps: ``(outputs, inputs)``."""
    rows = at + 1j * STEP * np.eye(at.size)
    return np.stack([function(row).imag / STEP for row in rows], axis=1)


def gradient(
    step: Step,
    weights: Weights,
    x: np.ndarray,
    upstream: np.ndarray,
    start: np.ndarray,
    influence: np.ndarray | None = None,
    kept: np.ndarray | None = None,
    resets: np.ndarray | None = None,
    mask: Callable[..., np.ndarray] = own_units,
) -> tuple[Weights, np.ndarray, np.ndarray]:
    """Gradients of Σ upstream · h over one sequence.

    Args:
        step: The cell.
        weights: Its weights, as Keras has them.
        x: ``(timesteps, features)``.
        upstream: ``(timesteps, units)``, of the outputs, which are the first states.
        start: ``(states,)``.
        influence: J before the first step; none if None.
        kept: Boolean ``(timesteps,)``: False holds the state.
        resets: Boolean ``(timesteps,)``: True goes back to zeros before the step.
        mask: `own_units` or `all_units`.

    Returns:
        The gradients of the weights, the states and J after the last step.
    """
    units, state = upstream.shape[1], start.astype(float)
    theta, pattern = _pack(weights), mask(weights, upstream.shape[1], start.size)
    j = np.zeros([start.size, theta.size]) if influence is None else influence
    found = np.zeros_like(theta)
    for t in range(len(x)):
        if resets is not None and resets[t]:
            state, j = np.zeros_like(state), np.zeros_like(j)
        if kept is None or kept[t]:
            inside = jacobian(lambda v, t=t, s=state: step(x[t], s, unpack(v, weights)), theta)
            d = jacobian(lambda s, t=t: step(x[t], s, weights), state)
            j = pattern * (inside + d @ j)
            state = step(x[t], state, weights)
        found += upstream[t] @ j[:units]
    return unpack(found, weights), state, j
