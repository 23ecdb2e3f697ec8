"""Recurrent dropout, and dropout gate by gate: the loops agree on it, whatever else acts there."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import CELLS, data, differentiate, make, randomize, running_eagerly

import kbptt
from kbptt.engine import differentiable
from kbptt.truncation import SnAp, Windowed

RATES = {"recurrent_dropout": 0.3, "dropout": 0.4, "seed": 7}
OPTIONS = {
    "windows": {"truncation": 4},
    "sliding windows": {"truncation": Windowed(5, stride=2)},
    "a regularizer": {"gradient_regularizer": "vanishing_gradient"},
    "normalization": {"normalization": "rms", "gradient_regularizer": "vanishing_gradient"},
    "zoneout": {"zoneout": 0.2, "gradient_clip": kbptt.clipping.ByNorm(0.5)},
    "h-detach": {"h_detach": 0.4, "truncation": 4},
    "SnAp-1": {"truncation": SnAp(1)},
}


def by_gate(cell):
    return {} if cell == "SimpleRNN" else {"implementation": 1}


def layer_of(cell, **arguments):
    return make(cell, **RATES, **by_gate(cell), **arguments)


def found_by(engine, cell, options, problem, **more):
    layer = layer_of(cell, **options)
    with running_eagerly(engine):
        result = differentiate(layer, *problem, training=True, **more)
    assert layer.loops == {{"native": "cpu"}.get(engine, engine)}
    return tf.nest.flatten(result)


CASES = [(c, o) for c in CELLS for o in OPTIONS if (c, o) != ("SimpleRNN", "h-detach")]


@pytest.mark.parametrize(("cell", "name"), CASES)
def test_both_engines_give_the_same_gradients(cell, name):
    options = OPTIONS[name]
    problem = data(cell)
    rng = np.random.default_rng(0)
    more = {"mask": rng.random([2, 9]) < 0.8, "resets": rng.random([2, 9]) < 0.2}
    more = {name: tf.constant(value) for name, value in more.items()}
    found = [found_by(e, cell, options, problem, **more) for e in ("native", "tensorflow")]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_an_ordinary_loop_gives_the_same_gradients(cell):
    problem, options = data(cell), {"truncation": 4, "zoneout": 0.2}
    found = found_by("tensorflow", cell, options, problem)
    with differentiable():
        expected = tf.nest.flatten(
            differentiate(layer_of(cell, **options), *problem, training=True)
        )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_both_engines_carry_the_same_influence(cell):
    """SnAp-1 over two calls, each with masks of its own: J of the first is in the second's."""
    rng = np.random.default_rng(2)
    x, e = rng.normal(size=(2, 2, 5, 3)), rng.normal(size=(2, 5, 4))
    found = []
    for engine in ("native", "tensorflow"):
        options = {"stateful": True, "return_sequences": True, "dtype": "float64"}
        layer = getattr(kbptt, cell)(4, truncation=SnAp(1), **RATES, **by_gate(cell), **options)
        layer.build((2, None, 3))
        randomize(layer)
        with running_eagerly(engine):
            for part in x:
                part = tf.constant(part)
                with tf.GradientTape() as tape:
                    outputs = layer(part, training=True)
                    loss = tf.reduce_sum(outputs * e)
                values = [v.value for v in layer.trainable_variables]
                gradients = tape.gradient(loss, values)
        assert layer.loops == {{"native": "cpu"}.get(engine, engine)}
        found.append([*gradients, outputs])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("jit", [False, True])
def test_trains_where_xla_compiles_the_step(jit):
    """What `recurrent_dropout` is combined with does not depend on there being C++ loops."""
    more = {"normalization": "layer", "zoneout": 0.1, "h_detach": 0.3, "recurrent_dropout": 0.3}
    model = keras.Sequential([keras.Input((6, 2)), kbptt.LSTM(4, **more)])
    model.compile("sgd", "mse", jit_compile=jit)
    x, y = np.ones((4, 6, 2), "float32"), np.ones((4, 4), "float32")
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    assert model.layers[0].loops == {"tensorflow"}
    assert all(np.abs(a - b).max() > 0 for a, b in zip(model.get_weights(), before, strict=True))
