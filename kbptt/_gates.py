"""The gates' blocks in a kernel: `(units, 4 * units)` for LSTM, `(units, 3 * units)` for GRU."""

from collections.abc import Sequence

from kbptt import _checks

AUTO = "auto"


def check(gates: int | str) -> int | str:
    """Returns `gates` if it is a positive integer or `"auto"`, or raises `ValueError`."""
    if gates == AUTO:
        return gates
    return _checks.positive_integer("gates", gates, mend="Or pass 'auto'.")


def split(
    shape: Sequence[int], gates: int | str = AUTO, square: bool = False
) -> tuple[int, int, int]:
    """`(rows, columns of one block, number of blocks)` of a kernel `(rows, gates * columns)`.

    Args:
        shape: Shape of the kernel.
        gates: Integer or `"auto"`, which takes square blocks. Defaults to `"auto"`.
        square: Boolean, whether to refuse blocks that are not square. Defaults to `False`.
    """
    shape = tuple(shape)
    if isinstance(gates, str):
        number = shape[1] // shape[0] if len(shape) == 2 and shape[0] else 0
    else:
        number = gates
    if len(shape) != 2 or number < 1 or shape[1] % number:
        raise ValueError(
            "Expected a kernel of shape (units, gates * units), or (inputs, gates * units) with "
            f"the number of gates given. Received: shape={shape}, gates={gates!r}."
        )
    rows, columns = shape[0], shape[1] // number
    if (square or gates == AUTO) and rows != columns:
        raise ValueError(
            "Expected square blocks, a recurrent kernel of shape (units, gates * units). "
            f"Received: shape={shape}, gates={gates!r}."
        )
    return rows, columns, number
