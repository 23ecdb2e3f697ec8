"""Exercise 1 of the guide, gates of real layers, and Lyapunov exponents against NumPy products."""

import keras
import numpy as np
import pytest

import kbptt
from kbptt.analysis import spectral
from kbptt.analysis.gradient_flow import decay_per_step
from kbptt.analysis.lyapunov import lyapunov_exponents
from kbptt.initializers import SpectralRadius

RNG = np.random.default_rng(0)


def symmetric(eigenvalues, seed=0):
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return q @ np.diag(eigenvalues) @ q.T, q


@pytest.mark.parametrize("exponent", [1, 2, 5])
def test_a_power_has_the_powers_of_the_eigenvalues(exponent):
    eigenvalues = np.array([1.3, -1.1, 0.7, 0.2])
    matrix, _ = symmetric(eigenvalues)
    np.testing.assert_allclose(
        spectral.eigenvalues_of_power(matrix, exponent), eigenvalues**exponent, atol=1e-12
    )


def test_power_alignment_follows_its_closed_form():
    """tan of the angle of M^k x to v₁, from the coefficients of x in the eigenbasis."""
    eigenvalues = np.array([1.2, -0.9, 0.5])
    matrix, q = symmetric(eigenvalues)
    x = RNG.normal(size=3)
    cosines = spectral.power_alignment(matrix, 20, x)
    for k in range(21):
        coefficients = eigenvalues**k * (q.T @ x)
        expected = abs(coefficients[0]) / np.linalg.norm(coefficients)
        assert cosines[k] == pytest.approx(expected, rel=1e-10)
    tangents = np.tan(np.arccos(np.minimum(cosines, 1.0)))
    assert (tangents[1:] <= 0.9 / 1.2 * tangents[:-1] * (1 + 1e-6)).all()


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_power_alignment_neither_overflows_nor_vanishes(scale):
    matrix, _ = symmetric([1.0, 0.5, -0.3])
    cosines = spectral.power_alignment(scale * matrix, 500)
    assert cosines[-1] == pytest.approx(1.0)


def test_a_vector_in_the_null_space_is_refused():
    with pytest.raises(ValueError, match="null space"):
        spectral.power_alignment(np.diag([1.0, 0.0]), 3, np.array([0.0, 1.0]))


def test_radius_and_singular_values_of_a_non_normal_matrix():
    """Radius below 1 and norm above: a gradient grows at first, though it vanishes in the end."""
    matrix = np.array([[0.5, 10.0], [0.0, 0.4]])
    assert spectral.spectral_radius(matrix) == pytest.approx(0.5)
    largest, smallest = spectral.singular_values(matrix)
    assert largest * smallest == pytest.approx(0.2)
    assert largest**2 + smallest**2 == pytest.approx(np.sum(matrix**2))


@pytest.mark.parametrize("matrix", [np.ones((2, 3)), np.ones(4), np.zeros((0, 0))])
def test_only_square_matrices(matrix):
    with pytest.raises(ValueError, match="square"):
        spectral.spectral_radius(matrix)


@pytest.mark.parametrize(("cell", "gates"), [("SimpleRNN", [""]), ("GRU", "zrh"), ("LSTM", "ifco")])
def test_gate_blocks_are_the_gates_of_keras(cell, gates):
    layer = getattr(keras.layers, cell)(3)
    layer.build((None, None, 2))
    blocks = spectral.gate_blocks(layer)
    assert list(blocks) == list(gates)
    kernel = layer.get_weights()[1]
    for i, block in enumerate(blocks.values()):
        np.testing.assert_array_equal(block, kernel[:, 3 * i : 3 * i + 3].astype("float64"))


def test_the_forget_gate_is_the_forget_gate():
    """With only its block non-zero, h reaches the next state through the forget gate alone."""
    layer = keras.layers.LSTM(2, unit_forget_bias=False)
    layer.build((None, None, 1))
    block = spectral.gate_blocks(layer)["f"]
    kernel = np.zeros((2, 8))
    kernel[:, 2:4] = block
    layer.set_weights([np.zeros((1, 8)), kernel, np.zeros(8)])
    h, c = RNG.normal(size=(2, 1, 2))
    _, (_, new_c) = layer.cell(np.zeros((1, 1), "float32"), [h.astype("f4"), c.astype("f4")])
    np.testing.assert_allclose(new_c, c / (1 + np.exp(-h @ block)), rtol=1e-5)


def test_summary_of_layers_stacks_and_foreign_cells():
    layer = keras.layers.LSTM(4, recurrent_initializer=SpectralRadius(0.9, "glorot_normal"))
    layer.build((None, None, 2))
    summary = spectral.summarize(layer)
    assert len(summary) == 12
    for gate in "ifco":
        assert summary[f"spectral_radius_{gate}"] == pytest.approx(0.9, rel=1e-5)
        assert summary[f"smallest_singular_value_{gate}"] < 0.9
        assert summary[f"largest_singular_value_{gate}"] > 0.9
    stack = keras.layers.RNN([keras.layers.GRUCell(2), keras.layers.SimpleRNNCell(3)])
    stack.build((None, None, 2))
    assert list(spectral.gate_blocks(stack)) == ["0_z", "0_r", "0_h", "1"]
    assert "spectral_radius_1" in spectral.summarize(stack)
    assert spectral.gate_blocks(keras.layers.Dense(3)) == {}


def test_a_diverged_kernel_gives_nan():
    layer = keras.layers.SimpleRNN(2)
    layer.build((None, None, 1))
    layer.cell.recurrent_kernel.assign([[1.0, np.nan], [0.0, 1.0]])
    assert np.isnan(list(spectral.summarize(layer).values())).all()


def test_recurrent_layers_are_found_inside_wrappers():
    model = keras.Sequential(
        [
            keras.Input((4, 2)),
            keras.layers.Bidirectional(keras.layers.LSTM(2, return_sequences=True)),
            keras.Sequential([keras.layers.GRU(2)]),
        ]
    )
    kinds = [type(layer).__name__ for layer in spectral.recurrent_layers(model)]
    assert sorted(kinds) == ["GRU", "LSTM", "LSTM"]


# Lyapunov exponents


def linear_layer(matrix):
    n = len(matrix)
    layer = keras.layers.SimpleRNN(n, activation="linear", use_bias=False, dtype="float64")
    layer.build((None, None, 1))
    layer.set_weights([np.ones((1, n)), matrix.T])
    return layer


def test_exponents_of_a_linear_rnn_are_its_log_eigenvalues():
    eigenvalues = np.array([1.1, -0.8, 0.5])
    layer = linear_layer(symmetric(eigenvalues)[0])
    exponents = lyapunov_exponents(layer, np.zeros((2, 150, 1)), count=3, burn_in=50)
    np.testing.assert_allclose(exponents, np.log(np.abs(eigenvalues)), atol=1e-8)


def test_exponents_of_a_scaled_orthogonal_matrix_are_exact_at_any_length():
    q, _ = np.linalg.qr(RNG.normal(size=(4, 4)))
    exponents = lyapunov_exponents(linear_layer(0.9 * q), np.zeros((1, 3, 1)), count=2)
    np.testing.assert_allclose(exponents, np.log(0.9), rtol=1e-12)


def simple_rnn_jacobians(layer, x):
    """∂h_t/∂h_{t−1} = diag(1 − h_t²) Uᵀ, in NumPy."""
    kernel, recurrent, bias = (w.astype("float64") for w in layer.get_weights())
    h, jacobians = np.zeros(recurrent.shape[0]), []
    for x_t in x:
        h = np.tanh(x_t @ kernel + h @ recurrent + bias)
        jacobians.append(np.diag(1 - h**2) @ recurrent.T)
    return jacobians


def test_the_sum_of_all_exponents_is_the_log_determinant_of_the_product():
    """An identity at any length and for any vectors to begin with."""
    layer = keras.layers.SimpleRNN(3, dtype="float64")
    x = RNG.normal(size=(2, 30, 2))
    exponents = lyapunov_exponents(layer, x, count=3)
    expected = np.mean(
        [
            sum(np.linalg.slogdet(jacobian)[1] for jacobian in simple_rnn_jacobians(layer, one))
            for one in x
        ]
    )
    assert 30 * exponents.sum() == pytest.approx(expected, rel=1e-10)


def test_the_largest_exponent_is_the_growth_of_the_product_along_the_data():
    layer = keras.layers.SimpleRNN(3, dtype="float64", recurrent_initializer="random_normal")
    x = RNG.normal(size=(1, 40, 2))
    layer.build(x.shape)
    layer.cell.recurrent_kernel.assign(1.5 * np.eye(3) + RNG.normal(size=(3, 3)) / 5)
    (largest,) = lyapunov_exponents(layer, x, count=1, seed=4)
    vector, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(1, 3, 1)))
    gradient = vector[0, :, 0]
    for jacobian in reversed(simple_rnn_jacobians(layer, x[0])):
        gradient = jacobian.T @ gradient
    assert largest == pytest.approx(np.log(np.linalg.norm(gradient)) / 40, rel=1e-10)


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_exponents_of_gated_cells_equal_their_brute_force_jacobians(cell):
    """Jacobian of the whole state by central differences of the cell, step by step."""
    layer = getattr(keras.layers, cell)(2, dtype="float64")
    x = RNG.normal(size=(1, 6, 2))
    exponents = lyapunov_exponents(layer, x, count=2 if cell == "GRU" else 4)
    widths = [2] if cell == "GRU" else [2, 2]

    def advance(state, x_t):
        parts = np.split(state[None], np.cumsum(widths)[:-1], axis=1)
        _, new = layer.cell(x_t[None], [keras.ops.convert_to_tensor(p) for p in parts])
        return np.concatenate([np.asarray(part)[0] for part in keras.tree.flatten(new)])

    state, total = np.zeros(sum(widths)), 0.0
    for x_t in x[0]:
        step = 1e-6 * np.eye(len(state))
        columns = [(advance(state + e, x_t) - advance(state - e, x_t)) / 2e-6 for e in step]
        total += np.linalg.slogdet(np.stack(columns, axis=1))[1]
        state = advance(state, x_t)
    assert 6 * exponents.sum() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("cell", ["SimpleRNN", "LSTM"])
@pytest.mark.parametrize("normalization", [None, "layer"])
def test_the_exponent_of_kbptt_layers_is_what_the_layer_does_to_its_initial_state(
    cell, normalization
):
    """The product P of all Jacobians is ∂s_T/∂s_0: perturb s_0 and run the layer itself."""
    layer = getattr(kbptt, cell)(4, return_state=True, normalization=normalization, dtype="float64")
    x = RNG.normal(size=(1, 5, 3))
    parts = 2 if cell == "LSTM" else 1
    (exponent,) = lyapunov_exponents(layer, x, seed=4)

    def last_state(state):
        start = [keras.ops.convert_to_tensor(part) for part in np.split(state[None], parts, 1)]
        _, *final = layer(x, initial_state=start)
        return np.concatenate([np.asarray(part)[0] for part in final])

    step = 1e-5 * np.eye(4 * parts)
    product = np.stack([(last_state(e) - last_state(-e)) / 2e-5 for e in step], axis=1)
    vector, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(1, 4 * parts, 1)))
    growth = np.linalg.norm(product.T @ vector[0, :, 0])
    assert exponent == pytest.approx(np.log(growth) / 5, rel=1e-4)


def test_exponents_through_a_model_a_stack_and_backwards():
    x = RNG.normal(size=(2, 5, 2)).astype("float32")
    model = keras.Sequential([keras.Input((5, 2)), keras.layers.Dense(3), keras.layers.GRU(3)])
    inner = np.asarray(model.layers[0](x))
    np.testing.assert_allclose(
        lyapunov_exponents(model, x, 2), lyapunov_exponents(model.layers[1], inner, 2), rtol=1e-5
    )
    stack = keras.layers.RNN([keras.layers.LSTMCell(2), keras.layers.GRUCell(2)])
    assert np.isfinite(lyapunov_exponents(stack, x, 6)).all()
    back = keras.layers.GRU(3, go_backwards=True)
    back.build(x.shape)
    ahead = keras.layers.GRU(3)
    ahead.build(x.shape)
    ahead.set_weights(back.get_weights())
    np.testing.assert_allclose(
        lyapunov_exponents(back, x), lyapunov_exponents(ahead, x[:, ::-1].copy()), rtol=1e-5
    )


def test_lyapunov_arguments():
    layer, x = keras.layers.GRU(2), np.zeros((1, 4, 2), "float32")
    for arguments, name in [
        ({"count": 0}, "count"),
        ({"count": 3}, "count"),
        ({"burn_in": 4}, "burn_in"),
        ({"burn_in": True}, "burn_in"),
    ]:
        with pytest.raises(ValueError, match=f"`{name}`"):
            lyapunov_exponents(layer, x, **arguments)
    with pytest.raises(ValueError, match="`x`"):
        lyapunov_exponents(layer, x[0])
    with pytest.raises(ValueError, match="recurrent layer"):
        lyapunov_exponents(keras.layers.Dense(2), x)
    two = keras.Sequential(
        [keras.Input((4, 2)), keras.layers.GRU(2, return_sequences=True), keras.layers.GRU(2)]
    )
    with pytest.raises(ValueError, match="exactly one"):
        lyapunov_exponents(two, x)


@pytest.mark.parametrize("radius", [0.9, 1.0, 1.1])
def test_the_measured_gradient_of_a_linear_layer_decays_by_the_spectral_radius(radius):
    """Exercise 1's last part, on the numbers that the layer records inside `fit`."""
    matrix, _ = symmetric(radius * np.array([1.0, -0.7, 0.5, 0.3, -0.2, 0.1]))
    kernel = keras.initializers.get(matrix.astype("float32"))
    layer = kbptt.SimpleRNN(6, activation="linear", use_bias=False, recurrent_initializer=kernel)
    model = keras.Sequential([keras.Input((60, 2)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    x = RNG.normal(size=(4, 60, 2)).astype("float32")
    model.fit(x, np.ones((4, 1)), verbose=0)
    assert spectral.spectral_radius(spectral.gate_blocks(layer)[""]) == pytest.approx(radius)
    assert decay_per_step(layer.gradient_norms[:30]) == pytest.approx(radius, rel=1e-4)
    assert np.exp(lyapunov_exponents(layer, x, burn_in=30)) == pytest.approx(radius, rel=1e-4)
