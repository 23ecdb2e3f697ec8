"""What training on windows with carried states equals: closed forms and long sequences."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from stream_loop import RECURRENT, build, sequences

import kbptt
from kbptt.analysis import linear_rnn
from kbptt.callbacks import StreamState
from kbptt.data import Streams
from kbptt.engine import using
from kbptt.truncation import Windowed

pytestmark = pytest.mark.usefixtures("float64")

ENGINES = pytest.mark.parametrize("engine", ["native", "tensorflow"])


class Recorded(keras.optimizers.SGD):
    """Adds up the gradients of all steps and leaves the weights as they are."""

    def __init__(self):
        super().__init__(0.0)

    def build(self, variables):
        super().build(variables)
        self.sums = [tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False) for v in variables]

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            with tf.init_scope():
                self.build(trainable_variables)
        for total, gradient in zip(self.sums, grads, strict=True):
            total.assign_add(gradient)
        self.iterations.assign_add(1)


def summed_gradients(model, data, pack=False):
    """Σ over windows of the gradient of the sum of squared errors."""
    model.compile(Recorded(), keras.losses.MeanSquaredError(reduction="sum"))
    model.fit(data, verbose=0, callbacks=[StreamState(data)])
    return [total.numpy() for total in model.optimizer.sums]


def gradient_of_long_sequences(model, xs, ys, truncation=None):
    for layer in model.layers:
        if hasattr(layer, "truncation"):
            layer.truncation = truncation
    weights = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        errors = [
            tf.reduce_sum(tf.reduce_mean(tf.square(model(x[None], training=True)[0] - y), -1))
            for x, y in zip(xs, ys, strict=True)
        ]
        loss = tf.add_n(errors)
    return [g.numpy() for g in tape.gradient(loss, weights)]


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@ENGINES
@pytest.mark.parametrize("cell", RECURRENT)
def test_windows_without_an_update_are_one_long_truncated_sequence(cell, engine):
    x, y = sequences(18, 11, seed=1)
    data = Streams(x, y, target=None, length=5, batch_size=2, offset=0)
    with using(native=engine == "native", jit=False):
        found = summed_gradients(build(cell), data)
        chunks = Windowed(5, stride=5, align="start")
        assert_close(found, gradient_of_long_sequences(build(cell), x, y, chunks))


@ENGINES
@pytest.mark.parametrize(
    "cell, context",
    [*((cell, 5) for cell in RECURRENT if cell != "stack"), ("LSTM", 1), ("SimpleRNN", 12)],
)
def test_a_context_is_a_sliding_window(cell, context, engine):
    """TBPTT(k1 = length, k2 = length + context).

    Not in layers one above the other, each with windows of its own: the lower one's begin where
    those of the upper one do, and reach back further.
    """
    x, y = sequences(17, 9, seed=2)
    data = Streams(x, y, target=None, length=4, batch_size=2, context=context, offset=0)
    with using(native=engine == "native", jit=False):
        found = summed_gradients(build(cell), data)
        # Windows of the long sequence are counted from its end: as many steps as fill the last.
        expected = None
        for one, target in zip(x, y, strict=True):
            missing = -len(one) % 4
            gradients = gradient_in_windows(build(cell), one, target, missing, context)
            expected = gradients if expected is None else list(map(np.add, expected, gradients))
        assert_close(found, expected)


def gradient_in_windows(model, x, y, missing, context):
    """That of `Windowed(4 + context, stride=4)`, for losses up to the end of the sequence."""
    for layer in model.layers:
        if hasattr(layer, "truncation"):
            layer.truncation = Windowed(4 + context, stride=4)
    pad = np.zeros((missing, x.shape[1]))
    weights = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        outputs = model(np.concatenate([x, pad])[None], training=True)[0][: len(x)]
        loss = tf.reduce_sum(tf.reduce_mean(tf.square(outputs - y), -1))
    return [g.numpy() for g in tape.gradient(loss, weights)]


def test_one_update_per_window_is_the_hand_loop_of_a_linear_rnn():
    """In NumPy alone: the guide's linear RNN, SGD, the state carried on."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(23, 3)), rng.normal(size=(23, 2))
    W_hx, W_hh, W_qh = (0.5 * rng.normal(size=s) for s in [(4, 3), (4, 4), (2, 4)])
    rate, length = 0.0625, 5
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            kbptt.SimpleRNN(4, activation=None, use_bias=False, return_sequences=True),
            keras.layers.Dense(2, use_bias=False),
        ]
    )
    model.set_weights([W_hx.T, W_hh.T, W_qh.T])
    model.compile(keras.optimizers.SGD(rate), keras.losses.MeanSquaredError())
    data = Streams(x, y, target=None, length=length, batch_size=1, offset=0)
    model.fit(data, verbose=0, callbacks=[StreamState(data)])
    h_0 = np.zeros(4)
    for start in range(0, 23, length):
        part, target = x[start : start + length], y[start : start + length]
        result = linear_rnn.bptt(part, target, W_hx, W_hh, W_qh, h_0=h_0)
        h_0 = linear_rnn.run(part, W_hx, W_hh, h_0)[-1]
        # Half a squared norm, the guide's loss, is Keras's mean over two outputs.
        W_hx, W_hh, W_qh = (
            w - rate * g
            for w, g in zip(
                (W_hx, W_hh, W_qh), (result.W_hx, result.W_hh, result.W_qh), strict=True
            )
        )
    for found, expected in zip(model.get_weights(), (W_hx, W_hh, W_qh), strict=True):
        np.testing.assert_allclose(found, expected.T, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("offset", [0, "random"])
def test_packed_or_not_the_loss_is_the_same(offset):
    x, y = sequences(17, 5, 9, 1, 12, 8)
    losses = []
    for pack in (False, True):
        data = Streams(x, y, target=None, length=4, batch_size=3, offset=offset, pack=pack)
        model = build("stack", pack=pack)
        model.compile(keras.optimizers.SGD(0.0), keras.losses.MeanSquaredError(), metrics=["mae"])
        history = model.fit(data, verbose=0, callbacks=[StreamState(data)]).history
        losses.append((history["loss"][0], history["mae"][0]))
        evaluated = kbptt.evaluate_stream(model, data)
        np.testing.assert_allclose((evaluated["loss"], evaluated["mae"]), losses[0], rtol=1e-12)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)


@ENGINES
@pytest.mark.parametrize("cell", RECURRENT)
def test_prediction_is_one_long_pass(cell, engine):
    """Bitwise in the C++ loops: what a sequence is after or beside changes nothing.

    TensorFlow's product of the inputs rounds by its size.
    """
    x, y = sequences(17, 5, 9)
    with using(native=engine == "native", jit=False):
        model, exact = build(cell, head=False), engine == "native" and cell != "own cell"
        long = [np.asarray(model(one[None], training=False))[0] for one in x]
        data = Streams(x, y, target=None, length=4, batch_size=2)
        for found in (
            kbptt.predict_stream(model, data),
            kbptt.predict_stream(model, data, batch_size=1),
            kbptt.predict_stream(model, Streams(x, length=6, batch_size=5, context=3)),
        ):
            for a, b in zip(found, long, strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=0 if exact else 1e-14)
        one = kbptt.predict_stream(model, Streams(x[0], length=4, batch_size=3))
        np.testing.assert_allclose(one, long[0], rtol=0, atol=0 if exact else 1e-14)


def test_prediction_of_packed_sequences():
    x, y = sequences(17, 5, 9)
    model = build("GRU", pack=True, head=False)
    data = Streams(x, y, target=None, length=4, batch_size=2, pack=True)
    plain = build("GRU", head=False)
    for found, one in zip(kbptt.predict_stream(model, data), x, strict=True):
        np.testing.assert_array_equal(found, np.asarray(plain(one[None]))[0])


def test_one_target_for_each_sequence():
    x, _ = sequences(17, 5, 9, 4)
    y = np.random.default_rng(3).normal(size=(4, 4))
    model = keras.Sequential([keras.Input((None, 3)), kbptt.LSTM(4)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    data = Streams(x, y, target="last", length=4, batch_size=3)
    long = np.concatenate([np.asarray(model(one[None])) for one in x])
    np.testing.assert_array_equal(kbptt.predict_stream(model, data), long)
    loss = model.fit(data, verbose=0, callbacks=[StreamState(data)]).history["loss"][0]
    np.testing.assert_allclose(loss, np.mean((long - y) ** 2), rtol=1e-12)
    found = kbptt.evaluate_stream(model, data)["loss"]
    np.testing.assert_allclose(found, np.mean((long - y) ** 2), rtol=1e-12)


def test_other_rows_do_not_matter():
    """A row whose sequence before is another starts afresh; the rest is the same, bitwise."""
    x, _ = sequences(6, 8, 9, 7)
    model = build("LSTM", head=False)
    other = [2 * x[0], *x[1:]]
    one, two = (
        kbptt.predict_stream(model, Streams(given, length=4), batch_size=2) for given in (x, other)
    )
    for number, (a, b) in enumerate(zip(one, two, strict=True)):
        assert np.array_equal(a, b) == (number != 0)
