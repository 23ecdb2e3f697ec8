"""Layers inside branches and loops of a graph, as in stochastic depth."""

import contextlib
import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import CELLS

import kbptt
from kbptt.engine import native
from kbptt.truncation import Randomized, Windowed

FLOWS = {
    "cond": lambda f, x: tf.cond(tf.reduce_sum(x) > -1e9, lambda: f(x), lambda: 0 * x),
    "switch_case": lambda f, x: tf.switch_case(
        tf.cast(tf.reduce_sum(x) > -1e9, tf.int32), [lambda: 0 * x, lambda: f(x)]
    ),
    "map_fn": lambda f, x: tf.map_fn(f, tf.stack([x, 2 * x])),
    "while_loop": lambda f, x: tf.while_loop(
        lambda i, _: i < 2, lambda i, y: (i + 1, f(y)), (0, x), maximum_iterations=2
    )[1],
}
# A loop inside a branch or a loop: there no norms can be kept.
NESTED = [("map_fn", "cond"), ("while_loop", "while_loop"), ("map_fn", "switch_case")]

X = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")


def gradients(layer, flows, jit=False, graph=True):
    def f(x):
        return layer(x)

    for name in flows:
        f = lambda x, inner=f, name=name: FLOWS[name](inner, x)  # noqa: E731

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(f(x) ** 2)
        weights = [v.value for v in layer.trainable_variables]
        return tape.gradient(loss, [x, *weights])

    layer(X)
    if graph:
        step = tf.function(step, autograph=False, jit_compile=jit or None)
    return [g.numpy() for g in step(tf.constant(X))]


def make(kind, **options):
    keras.utils.set_random_seed(1)
    if kind in CELLS:
        return getattr(kbptt, kind)(4, return_sequences=True, **options)
    cells = {"cell": keras.layers.GRUCell(4), "stacked": [keras.layers.LSTMCell(4) for _ in "ab"]}
    return kbptt.RNN(cells[kind], return_sequences=True, **options)


# The loop for any cell is TensorFlow's in any case.
LOOPS = [(kind, "native") for kind in CELLS]
LOOPS += [(kind, "tensorflow") for kind in ["SimpleRNN", "LSTM", "stacked"]]
# The same loops with different cells.
LOOPS += [pytest.param(kind, "tensorflow", marks=pytest.mark.slow) for kind in ["GRU", "cell"]]


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize(("kind", "loops"), LOOPS)
def test_gradients_and_norms_are_those_without_a_graph(kind, loops, flow):
    layer, without_graph = make(kind, truncation=3), make(kind, truncation=3)
    with native.disabled() if loops == "tensorflow" else contextlib.nullcontext():
        expected = gradients(without_graph, [flow], graph=False)
        found = gradients(layer, [flow])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    # Of the iterations of a map, which take no turns, any may be the last.
    if flow != "map_fn":
        np.testing.assert_allclose(layer.gradient_norms, without_graph.gradient_norms, rtol=1e-4)
    assert layer.gradient_norms.shape == (6,)
    assert np.all(layer.gradient_norms > 0)


@pytest.mark.parametrize("flow", ["cond", "while_loop"])
def test_under_xla(flow):
    layer = make("LSTM", truncation=Windowed(4, 2))
    expected = gradients(layer, [flow], graph=False)
    for a, b in zip(gradients(layer, [flow], jit=True), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "loops"), [("GRU", "native"), ("GRU", "tensorflow"), ("cell", "tensorflow")]
)
@pytest.mark.parametrize(
    "flows", [("cond", "cond"), ("cond", "switch_case"), ("cond", "while_loop")]
)
def test_branches_in_branches_and_loops(flows, kind, loops):
    layer = make(kind)
    with native.disabled() if loops == "tensorflow" else contextlib.nullcontext():
        expected = gradients(make(kind), flows, graph=False)
        found = gradients(layer, flows)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert np.all(layer.gradient_norms > 0)


@pytest.mark.parametrize("kind", ["LSTM", "cell"])
@pytest.mark.parametrize("flows", NESTED)
def test_where_no_norms_can_be_kept_it_says_so_once_and_trains(kind, flows):
    layer = make(kind)
    expected = gradients(layer, flows, graph=False)
    with pytest.warns(UserWarning, match="keeps no `gradient_norms` here") as seen:
        found = gradients(layer, flows)
    assert len(seen) == 1
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    gradients(layer, flows)  # warnings are errors here: it has been said
    silent = make(kind)
    silent.record_gradient_norms = False
    gradients(silent, flows)


@pytest.mark.parametrize("flows", [("cond",), ("while_loop",), *NESTED[:1]])
def test_randomized_truncation_draws_there_too(flows):
    layer = make("GRU", truncation=Randomized(0.5, seed=0))
    layer.record_gradient_norms = False
    one, two = gradients(layer, flows), gradients(layer, flows)
    assert any(np.any(a != b) for a, b in zip(one, two, strict=True))


def test_differentiable_loops_in_a_branch():
    layer, without_graph = make("GRU", truncation=3), make("GRU", truncation=3)
    with kbptt.engine.differentiable():
        expected = gradients(without_graph, ["cond"], graph=False)
        found = gradients(layer, ["cond"])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.gradient_norms, without_graph.gradient_norms, rtol=1e-4)


class StochasticDepth(keras.layers.Layer):
    """Runs its layer in half of the steps."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x, training=False):
        if not training:
            return x + self.inner(x)
        drawn = tf.random.uniform([]) < 0.5
        return tf.cond(drawn, lambda: x + self.inner(x, training=True), lambda: x)


@pytest.mark.parametrize("steps", [1, 3])
def test_stochastic_depth_trains_in_fit(steps):
    keras.utils.set_random_seed(0)
    below, rnn = (kbptt.LSTM(4, return_sequences=True, truncation=3) for _ in range(2))
    for one in (below, rnn):
        one.build((None, 6, 4))
    blocks = [StochasticDepth(below), StochasticDepth(rnn)]
    model = keras.Sequential([keras.Input((6, 4)), *blocks, keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=steps)
    before = rnn.get_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(np.tile(X, (8, 1, 1)), np.zeros((16, 6, 1)), batch_size=2, verbose=0)
    assert all(np.any(a != b) for a, b in zip(rnn.get_weights(), before, strict=True))
    assert rnn.gradient_norms.shape == (6,)


@pytest.fixture
def variable_scope():
    """TensorFlow's `map_fn` leaves a caching device on it where the function raises.

    With one no distribution strategy can be entered any more, nor left.
    """
    assert tf.compat.v1.get_variable_scope().caching_device is None
    yield
    # It is shared with the graphs of functions, where alone it may be set.
    tf.function(lambda: tf.compat.v1.get_variable_scope().set_caching_device(None))()
    assert tf.compat.v1.get_variable_scope().caching_device is None


@pytest.mark.usefixtures("variable_scope")
def test_a_gradient_regularizer_there_is_refused():
    layer = make("SimpleRNN", gradient_regularizer="vanishing_gradient")
    for flow in FLOWS:
        with pytest.raises(ValueError, match="`gradient_regularizer` adds to the losses"):
            gradients(layer, [flow])


assert set(itertools.chain(*NESTED)) <= set(FLOWS)
