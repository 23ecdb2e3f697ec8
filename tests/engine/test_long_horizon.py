"""100,000 timesteps of state and gradient against closed forms in float64.

Where a gate is saturated or the recurrent kernel is orthogonal, nothing is to be lost on the way,
in whichever loop it runs.
"""

import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt.engine import native, using

T = 100_000
# Operation by operation a pass takes a minute.
LOOPS = ["c", "xla", pytest.param("graph", marks=pytest.mark.slow)]
in_all_loops = pytest.mark.parametrize("loop", LOOPS)


def run(loop, layer, weights, start, final, x=None):
    """Final states, gradients of the start and of the weights; `final`: of the loss, by state."""
    if loop == "c" and native.library() is None:
        pytest.skip("the C loops were not built")
    x = np.zeros((1, T, 1), "float32") if x is None else x
    layer.build(x.shape)
    layer.set_weights(weights)
    with using(native=loop == "c", jit=loop != "graph"):
        variables = [v.value for v in layer.trainable_variables]
        states = [tf.constant(s, tf.float32) for s in start]
        with tf.GradientTape() as tape:
            tape.watch([*states, *variables])
            _, *reached = layer(x, initial_state=states)
            loss = sum(tf.reduce_sum(s * g) for s, g in zip(reached, final, strict=True))
        gradients = tape.gradient(loss, [*states, *variables])
    assert layer.loops == {"cpu" if loop == "c" else "tensorflow"}
    reached, gradients = ([v.numpy() for v in values] for values in (reached, gradients))
    return reached, gradients[: len(start)], gradients[len(start) :]


@in_all_loops
def test_an_lstm_with_an_open_forget_gate_keeps_its_cell(loop):
    """The input gate is closed but for σ(−40) = 4e-18, which is right to many places as well."""
    start = [np.zeros((1, 2)), np.array([[1.0, -0.75]])]
    x = np.random.default_rng(0).normal(size=(1, T, 1)).astype("float32")
    kernel = np.repeat([0.0, 0.0, 1.0, 0.0], 2)[None]
    bias = np.repeat([-40.0, 40.0, 0.5, 0.0], 2)
    (_, c), (dh, dc), (d_kernel, d_recurrent, d_bias) = run(
        loop,
        kbptt.LSTM(2, return_state=True),
        [kernel, np.zeros((2, 8)), bias],
        start,
        [np.zeros((1, 2)), np.array([[1.0, 2.0]])],
        x,
    )
    np.testing.assert_array_equal(c, start[1])
    np.testing.assert_array_equal(dc, [[1.0, 2.0]])
    np.testing.assert_array_equal(dh, 0)
    i, g = np.exp(-40.0), np.tanh(np.float64(x[0, :, 0]) + 0.5)
    d_i, d_g = i * g.sum(), i * (1 - g**2).sum()
    expected = np.outer([d_i, 0, d_g, 0], [1.0, 2.0]).ravel()
    np.testing.assert_allclose(d_bias, expected, rtol=2e-5)
    d_g = i * ((1 - g**2) * x[0, :, 0]).sum()
    np.testing.assert_allclose(d_kernel[0, 4:6], d_g * np.array([1.0, 2.0]), rtol=1e-4)
    np.testing.assert_array_equal(d_kernel[0, 2:4], 0)
    assert np.isfinite(d_recurrent).all()


@in_all_loops
def test_a_gru_whose_update_gate_is_closed_keeps_its_state(loop):
    start = [np.array([[0.9, -0.3]])]
    bias = np.zeros((2, 6))
    bias[0] = np.repeat([40.0, 0.0, 0.5], 2)
    (h,), (dh,), gradients = run(
        loop,
        kbptt.GRU(2, return_state=True),
        [np.zeros((1, 6)), np.ones((2, 6)), bias],
        start,
        [np.array([[1.0, 2.0]])],
    )
    np.testing.assert_array_equal(h, np.float32(start[0]))
    np.testing.assert_array_equal(dh, [[1.0, 2.0]])
    for d in gradients:
        np.testing.assert_array_equal(d, 0)


@in_all_loops
def test_the_identity_keeps_state_and_gradient(loop):
    """Every timestep adds the same to the gradients of bias and kernel: 100,000 · 0.1."""
    start, final = np.array([[0.7, -1.3]]), np.array([[0.1, 0.3]])
    (h,), (dh,), (_, d_recurrent, d_bias) = run(
        loop,
        kbptt.SimpleRNN(2, activation="linear", return_state=True),
        [np.zeros((1, 2)), np.eye(2), np.zeros(2)],
        [start],
        [final],
    )
    np.testing.assert_array_equal(h, np.float32(start))
    np.testing.assert_array_equal(dh, np.float32(final))
    np.testing.assert_allclose(d_bias, T * final[0], rtol=2e-5)
    np.testing.assert_allclose(d_recurrent, T * start.T * final, rtol=2e-5)


@in_all_loops
def test_a_rotation_neither_grows_nor_shrinks(loop):
    """Beyond the rounding of its entries, which float64 does as well here."""
    angle = 0.37
    rotation = np.float32([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    start, final = np.array([[0.6, 0.8]]), np.array([[1.0, 0.0]])
    (h,), (dh,), _ = run(
        loop,
        kbptt.SimpleRNN(2, activation="linear", use_bias=False, return_state=True),
        [np.zeros((1, 2)), rotation],
        [start],
        [final],
    )
    power = np.linalg.matrix_power(np.float64(rotation), T)
    np.testing.assert_allclose(h, start @ power, atol=1e-3)
    np.testing.assert_allclose(dh, final @ power.T, atol=1e-3)


@pytest.mark.skipif(native.library() is None, reason="the C loops were not built")
@pytest.mark.parametrize("cell", ["SimpleRNN", "GRU", "LSTM"])
def test_sums_over_many_timesteps_lose_little(cell):
    """Gradients of all weights in float32 against float64, 8 samples of 20,000 timesteps."""
    rng = np.random.default_rng(0)
    # Far from 0 on average: the terms of each sum have mostly one sign.
    x = (0.3 * rng.normal(size=(8, 20_000, 3)) + 0.5).astype("float32")
    found = {}
    for dtype in ("float32", "float64"):
        layer = getattr(kbptt, cell)(6, return_sequences=True, dtype=dtype)
        layer.build(x.shape)
        draw = np.random.default_rng(1)
        layer.set_weights([0.3 * draw.normal(size=w.shape) for w in layer.get_weights()])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x.astype(dtype)) ** 2)
        found[dtype] = tape.gradient(loss, layer.trainable_variables)
    for a, b in zip(found["float32"], found["float64"], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())
