"""Differentiable Lyapunov exponents against NumPy's QR, closed forms and central differences."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt.analysis import flossing, flossing_loss, lyapunov_exponents
from kbptt.callbacks import GradientFlossing

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 9, 3))


def make(cell, units=4, x=X, library=kbptt, **arguments):
    keras.utils.set_random_seed(1)
    layer = getattr(library, cell)(units, dtype="float64", **arguments)
    layer.build(x.shape)
    return layer


def differentiate(layer, x, count, **arguments):
    """Loss and gradients, compiled; values of the weights may be assigned between calls."""

    @functools.partial(tf.function, autograph=False)
    def function():
        with tf.GradientTape() as tape:
            loss = flossing_loss(layer, x, count, **arguments)
        return loss, tape.gradient(loss, [v.value for v in layer.trainable_variables])

    return function


def oracle(jacobians, count, burn_in=0, seed=0, batch=0, batches=1):
    """Means of log |R_ii| of Q_t R_t = J_t Q_{t−1}."""
    size = len(jacobians[0])
    start = np.random.default_rng(seed).normal(size=(batches, size, count))[batch]
    q, logs = np.linalg.qr(start)[0], []
    for jacobian in jacobians:
        q, r = np.linalg.qr(jacobian @ q)
        logs.append(np.log(np.abs(np.diag(r))))
    return np.mean(logs[burn_in:], axis=0)


def simple_rnn_jacobians(layer, x):
    """∂h_t/∂h_{t−1} = diag(1 − h_t²) Uᵀ."""
    kernel, recurrent, bias = (w.astype("float64") for w in layer.get_weights())
    h, found = np.zeros(len(recurrent)), []
    for x_t in x.astype("float64"):
        h = np.tanh(x_t @ kernel + h @ recurrent + bias)
        found.append((1 - h**2)[:, None] * recurrent.T)
    return found


def measured_jacobians(layer, x, widths):
    """Of the whole state, by central differences of the layer run for one timestep."""

    def run(state, x_t):
        parts = np.split(state[None], np.cumsum(widths)[:-1], axis=1)
        _, *new = layer(x_t[None, None], initial_state=[tf.constant(p) for p in parts])
        return np.concatenate([np.asarray(part)[0] for part in new])

    state, found = np.zeros(sum(widths)), []
    for x_t in x:
        step = 1e-5 * np.eye(len(state))
        columns = [(run(state + e, x_t) - run(state - e, x_t)) / 2e-5 for e in step]
        found.append(np.stack(columns, axis=1))
        state = run(state, x_t)
    return found


@pytest.mark.parametrize(("cell", "normalization"), [("GRU", None), ("LSTM", "layer")])
def test_exponents_are_those_of_the_layers_own_jacobians(cell, normalization):
    widths = [3, 3] if cell == "LSTM" else [3]
    layer = make(cell, 3, return_state=True, normalization=normalization)
    x = X[:1, :5]
    jacobians = measured_jacobians(layer, x[0], widths)
    found = flossing.exponents(layer, x, 3, burn_in=1, seed=7)
    np.testing.assert_allclose(found[0], oracle(jacobians, 3, 1, 7), atol=1e-5)


@pytest.mark.parametrize("interval", [1, 3, 20])
def test_each_sequence_has_its_own_and_the_interval_changes_none(interval):
    layer = make("SimpleRNN")
    found = flossing.exponents(layer, X, 3, burn_in=2, interval=interval)
    expected = [oracle(simple_rnn_jacobians(layer, x), 3, 2, 0, i, 2) for i, x in enumerate(X)]
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    loss = flossing_loss(layer, X, 3, burn_in=2, interval=interval)
    assert float(loss) == pytest.approx(np.mean(np.square(expected)), rel=1e-8)
    backwards = make("SimpleRNN", go_backwards=True)
    backwards.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        flossing.exponents(backwards, X[:, ::-1], 3, 2, interval), expected, rtol=1e-8
    )


def test_loss_and_gradient_of_a_scaled_orthogonal_matrix_have_a_closed_form():
    """All λ are log a, and Σλ = log |det U|, so that the gradient is (2 log a / n) U^{−T}."""
    layer = make("SimpleRNN", activation="linear", use_bias=False)
    orthogonal, _ = np.linalg.qr(RNG.normal(size=(4, 4)))
    layer.cell.recurrent_kernel.assign(0.8 * orthogonal)
    loss, (kernel, recurrent) = differentiate(layer, X, 4)()
    assert float(loss) == pytest.approx(np.log(0.8) ** 2, rel=1e-12)
    np.testing.assert_allclose(recurrent, 2 * np.log(0.8) / 4 * orthogonal / 0.8, atol=1e-12)
    assert not np.any(kernel)  # a linear network has the same Jacobian everywhere


@pytest.mark.parametrize(
    ("cell", "count", "arguments"),
    [
        ("SimpleRNN", 4, {}),
        ("SimpleRNN", 2, {"normalization": "layer"}),
        ("GRU", 3, {}),
        ("LSTM", 5, {"trainable_initial_state": True}),
    ],
)
def test_gradient_against_central_differences(cell, count, arguments):
    """Of every weight, along a random direction, through Jacobians and trajectory."""
    layer = make(cell, **arguments)
    for variable in layer.trainable_variables:  # also those that are 0 or 1 in the beginning
        variable.assign_add(0.3 * RNG.normal(size=variable.shape))
    function = differentiate(layer, X, count, burn_in=2, interval=2)
    _, gradients = function()
    for variable, gradient in zip(layer.trainable_variables, gradients, strict=True):
        value, direction = variable.numpy(), RNG.normal(size=variable.shape)
        losses = []
        for step in (1e-6, -1e-6):
            variable.assign(value + step * direction)
            losses.append(float(function()[0]))
        variable.assign(value)
        expected = (losses[0] - losses[1]) / 2e-6
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_half_precision_is_near_single():
    keras.utils.set_random_seed(0)
    half, single = (kbptt.GRU(4, dtype=dtype) for dtype in ("mixed_float16", "float32"))
    for layer in (half, single):
        layer.build(X.shape)
    half.set_weights(single.get_weights())
    found = flossing.exponents(half, X, 3)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, flossing.exponents(single, X, 3), atol=5e-3)


def test_layers_of_keras_and_stacks():
    layer, other = make("LSTM"), make("LSTM", library=keras.layers)
    other.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        flossing.exponents(layer, X, 3), flossing.exponents(other, X, 3), rtol=1e-10
    )
    stack = kbptt.RNN([keras.layers.GRUCell(2), keras.layers.LSTMCell(2)])
    x = RNG.normal(size=(1, 200, 3)).astype("float32")
    stack.build(x.shape)
    forward = tf.function(lambda: flossing.exponents(stack, x, 2, 50), autograph=False)
    # Forward and backward in time have one limit.
    np.testing.assert_allclose(forward()[0], lyapunov_exponents(stack, x, 2, 50), atol=0.02)


def test_arguments():
    layer = make("GRU")
    for arguments, name in [
        ({"count": 5}, "count"),
        ({"count": 0}, "count"),
        ({"count": 1, "burn_in": 9}, "burn_in"),
        ({"count": 1, "interval": 0}, "interval"),
        ({"count": 1, "seed": -1}, "seed"),
    ]:
        with pytest.raises(ValueError, match=f"`?{name}`?. Expected .* Received"):
            flossing_loss(layer, X, **arguments)
    with pytest.raises(ValueError, match="recurrent layer"):
        flossing_loss(keras.layers.Dense(2), X, 1)
    with pytest.raises(ValueError, match="`x`"):
        flossing_loss(layer, X[0], 1)


@pytest.mark.parametrize(("gain", "sign"), [(1.5, 1), (0.5, -1)])
def test_exponents_of_a_random_network_reach_zero(gain, sign):
    """From chaos and from contraction; those of new sequences, by NumPy and the other estimator."""
    count, units = 3, 64
    keras.utils.set_random_seed(0)
    random = keras.initializers.RandomNormal(stddev=gain / np.sqrt(units))
    layer = kbptt.SimpleRNN(units, recurrent_initializer=random)
    model = keras.Sequential([keras.Input((None, 1)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    rng = np.random.default_rng(0)
    x, new = (0.1 * rng.normal(size=size).astype("float32") for size in ((32, 55, 1), (4, 300, 1)))

    def exponents():
        return np.mean([oracle(simple_rnn_jacobians(layer, one), count, 50) for one in new], axis=0)

    assert sign * exponents()[0] > 0.02
    floss = GradientFlossing(250, x=x, count=count, learning_rate=0.002, burn_in=20)
    model.fit(x, x[:, 0], verbose=0, steps_per_epoch=1, callbacks=[floss])
    np.testing.assert_allclose(exponents(), 0, atol=0.02)
    np.testing.assert_allclose(lyapunov_exponents(layer, new, count, 50), 0, atol=0.02)
    losses = next(iter(floss.history.values()))
    assert len(losses) == 250 and np.mean(losses[-20:]) < np.mean(losses[:20]) / 5
