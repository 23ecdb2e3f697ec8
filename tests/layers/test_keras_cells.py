"""`kbptt.RNN` with Keras's own cells: the fast loops, and only where they do what the cell does."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from recurrent import differentiate, randomize

import kbptt
from kbptt.layers.keras_cells import recognize
from kbptt.truncation import Randomized, Windowed

T, FEATURES = 9, 3


def subclasses():
    """Cells that compute the same, of types that the loops know nothing about."""
    for kind in (layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell):
        yield kind, type(kind.__name__, (kind,), {})


OWN = dict(subclasses())


def stack(own, dtype="float64"):
    kinds = [layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell]
    return [
        (OWN[kind] if own else kind)(units, dtype=dtype)
        for kind, units in zip(kinds, (4, 2, 3), strict=True)
    ]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("truncation", [None, 4, Windowed(4, 2), Randomized(0.7, seed=3)], ids=str)
@pytest.mark.parametrize("cells", ["one", "stack", "mixed"])
def test_the_numbers_are_those_of_the_path_for_any_cell(cells, truncation):
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(2, T, FEATURES)), rng.normal(size=(2, T, 3))
    given = {
        "mask": np.array([[0, 1, 1, 1, 1, 0, 1, 1, 1], [1, 1, 0, 1, 1, 1, 1, 1, 0]], bool),
        "resets": np.array([[0, 0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1, 0]], bool),
    }
    found = []
    for own in (False, True):
        made = stack(own)
        if cells == "mixed":
            made[1] = stack(True)[1]
        elif cells == "one":
            made = made[2]
        if cells != "one":
            made = layers.StackedRNNCells(made, dtype="float64")
        layer = kbptt.RNN(
            made,
            truncation=truncation,
            gradient_clip=0.7,
            return_sequences=True,
            return_state=True,
            go_backwards=True,
            dtype="float64",
        )
        layer.build((None, None, FEATURES))
        randomize(layer)
        d = [rng.normal(size=(2, w)) for w in keras.tree.flatten(layer.state_size)]
        d = d if not found else found[0][0]
        found.append((d, differentiate(layer, x, None, e, d, **given), layer.loops))
    (_, ours, loops), (_, theirs, general) = found
    for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-10)
    assert np.any(ours[3] > 0)
    assert general == {"tensorflow"}
    one_by_one = cells == "one" or truncation in (None, 4)
    if kbptt.engine.native.is_usable():
        assert ("cpu" in loops) == one_by_one


def test_cells_that_were_changed_are_called():
    def built(kind=layers.GRUCell, **options):
        cell = kind(4, **options)
        cell.build((None, FEATURES))
        return cell

    for kind in OWN:
        assert recognize(built(kind), "float32") is not None
        assert recognize(built(kind, dropout=0.2), "float32") is not None
        assert recognize(built(kind, recurrent_dropout=0.2), "float32") is not None
        assert recognize(built(kind, activation=ops.sin), "float32") is None
        assert recognize(built(kind), "float64") is None
        assert recognize(built(kind, dtype="mixed_float16"), "float32") is None
    assert recognize(built(reset_after=False), "float32") is None
    cell = built()
    cell.call = lambda inputs, states, training=False: (states[0], states)
    assert recognize(cell, "float32") is None
    cell = built()
    cell.recurrent_kernel = ops.tril(cell.recurrent_kernel)
    assert recognize(cell, "float32") is None

    class Counting(layers.SimpleRNNCell):
        pass

    assert recognize(built(Counting), "float32") is None
