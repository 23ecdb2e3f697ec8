"""Eager, graph and XLA give the same numbers, with everything switched on."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from recurrent import (
    CELLS,
    assert_same,
    data,
    differentiate,
    make,
    randomize,
    reference,
    running_eagerly,
)

import kbptt
from kbptt.engine import native
from kbptt.truncation import Windowed

T = 9


@pytest.fixture(autouse=True, params=["xla", "native"])
def engine(request):
    """What compiled the loops; inside a function that XLA compiles it is always XLA."""
    with contextlib.nullcontext() if request.param == "native" else native.disabled():
        yield


def run(layer, problem, mode, **arguments):
    if mode == "operations":
        with running_eagerly():
            return differentiate(layer, *problem, **arguments)
    if mode == "eager":  # the engine's own compiled loops, called eagerly
        return differentiate(layer, *problem, **arguments)
    weights = [v.value for v in layer.trainable_variables]

    @tf.function(jit_compile=mode == "xla", autograph=False)
    def step(x, state, e, d, mask, resets):
        sources = [x, *state, *weights]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs, *final = layer(x, initial_state=state, mask=mask, resets=resets)
            loss = tf.reduce_sum(outputs * e)
            loss += sum(tf.reduce_sum(a * b) for a, b in zip(final, d, strict=True))
        return tape.gradient(loss, sources), outputs, final

    arguments = {k: tf.constant(v) for k, v in arguments.items()}
    parts, outputs, final = step(*tf.nest.map_structure(tf.constant, problem), **arguments)
    parts = [g.numpy() for g in parts]
    n = 1 + len(problem[1])
    return (
        parts[0],
        parts[1:n],
        parts[n:],
        layer.gradient_norms,
        outputs.numpy(),
        [s.numpy() for s in final],
    )


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [(4, 4), (5, 2)], ids=["chunks", "sliding"])
def test_every_mode_of_execution(cell, size, mode):
    rng = np.random.default_rng(2)
    problem = data(cell, T)
    given = {"mask": rng.random((2, T)) > 0.2, "resets": rng.random((2, T)) < 0.2}
    layer = make(cell, truncation=Windowed(*size), gradient_clip=0.5)
    expected = reference(layer, *problem, *size, clip=0.5, **given)
    assert_same(run(layer, problem, mode, **given), expected)


@pytest.mark.parametrize("cell", CELLS)
def test_full_bptt_and_last_output_compiled(cell):
    layer = make(cell, return_sequences=False)
    x, state, e, d = data(cell, T)
    found = differentiate(layer, x, state, None, d)
    expected = reference(layer, x, state, 0 * e, d)
    expected.outputs = expected.outputs[:, -1]
    assert_same(found, expected)


@pytest.mark.parametrize(("size", "align"), [((4, 4), "end"), ((5, 2), "start"), ((20, 3), "end")])
def test_timesteps_known_only_at_run_time(size, align):
    """One traced function for every number of timesteps, compiled and not."""
    layer = make("GRU", truncation=Windowed(*size, align))
    weights = [v.value for v in layer.trainable_variables]
    traces = []

    @tf.function(autograph=False, reduce_retracing=True)
    def step(x, state, e, d):
        traces.append(x.shape)
        sources = [x, *state, *weights]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs, *final = layer(x, initial_state=state)
            loss = tf.reduce_sum(outputs * e)
            loss += sum(tf.reduce_sum(a * b) for a, b in zip(final, d, strict=True))
        return tape.gradient(loss, sources), outputs, final

    for timesteps in (9, 7, 3, 1):
        problem = data("GRU", timesteps)
        parts, outputs, final = step(*tf.nest.map_structure(tf.constant, problem))
        parts = [g.numpy() for g in parts]
        norms = layer.gradient_norms
        found = parts[0], parts[1:2], parts[2:], norms, outputs.numpy(), [final[0].numpy()]
        assert_same(found, reference(layer, *problem, *size, align))
    assert len(traces) == 2
    assert traces[1][1] is None


def test_an_operation_that_xla_does_not_know():
    """A cell may use any TensorFlow operation if the layer runs without XLA (`jit=False`)."""
    layer = make("LSTM", truncation=Windowed(5, 2), gradient_clip=1.0)
    problem = data("LSTM", T)
    expected = reference(layer, *problem, 5, 2, clip=1.0)
    assert_same(run(layer, problem, "operations"), expected)


def test_a_longer_window_than_any_sequence_costs_nothing():
    """`Windowed(10**9)` is full BPTT even where the number of timesteps is not known."""
    layer = kbptt.SimpleRNN(2, truncation=10**9, return_sequences=True)
    layer.build((None, None, 1))
    randomize(layer)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 1])], autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x))
        return tape.gradient(loss, x)

    assert np.all(step(np.ones((1, 5, 1), "float32")).numpy() != 0)
