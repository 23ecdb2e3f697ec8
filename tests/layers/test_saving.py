"""Saving, cloning and exporting models."""

import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt.engine import native
from kbptt.truncation import Windowed

T = 6
X = np.random.default_rng(0).normal(size=(2, T, 3)).astype("float32")


def model_of_everything():
    inputs = keras.Input((T, 3))
    x = kbptt.LSTM(4, truncation=Windowed(4, 2), return_sequences=True, name="a")(inputs)
    x = keras.layers.Bidirectional(
        kbptt.GRU(3, truncation="artbp", gradient_clip=0.5, return_sequences=True), name="b"
    )(x)
    x = kbptt.RNN([keras.layers.GRUCell(3), keras.layers.LSTMCell(2)], truncation=3, name="c")(x)
    return keras.Model(inputs, keras.layers.Dense(1)(x))


def test_keras_files(tmp_path):
    """Written, and read by a process that does `import kbptt` and nothing else of ours."""
    model = model_of_everything()
    model.compile("adam", "mse")
    model.fit(X, np.zeros((2, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    expected = model.predict(X, verbose=0)
    code = """
import sys, kbptt
assert "keras" not in sys.modules
import keras, numpy as np
model = keras.models.load_model(sys.argv[1] + "/model.keras")
assert type(model.get_layer("a")) is kbptt.LSTM, type(model.get_layer("a"))
assert model.get_layer("a").truncation == kbptt.truncation.Windowed(4, 2)
assert model.get_layer("b").backward_layer.gradient_clip == 0.5
x = np.load(sys.argv[1] + "/x.npy")
assert int(model.optimizer.iterations) == 1
np.save(sys.argv[1] + "/y.npy", model.predict(x, verbose=0))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of TensorFlow's own exporter
def test_export(tmp_path):
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, kbptt.LSTM(4, truncation=3)(inputs))
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((2, 4)), verbose=0)
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    for x in (X, X[:1, :4]):
        np.testing.assert_allclose(served.serve(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of TensorFlow's own exporter
@pytest.mark.parametrize(
    "options",
    [
        {"truncation": "artbp"},
        {"truncation": kbptt.truncation.Randomized([0.5] * T, per_sample=True, seed=1)},
        {"truncation": Windowed(3, 1), "gradient_clip": 0.1},
        {"gradient_regularizer": "vanishing_gradient", "truncation": 2},
        {"normalization": "layer", "dropout": 0.5},
        {"stateful": True},
        {"recurrent_dropout": 0.5},
        {"zoneout": 0.2, "h_detach": 0.5, "gradient_clip": kbptt.clipping.ByNorm(0.5)},
        {"normalization": "rms", "recurrent_parametrization": "exp"},
        {"truncation": "snap1"},
    ],
    ids=str,
)
def test_export_with_every_option(options, tmp_path):
    """What a gradient draws, reads and records is no part of an exported model."""
    model = keras.Sequential([keras.Input((T, 3), batch_size=2), kbptt.GRU(4, **options)])
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((2, 4)), batch_size=2, verbose=0)
    model.layers[0].reset_state()
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(served.serve(X), model(X), rtol=1e-5, atol=1e-6)


def test_a_graph_with_the_c_loops_in_it_is_not_saved(tmp_path):
    """It could run in no other process, and nothing said so."""
    if native.library() is None:
        pytest.skip("no compiled loops")
    # In a process of its own: TensorFlow's message looks for what refers to the resource, among all
    # objects that there are.
    code = """
import sys, kbptt, tensorflow as tf
layer = kbptt.GRU(4, truncation=3)
layer.build((None, 6, 3))
module = tf.Module()
module.layer, spec = layer, tf.TensorSpec([None, 6, 3])
flows = {
    "plain": lambda x: layer(x),
    "branch": lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: layer(x), lambda: layer(-x)),
}
for name, flow in flows.items():
    traced = tf.function(flow, autograph=False).get_concrete_function(spec)
    try:
        tf.saved_model.save(module, sys.argv[1], signatures=traced)
    except AssertionError as error:
        print(name, " ".join(str(error).split()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    for name in ("plain", "branch"):
        said = rf"{name} .*C_loops.*no_saved_model.*engine\.native\.disabled"
        assert re.search(said, done.stdout), done.stdout + done.stderr


@pytest.mark.filterwarnings("ignore")  # of TensorFlow's own exporter
def test_graphs_without_the_c_loops_are_saved(tmp_path):
    layer = kbptt.GRU(4, truncation=3)
    layer.build((None, T, 3))
    module = tf.Module()
    module.layer, spec = layer, tf.TensorSpec([None, T, 3])
    with native.disabled():
        traced = tf.function(lambda x: layer(x), autograph=False).get_concrete_function(spec)
        tf.saved_model.save(module, tmp_path / "yes", signatures=traced)
    assert b"PyFunc" not in (tmp_path / "yes" / "saved_model.pb").read_bytes()
    served = tf.saved_model.load(str(tmp_path / "yes")).signatures["serving_default"]
    (found,) = served(tf.constant(X)).values()
    np.testing.assert_allclose(found, layer(X), rtol=1e-5, atol=1e-6)
    # Without a signature the function is traced once more, for the file.
    module.call = tf.function(lambda x: layer(x), autograph=False, input_signature=[spec])
    module.call(X)
    tf.saved_model.save(module, tmp_path / "attribute")
    assert b"PyFunc" not in (tmp_path / "attribute" / "saved_model.pb").read_bytes()
    loaded = tf.saved_model.load(str(tmp_path / "attribute"))
    np.testing.assert_allclose(loaded.call(X), layer(X), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of TensorFlow's own exporter
def test_a_step_of_training_is_saved_and_trains(tmp_path):
    layer = kbptt.GRU(4, truncation=3)
    layer.build((None, T, 3))
    module = tf.Module()
    module.layer, module.weights = layer, [v.value for v in layer.trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec([None, T, 3])])
    def train(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x) ** 2)
        for weight, gradient in zip(
            module.weights, tape.gradient(loss, module.weights), strict=True
        ):
            weight.assign_sub(0.01 * gradient)
        return {"loss": loss}

    module.train = train
    tf.saved_model.save(module, tmp_path, signatures={"train": train})
    loaded = tf.saved_model.load(str(tmp_path))
    losses = [float(loaded.train(X)["loss"]) for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]


def test_a_graph_of_tensorflow_1():
    layer = kbptt.GRU(4)
    expected = layer(X)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        again = kbptt.GRU.from_config(layer.get_config())
        outputs = again(tf.constant(X))
        session.run(tf.compat.v1.global_variables_initializer())
        assert session.run(outputs).shape == expected.shape


def test_weights_are_exchanged_with_a_model_of_keras(tmp_path):
    def build(library):
        return keras.Sequential(
            [
                keras.Input((T, 3)),
                library.GRU(4, return_sequences=True, name="gru"),
                keras.layers.Bidirectional(library.LSTM(3), name="both"),
            ]
        )

    ours, theirs = build(kbptt), build(keras.layers)
    path = tmp_path / "w.weights.h5"
    for source, target in ((ours, theirs), (theirs, ours)):
        source.set_weights([w + 0.1 for w in source.get_weights()])
        source.save_weights(path)
        target.load_weights(path)
        np.testing.assert_allclose(source(X), target(X), rtol=1e-5, atol=1e-6)
