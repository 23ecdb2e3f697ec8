"""Inside Bidirectional, TimeDistributed, stacks and models that share a layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt.truncation import Windowed

T = 7
X = np.random.default_rng(0).normal(size=(2, T, 3))

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture(autouse=True)
def float64():
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy("float32")


def gradients(model, x):
    weights = [v.value for v in model.trainable_weights]
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch([x, *weights])
        outputs = tf.nest.flatten(model(x))
        loss = sum(tf.reduce_sum(tf.tanh(o) ** 2 * (i + 1)) for i, o in enumerate(outputs))
    return outputs, tape.gradient(loss, [x, *weights])


def assert_as_keras(build, x=X):
    """`build(library)` gives a model; both get the same weights."""
    ours, theirs = build(kbptt), build(keras.layers)
    ours(x), theirs(x)
    rng = np.random.default_rng(1)
    ours.set_weights([0.7 * rng.normal(size=w.shape) for w in ours.get_weights()])
    theirs.set_weights(ours.get_weights())
    for found, expected in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    return ours


@pytest.mark.parametrize("cell", ["SimpleRNN", "GRU", "LSTM"])
def test_bidirectional(cell):
    def build(library):
        layer = getattr(library, cell)(4, return_sequences=True, return_state=True)
        inputs = keras.Input((T, 3))
        return keras.Model(inputs, keras.layers.Bidirectional(layer)(inputs))

    model = assert_as_keras(build)
    both = model.layers[-1]
    assert type(both.forward_layer) is type(both.backward_layer) is getattr(kbptt, cell)
    assert both.backward_layer.gradient_norms.shape == (T,)


def test_bidirectional_passes_every_option_to_both_directions():
    layer = kbptt.GRU(4, truncation=Windowed(5, 2, "start"), gradient_clip=0.1)
    both = keras.layers.Bidirectional(layer)
    again = keras.layers.Bidirectional.from_config(both.get_config())
    for one in (both.backward_layer, again.forward_layer, again.backward_layer):
        assert one.truncation == layer.truncation
        assert one.gradient_clip == 0.1
    assert both.backward_layer.go_backwards


def test_a_backward_direction_is_cut_where_it_reads():
    """Windows are counted in the order of reading: the last output reaches `length` inputs."""
    layer = kbptt.GRU(4, go_backwards=True, truncation=3)
    x = tf.convert_to_tensor(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x))
    dx = tape.gradient(loss, x).numpy()
    assert np.all(dx[:, 3:] == 0)
    assert np.all(np.any(dx[:, :3] != 0, axis=-1))


def test_time_distributed_stacked_and_merged():
    def build(library):
        return keras.Sequential(
            [
                keras.layers.TimeDistributed(library.GRU(4)),
                keras.layers.Bidirectional(
                    library.LSTM(3, return_sequences=True), merge_mode="sum"
                ),
                library.SimpleRNN(4, go_backwards=True),
            ]
        )

    assert_as_keras(build, np.random.default_rng(2).normal(size=(2, 4, 3, 2)))


def test_a_layer_that_is_called_twice():
    def build(library):
        inputs = keras.Input((None, 3))
        shared = library.GRU(3, return_sequences=True)
        return keras.Model(inputs, shared(keras.layers.Dense(3)(shared(inputs))))

    assert_as_keras(build)


def test_a_layer_that_is_called_with_different_options():
    """One call with a mask, one with an initial state: none leaks into the other."""

    def build(library):
        inputs = keras.Input((T, 3))
        shared = library.LSTM(3, return_state=True, return_sequences=True)
        first, *states = shared(keras.layers.Masking(0.0)(inputs))
        return keras.Model(
            inputs, [first, *shared(inputs, initial_state=states), shared(inputs)[0]]
        )

    x = X.copy()
    x[0, 4:] = 0
    assert_as_keras(build, x)


def test_a_frozen_layer():
    def build(library):
        frozen = library.GRU(4, return_sequences=True)
        model = keras.Sequential([keras.layers.Dense(3), frozen, library.LSTM(3)])
        frozen.trainable = False
        return model

    model = assert_as_keras(build)
    assert len(model.trainable_weights) == 5


def test_chunks_cut_every_layer_of_a_stack_at_the_same_places():
    """A loss reaches no further through two layers than through one."""
    model = keras.Sequential(
        [kbptt.GRU(4, return_sequences=True, truncation=3), kbptt.GRU(4, truncation=3)]
    )
    dx = gradients(model, X)[1][0].numpy()
    assert np.all(dx[:, : T - 3] == 0)
    assert np.all(np.any(dx[:, T - 3 :] != 0, axis=-1))


def test_sliding_windows_reach_further_through_a_stack_unless_its_cells_are_in_one_layer():
    def reach(model):
        nonzero = np.any(gradients(model, X)[1][0].numpy() != 0, axis=(0, 2))
        assert np.all(np.diff(nonzero.astype(int)) >= 0)
        return nonzero.sum()

    sliding = Windowed(3, 1)
    layers = [kbptt.GRU(4, return_sequences=True, truncation=sliding), kbptt.GRU(4)]
    layers[1].truncation = sliding
    assert reach(keras.Sequential(layers)) == 5
    cells = [keras.layers.GRUCell(4), keras.layers.GRUCell(4)]
    assert reach(keras.Sequential([kbptt.RNN(cells, truncation=sliding)])) == 3
