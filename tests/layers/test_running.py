"""Ways of running a model: accumulation, several steps at once, changing shapes, own loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import data, differentiate, make, randomize, running_eagerly

import kbptt
from kbptt.engine import native
from kbptt.truncation import Windowed

T = 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, T, 3)).astype("float32")
Y = RNG.normal(size=(12, 4)).astype("float32")


def model(truncation=4, timesteps=T, **arguments):
    keras.utils.set_random_seed(0)
    # Keras cannot make the default, an orthogonal matrix, in bfloat16.
    layer = kbptt.GRU(4, truncation=truncation, recurrent_initializer="glorot_uniform")
    net = keras.Sequential([keras.Input((timesteps, 3)), layer])
    net.compile(loss="mse", **{"optimizer": keras.optimizers.SGD(0.1), **arguments})
    return net


def fit(net, x=X, y=Y, batch_size=4, **arguments):
    net.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0, **arguments)
    return net.get_weights()


def assert_close(a, b, rtol=1e-4, atol=1e-6):
    for u, v in zip(a, b, strict=True):
        np.testing.assert_allclose(u, v, rtol=rtol, atol=atol)


def own_loop(net, batches):
    """The loop of a user, without `fit`."""
    optimizer = keras.optimizers.SGD(0.1)
    for x, y in batches:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((net(x, training=True) - y) ** 2)
        grads = tape.gradient(loss, net.trainable_variables)
        optimizer.apply(grads, net.trainable_variables)
    return net.get_weights()


def test_every_way_to_run_gives_the_same_weights():
    """`fit` in graph, eager and XLA, several steps at once, and a loop of one's own."""
    expected = fit(model())
    for arguments in ({"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}):
        assert_close(fit(model(**arguments)), expected)
    batches = [(X[i : i + 4], Y[i : i + 4]) for i in (0, 4, 8)]
    assert_close(own_loop(model(), batches), expected)


def test_gradient_accumulation_is_one_large_batch():
    accumulated = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    assert_close(fit(model(optimizer=accumulated)), fit(model(), batch_size=12))


def test_the_last_batch_is_smaller_and_two_fits():
    net = model()
    first = fit(net, batch_size=5)
    assert net.layers[-1].gradient_norms.shape == (T,)
    batches = [(X[i : i + 5], Y[i : i + 5]) for i in (0, 5, 10)]
    assert_close(first, own_loop(model(), batches))
    assert_close(fit(net, batch_size=5), own_loop(model(), batches * 2))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_number_of_timesteps_changes_between_batches(jit_compile):
    """Without a retracing storm, whether the layer knew the number or not."""
    lengths = [6, 4, 5, 6, 3]
    batches = [(X[:4, :n], Y[:4]) for n in lengths]
    net = model(truncation=Windowed(4, 2), timesteps=None, jit_compile=jit_compile)
    for x, y in batches:
        net.train_on_batch(x, y)
        assert net.layers[-1].gradient_norms.shape == (x.shape[1],)
    with running_eagerly():
        expected = own_loop(model(truncation=Windowed(4, 2), timesteps=None), batches)
    assert_close(net.get_weights(), expected)
    assert net.train_function is not None


def test_compiled_functions_are_made_once():
    """One trace for all batches of one shape, one more when the shape changes."""
    layer = make("GRU", truncation=4)
    with native.disabled():
        for timesteps in (6, 6, 5, 4, 7):
            differentiate(layer, *data("GRU", timesteps))
    (loop,) = layer._loops.values()
    assert loop.compiled_forward.traced.experimental_get_tracing_count() <= 2
    assert loop.compiled_backward.traced.experimental_get_tracing_count() <= 2


def test_changing_the_truncation_between_two_fits():
    net = model(truncation=2)
    fit(net)
    layer = net.layers[-1]
    np.testing.assert_array_equal(layer.gradient_norms > 0, [0, 0, 0, 0, 1, 1])
    layer.truncation = 4
    net.make_train_function(force=True)
    fit(net)
    np.testing.assert_array_equal(layer.gradient_norms > 0, [0, 0, 1, 1, 1, 1])


def test_an_error_in_the_middle_leaves_the_layer_usable():
    net = model()

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(net, callbacks=[Stop()])
    fit(net)
    with pytest.raises(ValueError, match="initial_state"):
        net.layers[-1](X, initial_state=[np.zeros((12, 3))])
    net.layers[-1](X)


def test_op_determinism():
    """Bitwise equal from run to run with fixed seeds, random truncation included."""

    def run():
        keras.utils.set_random_seed(5)
        layer = kbptt.LSTM(4, truncation="artbp", dropout=0.2)
        net = keras.Sequential([keras.Input((T, 3)), layer])
        randomize(net)
        net.compile("adam", "mse")
        return fit(net, epochs=2)

    for a, b in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("cell", ["SimpleRNN", "GRU", "LSTM", "RNN"])
def test_mixed_precision(cell, policy):
    """Outputs and states in half precision, gradients close to those in float32."""
    x, _, e, _ = (tf.nest.map_structure(np.float32, v) for v in data("GRU", T))
    found = []
    with running_eagerly():
        for p in (policy, "float32"):
            if cell == "RNN":
                layer = kbptt.RNN(
                    keras.layers.LSTMCell(4, dtype=p), dtype=p, truncation=4,
                    return_sequences=True, return_state=True,
                )  # fmt: skip
                layer.build((None, None, 3))
                randomize(layer)
            else:
                layer = make(cell, dtype=p, truncation=4)
            weights = list(layer.trainable_variables)
            with tf.GradientTape() as tape:
                outputs, *states = layer(x)
                loss = tf.reduce_sum(tf.cast(outputs, "float32") * e)
            found.append((tape.gradient(loss, weights), outputs, layer.gradient_norms))
            dtype = "float32" if p == "float32" else policy.removeprefix("mixed_")
            assert outputs.dtype == dtype
            assert all(s.dtype == dtype for s in states)
            assert all(w.dtype == "float32" for w in weights)
            assert layer.gradient_norms.dtype == np.float32
    (half, low, low_norms), (full, high, norms) = found
    np.testing.assert_allclose(tf.cast(low, "float32"), high, atol=0.02)
    np.testing.assert_allclose(low_norms, norms, rtol=0.05)
    for a, b in zip(half, full, strict=True):
        assert a.dtype == "float32"
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.03 * np.abs(b).max())


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "float64"])
def test_policies_train_under_fit(policy):
    keras.config.set_dtype_policy(policy)
    try:
        net = model()
        before = net.get_weights()
        fit(net)
        change = [
            np.abs(np.float32(a) - np.float32(b)).max()
            for a, b in zip(before, net.get_weights(), strict=True)
        ]
        assert all(0 < c < 1 for c in change)
        assert np.all(net.layers[-1].gradient_norms[-4:] > 0)
    finally:
        keras.config.set_dtype_policy("float32")


def test_small_gradients_survive_half_precision():
    """The recurrence runs in float32: a gradient below float16's smallest number is no zero."""
    layer = kbptt.SimpleRNN(1, activation="linear", use_bias=False, dtype="mixed_float16")
    layer.build((None, 40, 1))
    layer.set_weights([np.ones((1, 1)), np.full((1, 1), 0.5)])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(layer(np.ones((1, 40, 1))), "float32"))
    tape.gradient(loss, layer.trainable_variables)
    np.testing.assert_allclose(layer.gradient_norms, 0.5 ** np.arange(39, -1, -1.0), rtol=1e-5)


@pytest.mark.parametrize("run", [lambda f: f, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize("cell", ["LSTM", "RNN"])
def test_the_gradient_of_a_gather_is_sparse(cell, run):
    """A loss on some samples sends back IndexedSlices."""
    layer = make("LSTM", truncation=4, return_state=False)
    if cell == "RNN":
        layer = kbptt.RNN(layer.cell, truncation=4, return_sequences=True)
    x = data("LSTM", T, batch=4)[0]

    def gradients(pick):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(pick(layer(x)) ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    found = run(lambda: gradients(lambda y: tf.gather(y, [0, 2])))()
    expected = gradients(lambda y: tf.stack([y[0], y[2]]))
    assert_close(found, expected, rtol=1e-10, atol=1e-12)
