"""`recurrent_parametrization`: the maps, the gradient of what is stored, what stays orthogonal."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import kbptt
from kbptt import parametrizations
from kbptt.initializers import OrthogonalPerGate
from kbptt.parametrizations import CayleyTransform, HouseholderReflections, MatrixExponential

NAMES = list(parametrizations.NAMES)
TORCH = {"exp": "matrix_exp", "cayley": "cayley", "householder": "householder"}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 6, 2)).astype("float32")

every_name = pytest.mark.parametrize("name", NAMES)


def error(kernel):
    """The largest ‖WᵀW − I‖_F of the gates."""
    kernel = np.asarray(kernel, "float64")
    blocks = np.split(kernel, kernel.shape[1] // len(kernel), axis=1)
    return max(np.linalg.norm(w.T @ w - np.eye(len(w))) for w in blocks)


def orthogonal(units, gates=1, dtype="float64"):
    return OrthogonalPerGate(seed=1)((units, gates * units), dtype)


def by_definition(name, lower):
    """Q from the papers' formulas, one matrix, in NumPy."""
    eye, skew = np.eye(len(lower)), lower - lower.T
    if name == "exp":  # iA is Hermitian
        values, vectors = np.linalg.eigh(1j * skew)
        return ((vectors * np.exp(-1j * values)) @ vectors.conj().T).real
    if name == "cayley":
        return np.linalg.solve(eye - skew / 2, eye + skew / 2)
    q = -eye
    for v in (lower + eye).T:
        q = q @ (eye - 2 * np.outer(v, v) / (v @ v))
    return q


@every_name
@pytest.mark.parametrize("scale", [0.01, 0.3, 5.0])
def test_maps_by_definition(name, scale):
    parameter, base = scale * RNG.normal(size=(7, 21)), orthogonal(7, 3)
    kernel = parametrizations.NAMES[name](0.5).kernel(tf.constant(parameter), base)
    for w, p, b in zip(*(np.split(k, 3, axis=1) for k in (kernel, parameter, base)), strict=True):
        np.testing.assert_allclose(w, b @ by_definition(name, np.tril(0.5 * p, -1)), atol=1e-12)


@every_name
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_kernel_and_gradient_are_those_of_torch(name, scale):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import parametrizations as theirs

    linear = torch.nn.Linear(16, 16, bias=False, dtype=torch.float64)
    theirs.orthogonal(linear, orthogonal_map=TORCH[name])
    stored = linear.parametrizations.weight
    parameter, outer = scale * RNG.normal(size=(16, 16)), RNG.normal(size=(16, 16))
    np.fill_diagonal(parameter, -1)  # where torch's begins and stays
    stored.original.data = torch.tensor(parameter)
    (linear.weight * torch.tensor(outer)).sum().backward()

    base, variable = tf.constant(stored[0].base.numpy()), tf.Variable(parameter)
    with tf.GradientTape() as tape:
        kernel = parametrizations.NAMES[name](1.0).kernel(variable, base)
        loss = tf.reduce_sum(kernel * outer)
    np.testing.assert_allclose(kernel, linear.weight.detach(), atol=1e-12)
    np.testing.assert_allclose(
        tape.gradient(loss, variable), stored.original.grad, rtol=1e-10, atol=1e-11
    )


PATHS = {
    "LSTM": (kbptt.LSTM, {}),
    "GRU": (kbptt.GRU, {"normalization": "layer"}),
    "SimpleRNN": (kbptt.SimpleRNN, {"recurrent_regularizer": keras.regularizers.L1(0.1)}),
    "any cell": (kbptt.GRU, {"reset_after": False}),
    "differentiable": (kbptt.LSTM, {}),
}


@pytest.mark.parametrize("path", PATHS)
def test_gradient_of_the_stored_weight_against_differences(path):
    """Through layer, map and multiplier, whatever loop runs; regularizers see the kernel."""
    cls, options = PATHS[path]
    name = NAMES[list(PATHS).index(path) % 3]
    layer = cls(3, recurrent_parametrization=name, dtype="float64", **options)
    layer.build(X.shape)
    stored = layer.cell.recurrent_kernel_parameter
    stored.assign(5 * RNG.normal(size=stored.shape))

    def loss():
        value = tf.reduce_sum(tf.sin(3 * layer(X.astype("float64"))))
        return value + sum(layer.losses)

    context = kbptt.engine.differentiable() if path == "differentiable" else tf.name_scope("x")
    with context, tf.GradientTape() as tape:
        value = loss()
    gradient = tape.gradient(value, stored.value).numpy()
    start = stored.numpy()
    for _ in range(3):
        direction, around = RNG.normal(size=start.shape), []
        for step in (1e-5, -1e-5):
            stored.assign(start + step * direction)
            around.append(float(loss()))
        slope = (around[0] - around[1]) / 2e-5
        assert abs(slope) > 1e-3
        np.testing.assert_allclose(np.vdot(gradient, direction), slope, rtol=1e-6)


@every_name
def test_starts_exactly_at_an_orthogonal_kernel_and_else_at_the_nearest(name):
    options = {"recurrent_initializer": OrthogonalPerGate(seed=3), "kernel_initializer": "ones"}
    plain, kept = kbptt.LSTM(5, **options), kbptt.LSTM(5, recurrent_parametrization=name, **options)
    np.testing.assert_array_equal(kept(X), plain(X))
    np.testing.assert_array_equal(kept.cell.recurrent_kernel, plain.cell.recurrent_kernel)

    normal = keras.initializers.RandomNormal(seed=1)
    layer = kbptt.SimpleRNN(5, recurrent_parametrization=name, recurrent_initializer=normal)
    layer.build(X.shape)
    u, _, vt = np.linalg.svd(normal((5, 5)))
    np.testing.assert_allclose(layer.cell.recurrent_kernel, u @ vt, atol=1e-6)


def trained(name, steps, units=32, dtype="float32"):
    """A layer after steps of Adam that are far too large, on targets that it cannot reach."""
    keras.utils.set_random_seed(0)
    layer = kbptt.SimpleRNN(units, recurrent_parametrization=name, dtype=dtype)
    model = keras.Sequential([keras.Input(X.shape[1:]), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.03), "mse")
    x = np.random.default_rng(1).normal(size=(steps, *X.shape[1:]))
    model.fit(x, 9 * x[:, 0, :1], batch_size=1, verbose=0)
    return model, layer


@every_name
@pytest.mark.parametrize("steps", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_kernel_stays_orthogonal(name, steps):
    _, layer = trained(name, steps, units=32 if steps < 1000 else 128)
    kernel = layer.cell.recurrent_kernel.numpy()
    assert np.linalg.norm(kernel - layer.cell.recurrent_kernel_base.numpy()) > 1
    assert error(kernel) < 1e-5


def test_without_parametrization_it_does_not():
    assert error(trained(None, 100)[1].cell.recurrent_kernel) > 0.1


@every_name
def test_rounding_is_all_that_is_lost_however_large_the_parameter(name):
    map_ = parametrizations.NAMES[name](1.0)
    base = orthogonal(128, 2, "float32")
    for scale in (1e-3, 1.0, 100.0):
        parameter = tf.constant(scale * RNG.normal(size=(128, 256)), tf.float32)
        assert error(map_.kernel(parameter, base)) < 2e-6
    assert np.isnan(map_.kernel(parameter * np.nan, base)).all()


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_computes_with_the_exact_kernel(dtype):
    """The loop carries float32, and gets a kernel that was not rounded to half precision."""
    _, layer = trained("cayley", 20, dtype=dtype)
    kernels = []
    with pytest.MonkeyPatch.context() as patch:
        run = type(layer)._run_loop
        patch.setattr(
            type(layer),
            "_run_loop",
            lambda self, loop, x, start, weights, *rest: (
                kernels.append(weights.recurrent_kernel),
                run(self, loop, x, start, weights, *rest),
            )[1],
        )
        layer(X)
    assert kernels[0].dtype == tf.float32 and error(kernels[0]) < 1e-5


@pytest.mark.parametrize("path", ["LSTM", "any cell", "GRU"])
def test_computed_once_per_call(path, monkeypatch):
    cls, options = PATHS[path]
    layer = cls(4, recurrent_parametrization="exp", **options)
    layer.build(X.shape)
    calls, kernel = [], MatrixExponential.kernel
    monkeypatch.setattr(MatrixExponential, "kernel", lambda *a: calls.append(1) or kernel(*a))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(X, burn_in=2))
    tape.gradient(loss, layer.trainable_variables)
    assert len(calls) == 1


def test_multiplier_is_the_learning_rate_of_the_map():
    """Of Adam; the first step of SGD shows the square."""
    for optimizer, factor in ((keras.optimizers.Adam, 0.1), (keras.optimizers.SGD, 0.01)):
        moved = []
        for multiplier in (1.0, 0.1):
            keras.utils.set_random_seed(0)
            layer = kbptt.SimpleRNN(4, recurrent_parametrization=MatrixExponential(multiplier))
            layer.build(X.shape)
            with tf.GradientTape() as tape:
                loss = 9 * tf.reduce_sum((layer(X) - 1) ** 2)
            weights = layer.trainable_variables
            optimizer(1e-3).apply(tape.gradient(loss, [w.value for w in weights]), weights)
            a = multiplier * layer.cell.recurrent_kernel_parameter.numpy()
            moved.append(a[np.tril_indices(4, -1)])
        np.testing.assert_allclose(moved[1] / moved[0], factor, rtol=1e-3)


def test_files_configs_and_converted_models_keep_it(tmp_path):
    name = "householder"
    model, layer = trained(name, 5, units=4)
    assert layer.get_config()["recurrent_parametrization"]["registered_name"].startswith("kbptt>")
    model.save(tmp_path / "model.keras")
    for copy in (keras.models.load_model(tmp_path / "model.keras"), kbptt.convert(model, 2)):
        np.testing.assert_array_equal(copy(X), model(X))
        found = copy.layers[0].recurrent_parametrization
        assert type(found) is parametrizations.NAMES[name] and found.learning_rate_multiplier == 0.1
    model.save_weights(tmp_path / "model.weights.h5")
    fresh, _ = trained(name, 1, units=4)
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(fresh(X), model(X))


def test_a_kernel_that_is_assigned_begins_anew_at_the_nearest_orthogonal_one():
    model, layer = trained("exp", 5, units=4)
    plain = keras.layers.SimpleRNN(4, recurrent_initializer="glorot_uniform")
    plain.build(X.shape)
    kernel = plain.cell.recurrent_kernel.numpy()
    layer.cell.recurrent_kernel = kernel
    u, _, v = np.linalg.svd(kernel)
    np.testing.assert_allclose(layer.cell.recurrent_kernel, u @ v, atol=1e-6)
    before = layer.cell.recurrent_kernel_parameter
    assert not before.numpy().any() and any(before is w for w in model.trainable_variables)
    with pytest.raises(ValueError, match=r"shape \(4, 4\).*\(4, 5\)"):
        layer.cell.recurrent_kernel = np.ones((4, 5))
    with pytest.raises(ValueError, match="finite"):
        layer.cell.recurrent_kernel = kernel * np.nan


def test_whoever_reads_the_kernel_gets_the_kernel():
    model, layer = trained("cayley", 20, units=4)
    kernel = layer.cell.recurrent_kernel.numpy()
    np.testing.assert_array_equal(kbptt.analysis.gate_blocks(layer)[""], kernel)
    state = RNG.normal(size=(3, 4)).astype("float32")
    drive = X[:, 0] @ layer.cell.kernel.numpy() + layer.cell.bias.numpy()
    np.testing.assert_allclose(
        layer.advance(X[:, 0], [state])[0], np.tanh(drive + state @ kernel), atol=1e-6
    )
    plain = keras.layers.SimpleRNN(4)
    plain.build(X.shape)
    plain.set_weights([layer.cell.kernel.numpy(), kernel, layer.cell.bias.numpy()])
    np.testing.assert_allclose(layer(X), plain(X), atol=1e-6)
    exponents = [kbptt.analysis.lyapunov_exponents(one, X, 4) for one in (layer, plain)]
    np.testing.assert_allclose(*exponents, atol=1e-5)
    stepper = kbptt.streaming(model)
    outputs, _ = stepper(X, stepper.initial_states(3))
    np.testing.assert_allclose(outputs, model(X), atol=1e-6)


@every_name
def test_compiled_by_xla(name):
    parameter, base = tf.constant(9 * RNG.normal(size=(6, 12))), orthogonal(6, 2)

    def kernel_and_gradient(parameter):
        with tf.GradientTape() as tape:
            tape.watch(parameter)
            kernel = parametrizations.NAMES[name](1.0).kernel(parameter, base)
            loss = tf.reduce_sum(tf.sin(kernel))
        return kernel, tape.gradient(loss, parameter)

    compiled = tf.function(kernel_and_gradient, jit_compile=True)(parameter)
    for got, expected in zip(compiled, kernel_and_gradient(parameter), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-11)


def test_a_cell_of_a_subclass(monkeypatch):
    class Leaky(keras.layers.SimpleRNNCell):
        def call(self, sequence, states, training=False):
            n, _ = super().call(sequence, states, training=training)
            h = 0.5 * (states[0] + n)
            return h, [h]

    layer = kbptt.RNN(Leaky(4))
    kbptt.layers.parametrized.parametrize(layer.cell, HouseholderReflections())
    layer.build(X.shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(X))
    gradient = tape.gradient(loss, layer.cell.recurrent_kernel_parameter.value)
    assert isinstance(layer.cell, Leaky) and np.abs(gradient).max() > 0


def test_errors_name_the_mistake():
    with pytest.raises(ValueError, match=r"'cayly' \(did you mean 'cayley'\?\)"):
        kbptt.LSTM(3, recurrent_parametrization="cayly")
    with pytest.raises(ValueError, match=r"learning_rate_multiplier.*above 0"):
        CayleyTransform(0)
    with pytest.raises(ValueError, match="square blocks"):
        CayleyTransform().kernel(ops.zeros((3, 5)), ops.zeros((3, 5)))
    for option in (
        {"recurrent_constraint": "orthogonal"},
        {"recurrent_regularizer": kbptt.regularizers.Orthogonality()},
        {"recurrent_regularizer": keras.regularizers.L1L2(0.0, 0.1)},
    ):
        with pytest.raises(ValueError, match=r"orthogonal at every step.*Leave one"):
            kbptt.GRU(3, recurrent_parametrization="exp", **option)
    with pytest.raises(ValueError, match="recurrent_parametrization"):
        kbptt.RNN(keras.layers.GRUCell(3), recurrent_parametrization="exp")
    layer = kbptt.LSTM(3, recurrent_parametrization=CayleyTransform())
    with pytest.raises(AttributeError, match="belongs to a layer"):
        layer.recurrent_parametrization.learning_rate_multiplier = 1.0
