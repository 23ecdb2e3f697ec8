"""The names of the cells: the only list of them. Nothing here needs TensorFlow."""

from typing import NamedTuple


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
