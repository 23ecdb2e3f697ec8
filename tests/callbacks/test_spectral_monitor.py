"""What SpectralMonitor logs is what `kbptt.analysis` computes, at the right steps."""

import warnings

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from kbptt.analysis import spectral
from kbptt.analysis.lyapunov import lyapunov_exponents
from kbptt.callbacks import SpectralMonitor

X = np.random.default_rng(0).normal(size=(6, 4, 2)).astype("float32")
Y = X.sum(axis=(1, 2))[:, None]

# Re-emitted by `pytest.warns` as if it were ours: Keras reading TensorFlow's eager tensors.
eager_tensors = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def build(*layers):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4, 2)), *layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    return model


def fit(model, *callbacks, **arguments):
    model.fit(X, Y, batch_size=2, verbose=0, callbacks=list(callbacks), **arguments)


def scalars(log_dir):
    accumulator = event_accumulator.EventAccumulator(str(log_dir), size_guidance={"tensors": 0})
    accumulator.Reload()
    return {
        tag: [(e.step, float(e.tensor_proto.float_val[0])) for e in accumulator.Tensors(tag)]
        for tag in accumulator.Tags()["tensors"]
    }


def test_each_epoch_from_before_the_first_step(tmp_path):
    layer = keras.layers.LSTM(3, name="memory")
    model, monitor = build(layer), SpectralMonitor(tmp_path)
    before = spectral.summarize(layer)
    fit(model, monitor, epochs=2)
    assert monitor.history["step"] == [0, 3, 6]
    after = spectral.summarize(layer)
    assert set(monitor.history) == {"step", *(f"memory/{name}" for name in after)}
    written = scalars(tmp_path)
    for name, value in after.items():
        series = monitor.history[f"memory/{name}"]
        assert series[0] == before[name] and series[-1] == value
        steps, values = zip(*written[f"gradient_flow_stats/memory/{name}"], strict=True)
        assert list(steps) == [0, 3, 6]
        np.testing.assert_allclose(values, series, rtol=1e-6)
    assert before["spectral_radius_f"] != after["spectral_radius_f"]


@pytest.mark.parametrize(("log_freq", "steps"), [(1, [0, 1, 2, 3, 4, 5, 6]), (2, [0, 2, 4, 6])])
def test_every_so_many_steps(log_freq, steps):
    monitor = SpectralMonitor(log_freq=log_freq)
    fit(build(keras.layers.GRU(2, name="gru")), monitor, epochs=2)
    assert monitor.history["step"] == steps
    assert len(monitor.history["gru/spectral_radius_z"]) == len(steps)


def test_lyapunov_exponents_of_every_layer_at_its_own_input():
    first = keras.layers.GRU(3, return_sequences=True, name="first")
    second = keras.layers.SimpleRNN(2, name="second")
    model = build(keras.layers.Dense(2), first, second)
    monitor = SpectralMonitor(x=X, exponents=2)
    fit(model, monitor)
    dense = model.layers[0](X)
    for layer, inputs in [(first, dense), (second, first(dense))]:
        for i, expected in enumerate(lyapunov_exponents(layer, inputs, 2)):
            logged = monitor.history[f"{layer.name}/lyapunov_exponent_{i + 1}"][-1]
            assert logged == pytest.approx(expected, rel=1e-5)
    one = SpectralMonitor(x=X)
    fit(model, one)
    assert "second/lyapunov_exponent" in one.history


def test_lyapunov_exponents_of_layers_with_masks_and_states_and_called_twice():
    tokens = keras.Input((5,), dtype="int32")
    first = keras.layers.SimpleRNN(3, return_sequences=True, return_state=True, name="first")
    shared = keras.layers.GRU(2, return_sequences=True, name="shared")
    embedding = keras.layers.Embedding(4, 2, mask_zero=True)
    sequences, state = first(embedding(tokens), initial_state=keras.ops.ones((1, 3)))
    model = keras.Model(tokens, keras.layers.Dense(1)(shared(shared(embedding(tokens)))))
    model = keras.Model(tokens, [*model.outputs, sequences, state])
    model.compile("sgd")
    model.optimizer.build(model.trainable_variables)
    x = np.array([[1, 2, 3, 1, 2]])
    monitor = SpectralMonitor(x=x)
    monitor.set_model(model)
    monitor.on_train_begin()
    monitor.on_train_batch_begin(0)
    for layer in (first, shared):
        expected = lyapunov_exponents(layer, embedding(x))
        assert monitor.history[f"{layer.name}/lyapunov_exponent"] == pytest.approx(expected)


def test_wrapped_and_equally_named_layers():
    model = build(keras.layers.Bidirectional(keras.layers.LSTM(2, name="my rnn")))
    monitor = SpectralMonitor(x=X)
    fit(model, monitor)
    names = {key.rpartition("/")[0] for key in monitor.history if key != "step"}
    assert names == {"forward_my_rnn", "backward_my_rnn"}


def test_two_fits_continue_and_a_new_model_starts_over(tmp_path):
    model, monitor = build(keras.layers.SimpleRNN(2)), SpectralMonitor(tmp_path)
    fit(model, monitor)
    fit(model, monitor)
    assert monitor.history["step"] == [0, 3, 6]
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)  # iterations restart
    fit(model, monitor)
    assert monitor.history["step"] == [0, 3, 6, 9]
    fit(build(keras.layers.SimpleRNN(2)), monitor)
    assert monitor.history["step"] == [0, 3]


def test_after_an_exception():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("stop")

    model, monitor = build(keras.layers.SimpleRNN(2)), SpectralMonitor()
    with pytest.raises(RuntimeError, match="stop"):
        fit(model, monitor, Stop())
    fit(model, monitor)
    assert monitor.history["step"] == [0, 1, 4]


def test_a_subclass_model_is_logged_once_built():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.rnn = keras.layers.GRU(2, name="inner")
            self.head = keras.layers.Dense(1)

        def call(self, x):
            return self.head(self.rnn(x))

    model = Own()
    model.compile("sgd", "mse", run_eagerly=True)
    monitor = SpectralMonitor()
    fit(model, monitor)
    assert monitor.history["step"][-1] == 3 and monitor.history["inner/spectral_radius_z"]
    with pytest.raises(ValueError, match="functional or Sequential"):
        fit(model, SpectralMonitor(x=X))


@eager_tensors
def test_a_model_without_recurrent_layers_warns():
    model = build(keras.layers.Flatten())
    with pytest.warns(UserWarning, match="no recurrent layer"):
        fit(model, SpectralMonitor())


def test_evaluate_and_predict_log_nothing():
    model, monitor = build(keras.layers.SimpleRNN(2)), SpectralMonitor()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.evaluate(X, Y, verbose=0, callbacks=[monitor])
        model.predict(X, verbose=0, callbacks=[monitor])
    assert monitor.history == {"step": []}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"log_freq": 0}, "log_freq"),
        ({"log_freq": "batch"}, "log_freq"),
        ({"exponents": 0}, "exponents"),
        ({"log_dir": 3}, "log_dir"),
    ],
)
def test_invalid_arguments_name_the_argument(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        SpectralMonitor(**arguments)
