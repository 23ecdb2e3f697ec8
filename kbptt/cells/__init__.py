"""The cells: for each its equations, one timestep forward, and its vector-Jacobian product.

`CELLS` is the only list of them; the C++ loops of `kbptt.engine.native` have those of its names
that they know. How to add one is in CONTRIBUTING.md.
"""

from typing import Any

from kbptt.cells.base import ACTIVATION, Cell, Step, Weights
from kbptt.cells.gru import GRU
from kbptt.cells.lstm import LSTM
from kbptt.cells.simple_rnn import SimpleRNN

CELLS: dict[str, type[Cell]] = {cell.name: cell for cell in (SimpleRNN, GRU, LSTM)}


def make(name: str, activations: tuple[str, ...], normalization: Any = None) -> Cell:
    """The cell of this name.

    Args:
        name: One of `CELLS`.
        activations: Names among `ACTIVATION`: of the candidate, and of the gates if any.
        normalization: None, or a `kbptt.normalization.LayerNormalization`.
    """
    kind = CELLS[name] if normalization is None else CELLS[name].normalized
    return kind(activations, normalization)


__all__ = ["ACTIVATION", "CELLS", "Cell", "Step", "Weights", "make"]
