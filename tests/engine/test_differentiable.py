"""The ordinary loop: the same gradients, and gradients of gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import CELLS, GivenFactors, assert_same, data, differentiate, make, reference

from kbptt.engine import differentiable
from kbptt.truncation import Windowed

T = 7


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
def test_the_ordinary_loop_gives_the_same_gradients(cell):
    problem = data(cell, T, batch=3)
    rng = np.random.default_rng(1)
    mask, resets = rng.random((3, T)) > 0.3, rng.random((3, T)) < 0.3
    layer = make(cell, gradient_clip=0.5)
    for size in [(), (3,), (3, 3, "start"), (20,)]:
        layer.truncation = Windowed(*size) if size else None
        for given in ({}, {"mask": mask, "resets": resets}):
            with differentiable():
                found = differentiate(layer, *problem, **given)
            assert_same(found, reference(layer, *problem, *size, clip=0.5, **given))


@pytest.mark.usefixtures("eager")
def test_the_ordinary_loop_with_random_factors():
    problem = data("GRU", T)
    xi = np.array([1, 2, 0, 2, 2, 0, 2.0])[:, None]
    layer = make("GRU", truncation=GivenFactors(xi))
    with differentiable():
        found = differentiate(layer, *problem)
    assert_same(found, reference(layer, *problem, xi=xi))


def penalty(layer, x):
    """The gradient of ‖∂L/∂(weights, inputs)‖² with respect to weights and inputs."""
    sources = [tf.convert_to_tensor(x), *(v.value for v in layer.trainable_variables)]
    with tf.GradientTape() as outer:
        outer.watch(sources)
        with tf.GradientTape() as inner:
            inner.watch(sources)
            outputs = layer(sources[0])
            outputs = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
            loss = tf.reduce_sum(tf.tanh(outputs) ** 2)
        squares = sum(tf.reduce_sum(g**2) for g in inner.gradient(loss, sources))
    return [g.numpy() for g in outer.gradient(squares, sources)]


@pytest.mark.parametrize("cell", CELLS)
def test_second_order_gradients_are_those_of_keras(cell):
    ours, theirs = make(cell), make(cell, library=keras.layers)
    x = data(cell, 5)[0]
    with differentiable():
        found = penalty(ours, x)
    for a, b in zip(found, penalty(theirs, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_the_ordinary_loop_records_every_backward_pass(wrap):
    """Of either call of the layer, on one tape and in any order, as the engine does."""
    layer = make("GRU", return_sequences=False, return_state=False)
    inputs = [tf.convert_to_tensor(data("GRU", T, seed=seed)[0]) for seed in (0, 1)]

    def norms():
        with tf.GradientTape(persistent=True) as tape:
            losses = [tf.reduce_sum(layer(x) ** 2) for x in inputs]
        found = []
        for loss in (*losses, losses[0]):
            gradient = tape.gradient(loss, layer.trainable_variables)
            with tf.control_dependencies(gradient):
                found.append(tf.identity(layer._norms))
        return found

    expected = [n.numpy()[:T] for n in wrap(norms)()]
    with differentiable():
        found = [n.numpy()[:T] for n in wrap(norms)()]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[1])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_second_order_gradients_are_refused_elsewhere(cell, wrap):
    layer = make(cell, truncation=2)
    x = tf.convert_to_tensor(data(cell, 5)[0])

    def second_order():
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(layer(x)[0])
            squares = tf.reduce_sum(inner.gradient(loss, x) ** 2)
        return outer.gradient(squares, x)

    with pytest.raises(ValueError, match=r"Second derivatives.*kbptt.engine.differentiable"):
        wrap(second_order)()


def test_sliding_windows_are_refused_where_no_ordinary_loop_has_them():
    layer = make("GRU", truncation=Windowed(3, 1))
    with (
        differentiable(),
        pytest.raises(ValueError, match=r"Sliding windows.*stride=1, length=3"),
    ):
        layer(data("GRU")[0])
    layer(data("GRU")[0])
