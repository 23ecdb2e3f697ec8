"""`Stepper.export`: files that run step by step without kbptt and Keras."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from steppers import (
    BATCH,
    CALLS,
    CELLS,
    TOKENS,
    Subclassed,
    T,
    X,
    policy,
    randomize,
    sequential,
)

import kbptt

pytestmark = pytest.mark.filterwarnings("ignore")  # of TensorFlow's own exporters

STEPS = [(t, t + 1) for t in range(T)]


def served(path, x, calls=CALLS, states=None):
    """All outputs of a loaded SavedModel, by the calls of a stepper and by its signatures."""
    loaded = tf.saved_model.load(str(path))
    states, found = loaded.initial_states(len(x)), []
    for first, stop in calls:
        outputs, states = loaded(tf.constant(x[:, first:stop]), states)
        found.append(np.asarray(outputs))
    by_calls = np.concatenate(found, axis=1)
    serve, found = loaded.signatures["serving_default"], []
    states = loaded.signatures["initial_states"](batch_size=tf.constant(len(x)))
    for first, stop in calls:
        states = serve(x=tf.constant(x[:, first:stop]), **states)
        found.append(np.asarray(states.pop("outputs")))
    np.testing.assert_array_equal(np.concatenate(found, axis=1), by_calls)
    return by_calls


def interpreter(path):
    lite = getattr(tf, "lite", None)
    if lite is None or not hasattr(lite, "Interpreter"):
        lite = pytest.importorskip("ai_edge_litert.interpreter", reason="no LiteRT interpreter")
    return lite.Interpreter(str(path))


def lite(path, x, timesteps=1):
    runner = interpreter(path)
    states, found = runner.get_signature_runner("initial_states")(), []
    serve = runner.get_signature_runner("serving_default")
    for t in range(0, T, timesteps):
        states = serve(x=x[:, t : t + timesteps], **states)
        found.append(states.pop("outputs"))
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell(cell, tmp_path):
    model = sequential(CELLS[cell](return_sequences=True, name="rnn"), layers.Dense(2))
    stepper = kbptt.streaming(model)
    stepper.export(tmp_path / "saved")
    expected = np.asarray(model(X, training=False))
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(served(tmp_path / "saved", X), expected, rtol=0, atol=1e-6 * scale)
    contents = (tmp_path / "saved" / "saved_model.pb").read_bytes()
    assert b"PyFunc" not in contents and b"grad_fn" not in contents


@pytest.mark.parametrize("cell", ["LSTM", "stack", "own cell", "learned"])
def test_masks(cell, tmp_path):
    model = sequential(
        layers.Embedding(7, 4, mask_zero=True),
        CELLS[cell](return_sequences=True),
        layers.Dense(2),
        shape=(T,),
    )
    kbptt.streaming(model).export(tmp_path / "saved")
    tokens, expected = TOKENS.astype("float32"), model(TOKENS, training=False)
    np.testing.assert_allclose(served(tmp_path / "saved", tokens), expected, rtol=0, atol=1e-6)


WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("kbptt", "keras"):
            raise ModuleNotFoundError(name)

import numpy as np
import tensorflow as tf

# TensorFlow imports Keras itself.
for name in [n for n in sys.modules if n.split(".")[0] == "keras"]:
    del sys.modules[name]
assert "kbptt" not in sys.modules
sys.meta_path.insert(0, Blocked())
x, folder = np.load(sys.argv[1]), sys.argv[2]
stepper = tf.saved_model.load(folder)
states, found = stepper.initial_states(len(x)), []
for first, stop in ((0, 1), (1, 8), (8, x.shape[1])):
    outputs, states = stepper(x[:, first:stop], states)
    found.append(outputs)
np.save(sys.argv[3], np.concatenate(found, axis=1))
assert not {"kbptt", "keras"} & set(sys.modules)
"""


def test_in_a_process_without_kbptt_and_keras(tmp_path):
    model = sequential(
        kbptt.LSTM(8, return_sequences=True, truncation=kbptt.truncation.Windowed(6, stride=2)),
        layers.Dropout(0.3),
        kbptt.RNN([layers.GRUCell(5), layers.LSTMCell(4)], return_sequences=True),
        layers.Dense(2),
        shape=(T, 4),
    )
    kbptt.streaming(model).export(tmp_path / "saved")
    np.save(tmp_path / "x.npy", X)
    files = [str(tmp_path / name) for name in ("x.npy", "saved", "found.npy")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *files], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "gradient" not in done.stderr
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, model(X, training=False), rtol=0, atol=1e-6)


def test_fixed_sizes_and_signatures(tmp_path):
    model = sequential(kbptt.LSTM(5, name="my-rnn"), shape=(T, 4))
    stepper = kbptt.streaming(model)
    stepper.export(tmp_path / "saved", batch_size=2, timesteps=3)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    serve = loaded.signatures["serving_default"]
    inputs = {n: s.shape.as_list() for n, s in serve.structured_input_signature[1].items()}
    outputs = {n: s.shape.as_list() for n, s in serve.structured_outputs.items()}
    states = {"my_rnn_state_0": [2, 5], "my_rnn_state_1": [2, 5]}
    assert inputs == {"x": [2, 3, 4]} | states and outputs == {"outputs": [2, 5]} | states
    outputs, _ = loaded(X[:2, :3], loaded.initial_states())
    expected, _ = stepper(X[:2, :3], stepper.initial_states(2))
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-6)


def test_several_inputs_and_outputs(tmp_path):
    x, tokens = keras.Input((T, 4), name="signal"), keras.Input((T,), name="tokens", dtype="int32")
    both = layers.Concatenate()([x, layers.Embedding(7, 3)(tokens)])
    hidden = kbptt.GRU(5, return_sequences=True, name="rnn")(both)
    model = randomize(keras.Model({"b": x, "a": tokens}, [layers.Dense(2)(hidden), hidden]))
    kbptt.streaming(model).export(tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    states, found = loaded.signatures["initial_states"](batch_size=tf.constant(BATCH)), []
    for first, stop in CALLS:
        given = {"b": X[:, first:stop], "a": TOKENS[:, first:stop].astype("int32")}
        given = {name: tf.constant(value) for name, value in given.items()}
        states = loaded.signatures["serving_default"](**given, **states)
        found.append([states.pop("outputs_0"), states.pop("outputs_1")])
    expected = model({"b": X, "a": TOKENS}, training=False)
    for all_calls, whole in zip(zip(*found, strict=True), expected, strict=True):
        np.testing.assert_allclose(np.concatenate(all_calls, 1), whole, rtol=0, atol=1e-6)


def test_a_subclassed_model_once_it_was_called(tmp_path):
    model = Subclassed()
    model(X)
    stepper = kbptt.streaming(model)
    with pytest.raises(ValueError, match="call the stepper once"):
        stepper.export(tmp_path / "saved")
    expected, _ = stepper(X[:, :2], stepper.initial_states(BATCH))
    stepper.export(tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    outputs, _ = loaded(X[:, :2], loaded.initial_states(BATCH))
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=0, atol=1e-6)


def test_a_table_of_tokens(tmp_path):
    lookup = layers.IntegerLookup(vocabulary=[3, 5, 6])
    inputs = keras.Input((None,), dtype="int32")
    inner = [inputs, lookup, layers.Embedding(4, 3), kbptt.GRU(4, return_sequences=True)]
    model = randomize(keras.Sequential(inner))
    kbptt.streaming(model).export(tmp_path / "saved")
    tokens = TOKENS.astype("int32")
    found = served(tmp_path / "saved", tokens)
    np.testing.assert_allclose(found, model(tokens, training=False), rtol=0, atol=1e-6)


def test_mixed_precision(tmp_path):
    with policy("mixed_float16"):
        model = sequential(kbptt.LSTM(5, return_sequences=True))
        kbptt.streaming(model).export(tmp_path / "saved")
        expected = model(X, training=False)
    found = served(tmp_path / "saved", X)
    np.testing.assert_allclose(np.float32(found), np.float32(expected), rtol=0, atol=2e-3)


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN", "normalized", "stack", "own cell"])
def test_litert(cell, tmp_path):
    model = sequential(CELLS[cell](return_sequences=True, name="rnn"), layers.Dense(2))
    stepper = kbptt.streaming(model)
    stepper.export(tmp_path / "one.tflite")
    found = lite(tmp_path / "one.tflite", X[:1])
    np.testing.assert_allclose(found, model(X[:1], training=False), rtol=0, atol=1e-5)


def test_litert_with_masks_several_rows_and_timesteps(tmp_path):
    model = sequential(
        layers.Embedding(7, 4, mask_zero=True),
        kbptt.GRU(5, return_sequences=True, trainable_initial_state=True),
        layers.Dense(2),
        shape=(T,),
    )
    kbptt.streaming(model).export(tmp_path / "m", BATCH, timesteps=4, format="tflite")
    found = lite(tmp_path / "m", TOKENS.astype("float32"), timesteps=4)
    np.testing.assert_allclose(found, model(TOKENS, training=False), rtol=0, atol=1e-5)


def test_wrong_arguments(tmp_path):
    stepper = kbptt.streaming(sequential(kbptt.GRU(3)))
    with pytest.raises(ValueError, match=r"`format`.*'saved_model', 'tflite'.*'onnx'"):
        stepper.export(tmp_path / "x", format="onnx")
    for name in ("batch_size", "timesteps"):
        with pytest.raises(ValueError, match=f"`{name}`"):
            stepper.export(tmp_path / "x", **{name: 0})
    clashing = sequential(
        kbptt.GRU(4, return_sequences=True, name="my-rnn"), kbptt.GRU(4, name="my_rnn")
    )
    with pytest.raises(ValueError, match="different names"):
        kbptt.streaming(clashing).export(tmp_path / "x")
    assert not list(tmp_path.iterdir())
