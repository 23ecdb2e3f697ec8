"""The contract of every layer. A new one, or a new option, joins by one line in `LAYERS`.

That they compute the right numbers is the subject of other files; here, that everything around
the numbers works for each as for the layers of Keras.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from recurrent import running_eagerly

import kbptt
from kbptt import _keras

B, T, FEATURES = 2, 4, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, FEATURES)).astype("float32")
OUTER = RNG.normal(size=(B, 2, T, FEATURES)).astype("float32")


@keras.saving.register_keras_serializable(package="tests")
class LayerCell(layers.Layer):
    """A cell of a user: the output is no state."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.output_size = 2

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1] + self.units, self.units), name="kernel")
        self.projection = self.add_weight(shape=(self.units, 2), name="projection")
        self.built = True

    def call(self, inputs, states):
        h = ops.tanh(ops.concatenate([inputs, states[0]], axis=-1) @ self.kernel)
        return h @ self.projection, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def converted(**options):
    model = keras.Sequential([keras.Input((T, FEATURES)), layers.LSTM(3, **options)])
    return kbptt.convert(model, truncation=2).layers[-1]


def stack():
    return [layers.GRUCell(2), layers.LSTMCell(3)]


# Name: how to make the layer, with options that all recurrent layers have.
LAYERS = {
    "SimpleRNN": lambda **o: kbptt.SimpleRNN(3, **o),
    "GRU": lambda **o: kbptt.GRU(3, **o),
    "LSTM": lambda **o: kbptt.LSTM(3, **o),
    "windows": lambda **o: kbptt.LSTM(3, truncation=kbptt.truncation.Windowed(3, 1), **o),
    "random": lambda **o: kbptt.GRU(3, truncation="artbp", gradient_clip=0.5, **o),
    "reset before": lambda **o: kbptt.GRU(3, reset_after=False, truncation=2, **o),
    "normalized": lambda **o: kbptt.LSTM(3, normalization="layer", truncation=2, **o),
    "regularized": lambda **o: kbptt.SimpleRNN(3, gradient_regularizer="vanishing_gradient", **o),
    "parametrized": lambda **o: kbptt.LSTM(3, recurrent_parametrization="exp", **o),
    "recurrence": lambda **o: kbptt.LSTM(
        3,
        zoneout=(0.2, 0.5),
        recurrent_dropout=0.3,
        normalization="rms",
        gradient_clip=kbptt.clipping.ByNorm(0.5),
        truncation=2,
        **o,
    ),
    "SnAp-1": lambda **o: kbptt.GRU(3, truncation="snap1", **o),
    "RNN(cell)": lambda **o: kbptt.RNN(layers.GRUCell(3), truncation=2, **o),
    "RNN(stack)": lambda **o: kbptt.RNN(stack(), **o),
    "RNN(own cell)": lambda **o: kbptt.RNN(LayerCell(3), truncation=3, **o),
    "convert": converted,
    "Bidirectional": lambda **o: layers.Bidirectional(kbptt.GRU(3, truncation=2, **o)),
    "TimeDistributed": lambda **o: layers.TimeDistributed(kbptt.LSTM(3, truncation=2, **o)),
}
WRAPPERS = ["Bidirectional", "TimeDistributed"]
RANDOM = ["random"]  # its gradient is another in every pass

every_layer = pytest.mark.parametrize("name", LAYERS)
every_plain_layer = pytest.mark.parametrize("name", [n for n in LAYERS if n not in WRAPPERS])


@pytest.fixture
def eager():
    with running_eagerly("native"):
        yield


def inputs(name):
    return OUTER if name == "TimeDistributed" else X


def built(name, **options):
    layer = LAYERS[name](**options)
    layer.build(inputs(name).shape)
    rng = np.random.default_rng(1)
    layer.set_weights([0.5 * rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def recurrent_layers(layer):
    return [one for one in _keras.flatten_layers(layer) if hasattr(type(one), "gradient_norms")]


def assert_same(found, expected, tolerance=1e-5):
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@every_layer
def test_config(name):
    layer = LAYERS[name](return_sequences=True)
    config = layer.get_config()
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == config
    serialized = keras.saving.serialize_keras_object(layer)
    other = keras.saving.deserialize_keras_object(serialized)
    assert type(other) is type(layer)
    for one in (again, other):
        for a, b in zip(recurrent_layers(layer), recurrent_layers(one), strict=True):
            assert type(a) is type(b)
            assert (a.truncation, a.gradient_clip) == (b.truncation, b.gradient_clip)


@pytest.mark.usefixtures("eager")
@every_layer
def test_cloned_saved_and_loaded(name, tmp_path):
    model = keras.Sequential([keras.Input(inputs(name).shape[1:]), built(name)])
    expected = model(inputs(name))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    empty = keras.models.clone_model(model)
    empty.load_weights(tmp_path / "model.weights.h5")
    for one in (clone, loaded, empty):
        assert_same(one(inputs(name)), expected)
        assert one.layers[-1] is not model.layers[-1]
        assert config_of(one.layers[-1]) == config_of(model.layers[-1])


def config_of(layer):
    """The config, without the shapes that the layers inside were built with."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k != "build_config"}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return plain(layer.get_config())


@pytest.mark.usefixtures("eager")
@every_layer
@pytest.mark.parametrize(
    "options", [{}, {"return_sequences": True}, {"return_state": True}], ids=str
)
def test_symbolic_shapes_and_dtypes(name, options):
    if name == "TimeDistributed" and "return_state" in options:
        pytest.skip("Keras's TimeDistributed knows one output")
    for dtype in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(dtype)
        try:
            layer = LAYERS[name](**options)
        finally:
            keras.config.set_dtype_policy("float32")
        found = tf.nest.flatten(layer(inputs(name)))
        symbolic = layer(keras.Input(batch_shape=inputs(name).shape))
        symbolic = keras.tree.flatten(symbolic)
        assert [tuple(v.shape) for v in found] == [tuple(v.shape) for v in symbolic]
        assert [v.dtype.name for v in found] == [v.dtype for v in symbolic]
        assert {v.dtype.name for v in found} == {"float16" if dtype != "float32" else "float32"}
        shapes = layer.compute_output_shape(inputs(name).shape)
        assert [tuple(v.shape) for v in found] == flat_shapes(shapes)


def flat_shapes(shapes):
    if isinstance(shapes[0], int):
        return [tuple(shapes)]
    return [shape for part in shapes for shape in flat_shapes(part)]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", [n for n in LAYERS if n != "TimeDistributed"])
def test_masked_timesteps_are_as_if_they_were_not_there(name):
    layer = built(name)
    assert layer.supports_masking
    x, mask = X.copy(), np.ones((B, T), bool)
    x[:, 3:], mask[:, 3:] = np.nan, False
    found = gradients(layer, x, mask=mask)
    expected = gradients(layer, x[:, :3])
    assert_same(found[0], expected[0])
    np.testing.assert_array_equal(found[1][:, 3:], 0)
    if all(one.truncation == kbptt.truncation.Full() for one in recurrent_layers(layer)):
        # Else windows are counted from other ends.
        assert_same(found[1][:, :3], expected[1])
        assert_same(found[2:], expected[2:])
    sequences = LAYERS[name](return_sequences=True)
    masked = layers.Masking(np.inf)(np.where(mask[..., None], x, np.inf))
    np.testing.assert_array_equal(sequences(masked)._keras_mask, mask)


def gradients(layer, x, **arguments):
    """Output, and gradients of the inputs and weights."""
    x = tf.convert_to_tensor(x)
    weights = [w.value for w in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch([x, *weights])
        y = layer(x, **arguments)
        loss = tf.reduce_sum(tf.cast(y, "float32") ** 2)
    return [y, *map(tf.convert_to_tensor, tape.gradient(loss, [x, *weights]))]


@pytest.mark.usefixtures("eager")
@every_layer
def test_every_timestep_has_a_gradient_norm(name):
    layer = built(name)
    found = recurrent_layers(layer)
    assert found and all(one.gradient_norms is None for one in found)
    gradients(layer, inputs(name))
    for one in found:
        assert one.gradient_norms.shape == (T,) and np.any(one.gradient_norms > 0)
    for one in found:
        before, one.record_gradient_norms = one.gradient_norms, False
        gradients(layer, 3 * inputs(name))
        np.testing.assert_array_equal(one.gradient_norms, before)


def trained(name, **compile_arguments):
    """The weights after one step on each of some batches of different lengths."""
    keras.utils.set_random_seed(0)
    shape = (*inputs(name).shape[1:-2], None, FEATURES)
    model = keras.Sequential([keras.Input(shape), built(name), layers.Flatten(), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", **compile_arguments)
    for timesteps in (4, 3):
        model.train_on_batch(inputs(name)[..., :timesteps, :], np.ones((B, 1)))
    return model.get_weights()


# The graph of a stack takes ten seconds; the dtypes' test compiles one.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "RNN(stack)")) for n in LAYERS]
)
@pytest.mark.parametrize(
    "how", [{}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)], ids=str
)
def test_a_compiled_step_is_the_eager_one_for_any_number_of_timesteps(name, how):
    if name in RANDOM:
        pytest.skip("other random numbers")
    assert_same(trained(name, **how), trained(name, run_eagerly=True), 1e-4)


@pytest.mark.usefixtures("eager")
@every_plain_layer
def test_a_reset_starts_a_sequence(name):
    layer = built(name, return_sequences=True)
    resets = np.zeros((B, T), bool)
    resets[:, 2] = True
    found = layer(X, resets=resets)
    assert_same(found[:, :2], layer(X[:, :2]))
    assert_same(found[:, 2:], layer(X[:, 2:]))
    with tf.GradientTape() as tape:
        x = tf.Variable(X)
        loss = tf.reduce_sum(layer(x, resets=resets)[:, 2:] ** 2)
    dx = tape.gradient(loss, x)
    np.testing.assert_array_equal(dx[:, :2], 0)
    assert np.any(dx[:, 2:])


@pytest.mark.usefixtures("eager")
@every_plain_layer
def test_a_stateful_layer_goes_on(name):
    options = {"return_sequences": True}
    expected = built(name, **options)(X)
    if name == "convert":
        pytest.skip("its model has no batch size")
    if name == "recurrence":
        pytest.skip("draws in training")
    layer = built(name, stateful=True, **options)
    for _ in range(2):
        parts = [layer(part, training=True) for part in (X[:, :2], X[:, 2:])]
        assert_same(tf.concat(parts, axis=1), expected)
        layer.reset_state()
    with pytest.raises(ValueError, match="batch size must stay the same"):
        layer(X[:1])
    assert len(layer.weights) == len(built(name).weights)


@pytest.mark.usefixtures("eager")
@every_layer
def test_mixed_precision(name):
    layers_of = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            layers_of.append(built(name))
        finally:
            keras.config.set_dtype_policy("float32")
    full, half = (gradients(layer, inputs(name)) for layer in layers_of)
    assert half[0].dtype == "float16"
    assert all(g.dtype == "float32" for g in half[1:])
    if name not in RANDOM:
        assert_same([tf.cast(v, "float32") for v in half], full, 2e-2)
