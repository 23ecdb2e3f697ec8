"""Keras's own cells, which `kbptt.RNN` runs as the layers of the same name do."""

from typing import Any

import keras

from kbptt.cells import Cell, Weights, make
from kbptt.layers.gru import GRU, split_bias
from kbptt.layers.lstm import LSTM
from kbptt.layers.projected import activation_names
from kbptt.layers.simple_rnn import SimpleRNN

_NAMES = {
    keras.layers.SimpleRNNCell: SimpleRNN.cell_name,
    keras.layers.GRUCell: GRU.cell_name,
    keras.layers.LSTMCell: LSTM.cell_name,
}


def recognize(cell: Any, dtype: str) -> tuple[Cell, Weights] | None:
    """The equations and weights of a cell that does what Keras's cell of its type does, or None.

    Args:
        cell: Any cell.
        dtype: In which all of it is computed.
    """
    if type(cell) not in _NAMES or not _is_untouched(cell) or not _is_complete(cell):
        return None
    if {cell.compute_dtype, cell.variable_dtype} != {dtype} or dtype not in ("float32", "float64"):
        return None
    names = activation_names(cell)
    if names is None:
        return None
    weights = Weights(cell.kernel, cell.recurrent_kernel, bias=cell.bias)
    if isinstance(cell, keras.layers.GRUCell):
        if not cell.reset_after:
            return None
        weights = weights._replace(**{"bias": None, **split_bias(cell.bias)})
    return make(_NAMES[type(cell)], names), weights


def stack(cell: Any) -> list[Any] | None:
    """The cells of a `keras.layers.StackedRNNCells`, from the bottom on, or None."""
    plain = type(cell) is keras.layers.StackedRNNCells and _is_untouched(cell)
    return list(cell.cells) if plain else None


def _is_untouched(cell: keras.Layer) -> bool:
    """Whether the object's call is that of its class."""
    own = {"call", "__call__", "get_dropout_mask", "get_recurrent_dropout_mask"}
    return not own & vars(cell).keys() and cell.activity_regularizer is None


def _is_complete(cell: Any) -> bool:
    """Whether the weights are those that Keras's `build` makes, and no others."""
    if not cell.built or cell.use_bias != (cell.bias is not None):
        return False
    weights = [w for w in (cell.kernel, cell.recurrent_kernel, cell.bias) if w is not None]
    floats = [v for v in cell.variables if "float" in v.dtype]
    return {id(w) for w in weights} == {id(v) for v in floats}
