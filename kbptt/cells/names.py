"""The names of the cells: the only list of them. Nothing here needs TensorFlow."""

from typing import Any, NamedTuple

from kbptt import _checks


class Name(NamedTuple):
    """What is known of a cell by its name.

    Attributes:
        module: Name of its module in `kbptt.cells` and in `kbptt.layers`.
        gates: Column blocks of its kernels.
    """

    module: str
    gates: int


NAMES = {
    "LSTM": Name("lstm", gates=4),
    "GRU": Name("gru", gates=3),
    "SimpleRNN": Name("simple_rnn", gates=1),
}


def get_cell(name: Any) -> str:
    """Returns the class name of a cell given in any spelling ("lstm", "simple_rnn")."""
    for cell in NAMES:
        if str(name).lower().replace("_", "") == cell.lower():
            return cell
    return _checks.one_of("cell", name, NAMES)
