"""The cells by name, as the loops use them."""

import importlib
from typing import TYPE_CHECKING

from kbptt.cells.base import Cell
from kbptt.cells.names import NAMES

if TYPE_CHECKING:
    from kbptt.normalization import LayerNormalization

CELLS: dict[str, type[Cell]] = {
    name: getattr(importlib.import_module(f"kbptt.cells.{known.module}"), name)
    for name, known in NAMES.items()
}


def make(
    name: str,
    activations: tuple[str, ...],
    normalization: "LayerNormalization | None" = None,
    centres: bool = False,
) -> Cell:
    """The cell of this name.

    Args:
        name: One of `CELLS`.
        activations: Names among `ACTIVATION`: of the candidate, and of the gates if any.
        normalization: None, or a `kbptt.normalization.LayerNormalization`.
        centres: Whether the cell centres what it normalizes, and not the caller the kernels.
    """
    kind = CELLS[name] if normalization is None else CELLS[name].normalized
    return kind(activations, normalization, centres)
