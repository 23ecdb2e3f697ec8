"""The layers are those of Keras: weights, outputs, states, and with no truncation the gradients."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import CELLS, STATES, data, differentiate, make, randomize, running_eagerly

import kbptt
from kbptt.cells import ACTIVATION
from kbptt.layers.projected import activation_names

VARIANTS = [
    ("SimpleRNN", {}),
    ("SimpleRNN", {"activation": "relu", "use_bias": False}),
    ("SimpleRNN", {"activation": "gelu"}),
    ("SimpleRNN", {"go_backwards": True}),
    ("GRU", {}),
    ("GRU", {"reset_after": False}),
    ("GRU", {"reset_after": False, "use_bias": False, "implementation": 1}),
    ("GRU", {"use_bias": False, "recurrent_activation": "hard_sigmoid"}),
    ("GRU", {"activation": "relu", "recurrent_activation": "tanh", "go_backwards": True}),
    ("LSTM", {}),
    ("LSTM", {"activation": "elu", "unroll": True}),
    ("LSTM", {"activation": "linear", "recurrent_activation": "relu", "use_bias": False}),
    ("LSTM", {"go_backwards": True, "implementation": 1, "return_sequences": False}),
]
DROPOUT = [
    ("SimpleRNN", {"dropout": 0.4, "recurrent_dropout": 0.3}),
    ("GRU", {"dropout": 0.4}),
    ("GRU", {"recurrent_dropout": 0.4}),
    # Without `use_cudnn=False` the layer of Keras itself fails here.
    ("LSTM", {"dropout": 0.4, "implementation": 1, "use_cudnn": False}),
    ("LSTM", {"dropout": 0.4}),
    ("LSTM", {"dropout": 0.3, "recurrent_dropout": 0.3, "implementation": 1}),
]


def pair(cell, truncation=None, **arguments):
    """A layer of kbptt and one of Keras with the same weights."""
    ours = make(cell, truncation=truncation, **arguments)
    theirs = make(cell, library=keras.layers, **arguments)
    theirs.set_weights(ours.get_weights())
    return ours, theirs


def assert_equal(found, expected, rtol):
    for index in (0, 1, 2, 4, 5):  # all but the norms, which Keras has not
        for a, b in zip(listed(found[index]), listed(expected[index]), strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1, np.abs(b).max()))


def listed(value):
    return value if isinstance(value, list) else [value]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("cell", "arguments"), VARIANTS, ids=str)
def test_full_bptt_is_the_gradient_of_keras(cell, arguments):
    ours, theirs = pair(cell, **arguments)
    x, state, e, d = data(cell)
    e = e if arguments.get("return_sequences", True) else None
    found = differentiate(ours, x, state, e, d)
    assert_equal(found, differentiate(theirs, x, state, e, d), 1e-10)
    # Without an initial state, and with a mask.
    mask = np.array([[True] * 6 + [False] * 3, [False, True] + [True, False, True] * 2 + [True]])
    for given in ({}, {"mask": mask}):
        found = differentiate(ours, x, None, e, d, **given)
        assert_equal(found, differentiate(theirs, x, None, e, d, **given), 1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_float32_as_compiled(cell):
    ours, theirs = pair(cell, dtype="float32")
    problem = tf.nest.map_structure(np.float32, data(cell, 12))
    assert_equal(differentiate(ours, *problem), differentiate(theirs, *problem), 1e-5)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("length", [1, 3, 4, 9])
def test_chunks_are_the_keras_layer_run_chunk_by_chunk(cell, length):
    """The loop that everybody writes by hand, with `stop_gradient` on the carried state."""
    ours, theirs = pair(cell, truncation=length)
    x, state, e, d = data(cell)
    first = x.shape[1] % length or length  # windows are counted from the end
    variables = [v.value for v in theirs.trainable_variables]
    inputs = tf.convert_to_tensor(x)
    sources = [inputs, *map(tf.convert_to_tensor, state), *variables]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        states, loss, start = list(sources[1 : 1 + STATES[cell]]), 0.0, 0
        for end in range(first, x.shape[1] + 1, length):
            outputs, *final = theirs(inputs[:, start:end], initial_state=states)
            loss += tf.reduce_sum(outputs * e[:, start:end])
            states, start = [tf.stop_gradient(s) for s in final], end
        loss += sum(tf.reduce_sum(a * b) for a, b in zip(final, d, strict=True))
    expected = [g.numpy() for g in tape.gradient(loss, sources, unconnected_gradients="zero")]
    dx, d_state, d_weights, *_ = differentiate(ours, x, state, e, d)
    for a, b in zip([dx, *d_state, *d_weights], expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("cell", "arguments"), DROPOUT, ids=str)
def test_dropout_draws_the_masks_of_keras(cell, arguments):
    ours, theirs = (rebuilt(layer, {**arguments, "seed": 7}) for layer in pair(cell))
    x, state, e, d = data(cell)
    found = differentiate(ours, x, state, e, d, training=True)
    assert_equal(found, differentiate(theirs, x, state, e, d, training=True), 1e-10)
    # Another call draws others; without training there are none.
    again = differentiate(ours, x, state, e, d, training=True)
    assert np.any(again[4] != found[4])
    plain = differentiate(ours, x, state, e, d)
    assert_equal(plain, differentiate(theirs, x, state, e, d), 1e-10)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("cell", "arguments"), DROPOUT, ids=str)
def test_all_windows_share_the_dropout_masks(cell, arguments):
    """The engine against the ordinary loop, which knows nothing of windows in the batch."""
    problem = data(cell)
    found = []
    for truncation in [4, kbptt.truncation.Windowed(4, 4)]:
        layer = rebuilt(make(cell), {**arguments, "seed": 7, "truncation": truncation})
        if not found:
            found.append(differentiate(layer, *problem, training=True))
        else:
            with kbptt.engine.differentiable():
                found.append(differentiate(layer, *problem, training=True))
    assert_equal(*found, 1e-10)
    np.testing.assert_allclose(found[0][3], found[1][3], rtol=1e-5)


def rebuilt(layer, arguments):
    copy = type(layer).from_config({**layer.get_config(), **arguments})
    copy.build((None, None, 3))
    copy.set_weights(layer.get_weights())
    return copy


@pytest.mark.parametrize("cell", CELLS)
def test_weights_are_those_of_keras(cell):
    ours, theirs = pair(cell, truncation="artbp")
    names = [[(v.path.split("/")[1:], tuple(v.shape)) for v in x.weights] for x in (ours, theirs)]
    assert names[0] == names[1]
    assert len(ours.trainable_weights) == len(theirs.trainable_weights) == 3
    assert not ours.non_trainable_weights
    randomize(theirs, 4)
    ours.set_weights(theirs.get_weights())
    x = data(cell)[0]
    np.testing.assert_allclose(ours(x)[0], theirs(x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_initial_weights_are_those_of_keras(cell):
    layers = []
    for library in (kbptt, keras.layers):
        keras.utils.set_random_seed(11)
        layer = getattr(library, cell)(4)
        layer.build((None, None, 3))
        layers.append(layer)
    for a, b in zip(*(layer.get_weights() for layer in layers), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("cell", CELLS)
def test_configuration_adds_only_our_own(cell):
    ours, theirs = (getattr(lib, cell)(4, name="rnn") for lib in (kbptt, keras.layers))
    own = {"truncation", "gradient_clip", "normalization", "gradient_regularizer"}
    config = ours.get_config()
    assert {k: v for k, v in config.items() if k not in own} == theirs.get_config()
    assert {k: config[k] for k in own} == dict.fromkeys(own)
    assert isinstance(ours, getattr(keras.layers, cell))


@pytest.mark.parametrize("engine", ["native", "tensorflow"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_activation_of_the_loops_is_that_of_keras(cell, engine):
    """In every place, from arguments below, at and above where they bend."""
    for name in ACTIVATION:
        places = ["activation", *["recurrent_activation"][: cell != "SimpleRNN"]]
        ours, theirs = pair(cell, **dict.fromkeys(places, name))
        # exp(exp(exp(…))) is soon too large.
        explosive = name == "exponential"
        x, *others = data(cell, timesteps=1 if explosive else 2)
        x *= 0.1 if explosive else 2
        with running_eagerly(engine):
            found = differentiate(ours, x, *others)
            expected = differentiate(theirs, x, *others)
        assert_equal(found, expected, 1e-10)
        assert ours.loops == {"cpu" if engine == "native" else "tensorflow"}, name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("swish", "silu"),
        ("hard_swish", "hard_silu"),
        (keras.activations.gelu, "gelu"),
        (tf.nn.elu, "elu"),
        (None, "linear"),
        (lambda x: keras.activations.gelu(x), None),
        (functools.partial(keras.activations.elu, alpha=0.5), None),
        (keras.activations.celu, None),  # its derivative at 0 is not that of elu in Keras
    ],
)
def test_activations_that_the_loops_know(given, name):
    found = activation_names(kbptt.SimpleRNN(2, activation=given))
    assert found == (None if name is None else (name,))


def tanh(x):
    """Another function of the same name."""
    return keras.ops.sin(x)


ACTIVATIONS = [tanh, functools.partial(keras.activations.relu, max_value=0.3), tf.nn.relu]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=["tanh", "partial", "tensorflow"])
@pytest.mark.parametrize("cell", CELLS)
def test_activations_are_not_told_by_their_names(cell, activation):
    ours, theirs = pair(cell, activation=activation)
    found = differentiate(ours, *data(cell))
    assert_equal(found, differentiate(theirs, *data(cell)), 1e-10)
