"""Uniform gates and Legendre memories against their papers; names in the arguments of layers."""

import json

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats
from numpy.polynomial import legendre

import kbptt
from kbptt import initializers
from kbptt.initializers import Henaff, Legendre, LegendreInput, UniformGate

# Uniform gates.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bias_of(layer):
    layer.build((None, None, 2))
    return np.asarray(layer.cell.bias, dtype="float64")


@pytest.mark.parametrize("library", [keras.layers, kbptt])
def test_the_forget_gate_is_uniform_and_the_input_gate_its_complement(library):
    layer = library.LSTM(4000, bias_initializer=UniformGate(seed=1), unit_forget_bias=False)
    i, f, c, o = np.split(np.asarray(layer.bias_initializer((16000,), "float64")), 4)
    gate, n = sigmoid(f), 4000
    assert 1 / n <= gate.min() < 2e-3 and 1 - 2e-3 < gate.max() <= 1 - 1 / n
    assert scipy.stats.kstest(gate, "uniform", (1 / n, 1 - 2 / n)).pvalue > 1e-3
    np.testing.assert_array_equal(i, -f)
    assert not c.any() and not o.any()


def test_two_units_leave_one_value_and_one_none():
    np.testing.assert_allclose(UniformGate(seed=1)((8,), "float64"), 0.0, atol=1e-15)
    with pytest.raises(ValueError, match=r"at least 2 units\. Received: units=1"):
        UniformGate()((4,))


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_gru_keeps_by_its_update_gate(reset_after):
    initializer = UniformGate("auto" if reset_after else 3, seed=1)
    layer = keras.layers.GRU(8, bias_initializer=initializer, reset_after=reset_after)
    bias = bias_of(layer)
    z, r, h = np.split(bias.sum(axis=0) if reset_after else bias, 3)
    assert not r.any() and not h.any()
    forget = np.split(np.asarray(UniformGate(seed=1)((32,), "float64")), 4)[1]
    np.testing.assert_allclose(z, forget, rtol=1e-6)  # not its negative
    # With no input the state decays by sigmoid(z): z keeps.
    layer.cell.kernel.assign(np.zeros((2, 24)))
    layer.cell.recurrent_kernel.assign(np.zeros((8, 24)))
    state = layer(np.zeros((1, 1, 2), "float32"), initial_state=np.ones((1, 8), "float32"))
    np.testing.assert_allclose(np.asarray(state)[0], sigmoid(z), rtol=1e-5)


# Legendre memories.


def projected_system(order):
    """LegT from its definition, by quadrature (Gu et al., appendix D.1).

    With g_n(x) = √(2n + 1) P_n(x), x from −1 (θ ago) to 1 (now), and c_n the mean of u·g_n:
    θ·dc_n/dt = u(t) g_n(1) − u(t − θ) g_n(−1) − ∫ u g_n′ dx, with u = Σ c_k g_k put in.
    """
    x, w = legendre.leggauss(2 * order)
    scale = np.sqrt(2 * np.arange(order) + 1)
    g = [legendre.Legendre.basis(n) * scale[n] for n in range(order)]
    a = np.empty((order, order))
    for n in range(order):
        for k in range(order):
            inside = np.sum(w * g[k](x) * g[n].deriv()(x))
            a[n, k] = -g[n](-1) * g[k](-1) - inside
    return a, np.array([one(1.0) for one in g])


def held(a, b, theta, discretization):
    """Ā, B̄ by solving the equation over one timestep, or by the trapezoidal rule."""
    order = len(b)
    if discretization == "bilinear":
        left, right = np.eye(order) - a / theta / 2, np.eye(order) + a / theta / 2
        return np.linalg.inv(left) @ right, np.linalg.inv(left) @ b / theta

    def slope(_, m, u):
        return (a @ m + b * u) / theta

    def end(start, u):
        solved = scipy.integrate.solve_ivp(slope, (0, 1), start, args=(u,), rtol=1e-10, atol=1e-12)
        return solved.y[:, -1]

    columns = [end(row, 0.0) for row in np.eye(order)]
    return np.array(columns).T, end(np.zeros(order), 1.0)


def kernels(order, theta, *arguments, inputs=1):
    shapes = (inputs * order, inputs * order), (inputs, inputs * order)
    recurrent = Legendre(theta, *arguments, memories=inputs)(shapes[0], "float64")
    kernel = LegendreInput(theta, *arguments)(shapes[1], "float64")
    return np.asarray(recurrent), np.asarray(kernel)


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_legt_equals_the_projection_that_defines_it(discretization):
    recurrent, kernel = kernels(6, 9.0, "legt", discretization)
    a, b = held(*projected_system(6), 9.0, discretization)
    np.testing.assert_allclose(recurrent, a.T, atol=1e-8)
    np.testing.assert_allclose(kernel, b[None], atol=1e-8)


def test_it_is_the_lmu_in_other_units():
    """Voelker et al., equation 2: a_ij = (2i + 1)(−1 if i < j else (−1)^(i−j+1))."""
    i, j = np.arange(5)[:, None], np.arange(5)[None]
    lmu = (2 * i + 1) * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    units = np.diag((-1.0) ** np.arange(5) * np.sqrt(2 * np.arange(5) + 1))
    recurrent, kernel = kernels(5, 7.0)
    expected = np.linalg.inv(units) @ scipy.linalg.expm(lmu / 7) @ units
    np.testing.assert_allclose(recurrent.T, expected, atol=1e-12)
    # ∫₀¹ e^{A(1 − s)/θ} ds B/θ = A⁻¹(e^{A/θ} − I)B
    inputs = (2 * i[:, 0] + 1) * (-1.0) ** i[:, 0]
    held_input = np.linalg.solve(lmu, (scipy.linalg.expm(lmu / 7) - np.eye(5)) @ inputs)
    np.testing.assert_allclose(units @ kernel[0], held_input, atol=1e-12)


def test_legs_equals_its_exponentially_weighted_polynomials():
    """The response to one held step: ∫ √(2n + 1) P_n(2e^{−s/θ} − 1) e^{−s/θ} ds/θ."""
    order, theta = 5, 6.0
    recurrent, kernel = kernels(order, theta, "legs")
    state = kernel[0]
    for step in range(8):
        for n in range(order):
            p = legendre.Legendre.basis(n) * np.sqrt(2 * n + 1)
            expected, _ = scipy.integrate.quad(
                lambda s, p=p: p(2 * np.exp(-s / theta) - 1) * np.exp(-s / theta) / theta,
                step,
                step + 1,
            )
            assert state[n] == pytest.approx(expected, abs=1e-9)
        state = state @ recurrent


@pytest.mark.parametrize("layer", ["SimpleRNN", "RNN(cell)"])
def test_a_linear_layer_recalls_its_inputs(layer):
    """The property that the memory is made for: u(t − d), for every d up to θ, from one state."""
    order, theta, steps, inputs = 12, 40, 200, 2

    def signal(t):
        return np.stack([np.sin(0.11 * t), np.cos(0.06 * t) + 0.3 * np.sin(0.17 * t)], axis=-1)

    t = np.arange(steps)
    u = signal(t)
    arguments = {
        "activation": "linear",
        "use_bias": False,
        "kernel_initializer": LegendreInput(theta),
        "recurrent_initializer": Legendre(theta, memories=inputs),
        "dtype": "float64",
    }
    if layer == "SimpleRNN":
        memory = kbptt.SimpleRNN(inputs * order, return_sequences=True, **arguments)
    else:
        cell = keras.layers.SimpleRNNCell(inputs * order, **arguments)
        memory = kbptt.RNN(cell, return_sequences=True, dtype="float64")
    states = np.asarray(memory(u[None]))[0].reshape(steps, inputs, order)
    late = np.arange(100, steps)
    for delay in (5, 10, 25, 40):
        readout = legendre.legvander(np.float64(1 - 2 * delay / theta), order - 1).ravel()
        readout *= np.sqrt(2 * np.arange(order) + 1)
        recalled = states[late] @ readout
        assert np.abs(recalled - signal(late + 0.5 - delay)).max() < 0.003
    # What came before the window is forgotten.
    other = np.asarray(memory(np.where(t[:, None] < 60, 1.0, u)[None]))[0]
    assert np.abs(other[-1] - states[-1].ravel()).max() < 1e-3


@pytest.mark.parametrize("measure", ["legt", "legs"])
@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_the_kernels_are_contractions(measure, discretization):
    recurrent, _ = kernels(16, 200.0, measure, discretization)
    singular = np.linalg.svd(recurrent, compute_uv=False)
    assert singular.max() <= 1 + 1e-12
    assert np.sum(singular < 0.99) <= 3


def test_what_is_refused_names_what_was_expected():
    for make, message in [
        (lambda: Legendre(0), "`theta`"),
        (lambda: Legendre(5, "legx"), "`measure`.*'legt', 'legs'"),
        (lambda: LegendreInput(5, discretization="euler"), "`discretization`.*'zoh', 'bilinear'"),
        (lambda: Legendre(5, memories=0), "`memories`"),
        (lambda: Legendre(5)((4, 16)), r"shape=\(4, 16\). The state of a gated cell"),
        (lambda: Legendre(5, memories=3)((4, 4)), "multiple of memories=3"),
        (lambda: LegendreInput(5)((3, 4)), r"multiple of inputs. Received: shape=\(3, 4\)"),
        (lambda: UniformGate(gates=2), "`gates`"),
        (lambda: UniformGate()((3, 12)), "UniformGate expected the bias"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize(
    "initializer",
    [UniformGate(3, seed=1), Legendre(5, "legs", "bilinear", 2), LegendreInput(7, "legs")],
    ids=lambda i: type(i).__name__,
)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_config_round_trip_and_rounding(initializer, dtype):
    again = initializers.get(json.loads(json.dumps(keras.initializers.serialize(initializer))))
    assert type(again) is type(initializer)
    assert again.get_config() == initializer.get_config()
    shape = (12,) if isinstance(initializer, UniformGate) else (4, 4)
    exact = np.asarray(initializer(shape, "float64"))
    np.testing.assert_array_equal(np.asarray(again(shape, dtype)), exact.astype(dtype))


# Names in the arguments of layers.


@pytest.mark.parametrize("layer", [kbptt.SimpleRNN, kbptt.GRU, kbptt.LSTM])
def test_every_name_of_kbptt_is_understood_by_its_layers(layer, tmp_path):
    arguments = {
        "recurrent_initializer": ("henaff", Henaff),
        "kernel_initializer": ("identity", keras.initializers.Identity),  # Keras's own name
        "recurrent_regularizer": ("orthogonality", kbptt.regularizers.Orthogonality),
        "activity_regularizer": ("tar", kbptt.regularizers.ActivationRegularization),
        "kernel_regularizer": ("l2", keras.regularizers.L2),
        "recurrent_constraint": ("unit_norm", keras.constraints.UnitNorm),
    }
    given = {argument: name for argument, (name, _) in arguments.items()}
    made = layer(4, return_sequences=True, **given)
    model = keras.Sequential([keras.Input((3, 2)), made])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0]
    for one in (made, layer.from_config(made.get_config()), loaded):
        for argument, (_, cls) in arguments.items():
            if argument != "activity_regularizer" or layer is not kbptt.SimpleRNN:
                assert type(getattr(one, argument)) is cls, argument  # Keras's SimpleRNN loses it


@pytest.mark.parametrize(
    ("argument", "name", "message"),
    [
        ("recurrent_initializer", "henaf", r"did you mean 'henaff'.*'cayley'.*'glorot_uniform'"),
        ("kernel_initializer", "glorot_unifrm", "did you mean 'glorot_uniform'"),
        ("bias_initializer", "chrono", r"needs a time scale.*Chrono\(T_max\)"),
        ("recurrent_regularizer", "ortogonality", "did you mean 'orthogonality'.*'l1_l2'"),
        ("recurrent_constraint", "unit_nrm", "did you mean 'unit_norm'"),
    ],
)
def test_an_unknown_name_gets_the_nearest_and_all_others(argument, name, message):
    with pytest.raises(ValueError, match=f"`{argument}`. .*{message}"):
        kbptt.LSTM(4, **{argument: name})
