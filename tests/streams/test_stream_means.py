"""Losses and metrics are means over the timesteps that belong to a sequence."""

import keras
import numpy as np
import pytest
from stream_loop import build, sequences

import kbptt
from kbptt.callbacks import StreamState
from kbptt.data import Streams

SIZES = 17, 5, 9, 1, 12, 8

pytestmark = pytest.mark.usefixtures("float64")


def frozen(model, loss="mse", **compiled):
    model.compile(keras.optimizers.SGD(0.0), loss, **compiled)
    return model


def results(model, data, **validation):
    """What `fit`, validation and `evaluate_stream` report of a model that does not change."""
    history = model.fit(
        data, verbose=0, callbacks=[StreamState(data)], validation_data=data
    ).history
    fitted = {k: v[0] for k, v in history.items() if not k.startswith("val_")}
    validated = {k[4:]: v[0] for k, v in history.items() if k.startswith("val_")}
    return [fitted, validated, kbptt.evaluate_stream(model, data)]


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight"])
def test_padding_has_no_weight(reduction):
    x, y = sequences(*SIZES)
    # Long sequences and short ones: most windows of the last rows are padding.
    data = Streams(x, y, target=None, length=6, batch_size=4, context=2)
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    mean = keras.metrics.MeanMetricWrapper
    model = frozen(
        build("LSTM"),
        loss,
        metrics=["mae", mean(keras.losses.mean_squared_error, name="own")],
        weighted_metrics=[keras.metrics.MeanAbsolutePercentageError(name="mape")],
    )
    outputs = np.concatenate([np.asarray(model(one[None]))[0] for one in x])
    targets = np.concatenate(y)
    expected = {
        "loss": np.mean((outputs - targets) ** 2),
        "mae": np.mean(np.abs(outputs - targets)),
        "own": np.mean((outputs - targets) ** 2),
        "mape": 100 * np.mean(np.abs((outputs - targets) / targets)),
    }
    for found in results(model, data):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-10, err_msg=name)


def test_a_mask_of_the_model_itself_counts_too():
    """Timesteps that an Embedding masks have no loss; states and outputs go on across windows."""
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 4, size) for size in (19, 8, 13)]
    y = [rng.normal(size=(len(one), 4)) for one in x]
    x[0][5:9] = 0  # masked from the end of a window to the beginning of the next
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(4, 3, mask_zero=True),
            kbptt.GRU(3, return_sequences=True, trainable_initial_state=True),
            kbptt.RNN([keras.layers.LSTMCell(4)], return_sequences=True),
        ]
    )
    model.layers[1].weights[0].assign([0.3, -0.2, 0.5])
    frozen(model, metrics=["mae"])
    long = [np.asarray(model(one[None]))[0] for one in x]
    for length in (3, 7):
        data = Streams(x, y, target=None, length=length, batch_size=2)
        for found, expected in zip(kbptt.predict_stream(model, data), long, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
        real = [one != 0 for one in x]
        error = [(a - b)[keep] for a, b, keep in zip(long, y, real, strict=True)]
        error = np.concatenate(error)
        for found in results(model, data):
            np.testing.assert_allclose(found["loss"], np.mean(error**2), rtol=1e-10)
            np.testing.assert_allclose(found["mae"], np.mean(np.abs(error)), rtol=1e-10)


def test_several_outputs():
    x, _ = sequences(17, 5, 9)
    inputs = keras.Input((None, 3))
    h = kbptt.LSTM(4, return_sequences=True)(inputs)
    model = keras.Model(inputs, {"a": keras.layers.Dense(2)(h), "b": (h, h[:, -1])})
    predicted = kbptt.predict_stream(model, Streams(x, length=6, batch_size=4))
    assert predicted["b"][1].shape == (3, 4)
    for number, one in enumerate(x):
        expected = model(one[None])
        np.testing.assert_allclose(predicted["a"][number], expected["a"][0], rtol=1e-12)
        np.testing.assert_array_equal(predicted["b"][0][number], expected["b"][0][0])


def test_metrics_that_read_no_mask_get_real_steps_alone():
    """AUC, precision and the like, and metrics of the user's own."""

    class Own(keras.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(keras.ops.abs(y_true - y_pred), sample_weight)

    def metrics():
        return [
            keras.metrics.AUC(name="auc"),
            keras.metrics.Precision(name="precision"),
            keras.metrics.FalsePositives(name="false"),
            keras.metrics.RootMeanSquaredError(name="rmse"),
            keras.metrics.BinaryAccuracy(name="accuracy"),
            Own(name="own"),
        ]

    x, _ = sequences(17, 5, 9, 1)
    rng = np.random.default_rng(4)
    y = [rng.integers(0, 2, (len(one), 1)).astype("float64") for one in x]
    head = keras.layers.Dense(1, "sigmoid", kernel_initializer="ones")
    lstm = kbptt.LSTM(4, return_sequences=True)
    model = frozen(
        keras.Sequential([keras.Input((None, 3)), lstm, head]),
        "binary_crossentropy",
        metrics=metrics(),
    )
    data = Streams(x, y, target=None, length=4, batch_size=3)
    outputs = np.concatenate([np.asarray(model(one[None]))[0] for one in x])
    expected = {}
    for metric in metrics():
        metric.update_state(np.concatenate(y), outputs)
        expected[metric.name] = float(metric.result())
    for found in results(model, data):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("head", ["(T, 1)", "(T,)"])
@pytest.mark.parametrize("rows, length", [(1, 4), (4, 4), (3, 4), (2, 1)])
def test_a_number_for_each_timestep(rows, length, head):
    """Targets ``(timesteps,)``: Keras takes the last axis of a loss for features, not for time."""
    x, _ = sequences(20, 5, 9)
    y = [np.random.default_rng(len(one)).normal(size=len(one)) for one in x]
    layers = [kbptt.LSTM(4, return_sequences=True), keras.layers.Dense(1)]
    if head == "(T,)":
        layers.append(keras.layers.Lambda(lambda h: h[..., 0]))
    model = frozen(keras.Sequential([keras.Input((None, 3)), *layers]), metrics=["mae"])
    outputs = np.concatenate([np.ravel(model(one[None])) for one in x])
    error = outputs - np.concatenate(y)
    data = Streams(x, y, target=None, length=length, batch_size=rows)
    for found in results(model, data):
        np.testing.assert_allclose(found["loss"], np.mean(error**2), rtol=1e-10)
        np.testing.assert_allclose(found["mae"], np.mean(np.abs(error)), rtol=1e-10)
    series = Streams(y[0], length=length, batch_size=rows)
    assert series[0][0].shape == (rows, length)


def test_many_steps_in_half_precision():
    """Their number is beyond what float16 can count."""
    x = np.zeros((70_000, 1), "float32")
    layers = [kbptt.SimpleRNN(1, return_sequences=True), keras.layers.Dense(1, dtype="float16")]
    model = keras.Sequential([keras.Input((None, 1)), *layers])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    data = Streams(x, x + 1, target=None, length=100, batch_size=700, offset=0)
    loss = model.fit(data, verbose=0, callbacks=[StreamState(data)]).history["loss"]
    np.testing.assert_allclose(loss, 1.0, rtol=1e-3)
