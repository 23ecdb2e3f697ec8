"""What the teams of a pass have found, put together."""

import numpy as np

from kbptt.engine.native.buffers import Buffers


def summed(parts: np.ndarray, teams: int, memory: Buffers) -> np.ndarray:
    """Σ over the teams, which are the first axis if there are several.

    Never a view: it would not keep its buffer from being used again.
    """
    if teams == 1:
        return parts
    return np.sum(parts, axis=0, out=memory.array(list(parts.shape[1:]), parts.dtype))


def apart(parts: np.ndarray, teams: int, memory: Buffers) -> np.ndarray:
    """Each team's, ``(teams, …)``."""
    return parts if teams > 1 else parts[None]


def norms(parts: np.ndarray) -> np.ndarray:
    """Σ_b ‖∂L/∂h_t‖₂ from the norms of each thread's units, ``(members, batch, timesteps)``."""
    whole = parts[0]
    if len(parts) > 1:
        whole = np.sqrt(np.square(parts, dtype=np.float64).sum(axis=0))
    return whole.sum(axis=0, dtype=np.float64).astype(np.float32)
