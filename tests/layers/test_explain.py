"""`kbptt.explain`: what it says is what runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt.engine import differentiable, native, using

SHAPE = (8, 40, 3)
NAMES = {"C++": "cpu", "TensorFlow": "tensorflow"}

LAYERS = {
    "plain": lambda: kbptt.LSTM(4),
    "windows": lambda: kbptt.GRU(4, truncation=10, return_sequences=True),
    "dropout": lambda: kbptt.LSTM(4, recurrent_dropout=0.2),
    "dropout and layer normalization": lambda: kbptt.GRU(
        4, recurrent_dropout=0.2, normalization="layer"
    ),
    "zoneout": lambda: kbptt.LSTM(4, zoneout=0.2, h_detach=0.5, normalization="rms"),
    "SnAp-1": lambda: kbptt.LSTM(4, truncation="snap1"),
    "half": lambda: kbptt.GRU(4, dtype="mixed_float16"),
    "reset before": lambda: kbptt.GRU(4, reset_after=False),
    "own activation": lambda: kbptt.SimpleRNN(4, activation=lambda x: tf.sin(x)),
    "Keras's cell": lambda: kbptt.RNN(keras.layers.GRUCell(4, recurrent_dropout=0.2)),
    "stack": lambda: kbptt.RNN([keras.layers.LSTMCell(4), keras.layers.GRUCell(5)]),
    "half a stack": lambda: kbptt.RNN(
        [keras.layers.LSTMCell(4), keras.layers.GRUCell(5, reset_after=False)]
    ),
}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_the_loops_that_it_names_are_those_that_run(name, compiled):
    layer = LAYERS[name]()
    with using(native=compiled):
        explanation = kbptt.explain(layer, SHAPE)
        tf.function(layer)(np.zeros(SHAPE, "float32"), training=True)
    loops = {NAMES[c["loop"].partition(",")[0]] for c in explanation.loops.values()}
    assert loops == layer.loops
    for choices in explanation.loops.values():
        assert ("why" in choices) == choices["loop"].startswith("TensorFlow")


@pytest.mark.parametrize(
    "options",
    [
        {"truncation": "snap1", "normalization": "layer"},
        {"activation": lambda x: tf.sin(x), "h_detach": 0.5},
    ],
)
def test_what_cannot_run_is_not_explained(options):
    with pytest.raises(ValueError, match=r"h_detach|normalization"):
        kbptt.explain(kbptt.LSTM(4, **options), SHAPE)


@pytest.mark.skipif(not native.is_usable(), reason="the C++ loops were not built")
def test_threads_windows_and_memory():
    layer = kbptt.LSTM(64, truncation=20, return_sequences=True, name="lstm")
    with using(threads=2, kept_gates=2**20, instruction_set="baseline"):
        explanation = kbptt.explain(layer, (8, 1000, 3))
    assert (
        str(explanation)
        == repr(explanation)
        == "\n".join(
            [
                "LSTM 'lstm': batch 8, 1000 timesteps, 3 features, 64 units, float32",
                "  loop      C++, baseline, tanh and sigmoid",
                "  forward   8 rows: 2 threads, each with 4 rows; groups of 4",
                "  backward  50 windows of 20 timesteps, 400 rows: 2 threads, each with 200 rows; "
                "groups of 67",
                "  gates     recomputed: 7.81 MiB would exceed 1 MiB",
                "  c         stored at 99 of 1000 timesteps, 0.193 MiB",
            ]
        )
    )
    with using(threads=2):
        (choices,) = kbptt.explain(kbptt.GRU(2048), (2, 10, 3)).loops.values()
        shared = "2 threads share every row, each with 1024 units (of 1024 or more in total)"
        assert choices["backward"].endswith(shared + "; groups of 2")
        normalized = kbptt.GRU(4, normalization="layer")
        (choices,) = kbptt.explain(normalized, (2, 10, 3)).loops.values()
        assert choices["gates"] == "recomputed: layer-normalised cells store none"
        last = kbptt.SimpleRNN(4, truncation=5)
        (choices,) = kbptt.explain(last, (2, 10, 3)).loops.values()
        one = "1 thread (two would have fewer than 4 rows and 64 units each); groups of 2"
        assert choices["backward"] == "the last window of 5 timesteps, 2 rows: " + one
        (choices,) = kbptt.explain(kbptt.LSTM(200), (6, 10, 3)).loops.values()
        assert (
            "each with 100 units (fewer than 4 rows per thread); groups of 6" in choices["forward"]
        )
        with using(members=2):
            (choices,) = kbptt.explain(kbptt.LSTM(200), (64, 10, 3)).loops.values()
        assert "(`members` is 2)" in choices["forward"]
        (choices,) = kbptt.explain(normalized, (6, 10, 3)).loops.values()
        assert "1 thread (two would have fewer than 4 rows each)" in choices["forward"]
    with using(threads=1):
        (choices,) = kbptt.explain(last, (2, 10, 3)).loops.values()
        assert choices["forward"] == "2 rows: 1 thread; groups of 2"
        (choices,) = kbptt.explain(last, (2, 10, 3), training=False).loops.values()
        assert choices.keys() == {"loop", "forward"}


def test_both_directions_and_scopes():
    both = keras.layers.Bidirectional(kbptt.GRU(4))
    assert len(kbptt.explain(both, SHAPE).loops) == 2
    with differentiable():
        (choices,) = kbptt.explain(kbptt.GRU(4), SHAPE).loops.values()
    assert choices["loop"] == "automatic differentiation by TensorFlow"


@pytest.mark.parametrize("shape", [(1, 2), (0, 3, 4), (None, 3, 4), "abc"])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`shape` expected \(batch, timesteps, features\)"):
        kbptt.explain(kbptt.GRU(4), shape)


def test_other_layers_are_refused():
    with pytest.raises(ValueError, match="a recurrent layer of kbptt"):
        kbptt.explain(keras.layers.GRU(4), SHAPE)
