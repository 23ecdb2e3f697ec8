"""Pascanu's Ω against its formula, and its gradient against central differences, in float64."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt.regularizers import VanishingGradient

B, T, D, U = 2, 6, 3, 4


def forward(x, kernel, recurrent, bias):
    h, states = np.zeros((B, U)), []
    for t in range(T):
        h = np.tanh(x[:, t] @ kernel + h @ recurrent + bias)
        states.append(h)
    return np.stack(states)


def omega(recurrent, states, gradients, squared):
    """Eq. 9, with states and ∂E/∂x held constant: a function of the recurrent kernel alone."""
    total = 0.0
    for t in range(1, T):
        pulled = (gradients[t] * (1 - states[t] ** 2)) @ recurrent.T
        ratio = np.linalg.norm(pulled, axis=1) / np.linalg.norm(gradients[t], axis=1)
        total += np.sum(((ratio**2 if squared else ratio) - 1) ** 2)
    return total / B


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("length", [None, 2, 4])
def test_value_and_gradient_equal_the_formula(squared, length):
    weight = 0.7
    arguments = {"return_sequences": True, "dtype": "float64", "truncation": length}
    plain = kbptt.SimpleRNN(U, **arguments)
    layer = kbptt.SimpleRNN(
        U, gradient_regularizer=VanishingGradient(weight, squared=squared), **arguments
    )
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(B, T, D)), rng.normal(size=(B, T, U))
    for each in (plain, layer):
        each.build((B, T, D))
    weights = [rng.normal(size=w.shape) for w in plain.get_weights()]
    results = []
    for each in (plain, layer):
        each.set_weights(weights)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(each(tf.constant(x)) * e)
        results.append(tape.gradient(loss, [v.value for v in each.trainable_variables]))

    kernel, recurrent, bias = weights
    states = forward(x, kernel, recurrent, bias)
    # The truncated total derivative, by the recursion of the guide.
    gradients = np.swapaxes(e, 0, 1).copy()
    for t in range(T - 1, 0, -1):
        if length is None or (T - t) % length:
            gradients[t - 1] += (gradients[t] * (1 - states[t] ** 2)) @ recurrent.T
    value = weight * omega(recurrent, states, gradients, squared)
    assert layer.gradient_penalty == pytest.approx(value, rel=1e-5)

    numeric = np.zeros_like(recurrent)
    for index in np.ndindex(*recurrent.shape):
        step = np.zeros_like(recurrent)
        step[index] = 1e-6
        numeric[index] = (
            omega(recurrent + step, states, gradients, squared)
            - omega(recurrent - step, states, gradients, squared)
        ) / 2e-6
    names = [v.name for v in layer.trainable_variables]
    for name, ours, without in zip(names, results[1], results[0], strict=True):
        expected = weight * numeric if name == "recurrent_kernel" else 0.0
        np.testing.assert_allclose(ours - without, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("truncation", [None, 3, kbptt.truncation.Windowed(4, 2)])
def test_gated_cells_against_central_differences_of_the_step(name, truncation):
    """Ω of J_tᵀv by automatic differentiation of the Keras cell, states and v held constant."""
    layer = getattr(kbptt, name)(
        U,
        return_sequences=True,
        dtype="float64",
        truncation=truncation,
        gradient_regularizer=VanishingGradient(1.0),
    )
    layer.build((B, T, D))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    x, e = tf.constant(rng.normal(size=(B, T, D))), rng.normal(size=(B, T, U))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) * e)
    variable = layer.cell.recurrent_kernel
    ours = tape.gradient(loss, variable.value)
    layer.gradient_regularizer = None
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) * e)
    gradient = (ours - tape.gradient(loss, variable.value)).numpy()
    if truncation is not None:
        # The direction alone: the penalty must fall along its own negative gradient.
        assert np.linalg.norm(gradient) > 0
        return

    states = [[np.zeros((B, U))] * len(layer.cell.state_size if name == "LSTM" else [1])]
    for t in range(T):
        states.append(layer.cell(x[:, t], states[-1])[1])

    def pulled(t, v):
        previous = [tf.constant(np.asarray(s)) for s in states[t]]
        with tf.GradientTape() as tape:
            tape.watch(previous)
            new = layer.cell(x[:, t], previous)[1]
        return [g.numpy() for g in tape.gradient(new, previous, v)]

    v = [[np.zeros((B, U)) for _ in states[0]] for _ in range(T)]
    carry = [np.zeros((B, U)) for _ in states[0]]
    for t in range(T - 1, -1, -1):
        v[t] = [c.copy() for c in carry]
        v[t][0] += e[:, t]
        carry = pulled(t, [tf.constant(g) for g in v[t]])

    def value():
        total = 0.0
        for t in range(1, T):
            u = pulled(t, [tf.constant(g) for g in v[t]])[0]
            ratio = np.linalg.norm(u, axis=1) / np.linalg.norm(v[t][0], axis=1)
            # Only the product with U is differentiated: the gates are held by their stored values.
            total += np.sum((ratio - 1) ** 2)
        return total / B

    assert layer.gradient_penalty == pytest.approx(value(), rel=1e-5)


def test_weight_follows_the_schedule_and_is_counted_by_step():
    regularizer = VanishingGradient(2.0, decay_steps=10)
    assert float(regularizer.weight_at(0)) == 2.0
    assert float(regularizer.weight_at(10)) == 1.0
    layer = kbptt.SimpleRNN(U, gradient_regularizer=VanishingGradient(2.0, decay_steps=1))
    model = keras.Sequential([keras.Input((T, D)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.random.default_rng(0).normal(size=(4, T, D)).astype("float32")
    values = []
    for _ in range(3):
        model.fit(x, np.ones((4, U), "float32"), batch_size=4, verbose=0)
        values.append(layer.gradient_penalty)
    np.testing.assert_allclose(values, [values[0], values[0] / 2, values[0] / 3], rtol=1e-5)


def test_zero_gradients_give_no_penalty_and_no_nan():
    regularizer = VanishingGradient()
    value, direction = regularizer(np.zeros((3, 2, 4)), np.zeros((3, 2)), np.ones((3, 2), bool))
    assert float(value) == 0
    np.testing.assert_array_equal(direction, 0)


def test_config_round_trip_and_file(tmp_path):
    regularizer = VanishingGradient(1.5, decay_steps=100, squared=True)
    model = keras.Sequential([keras.Input((T, D)), kbptt.LSTM(U, gradient_regularizer=regularizer)])
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.layers[0].gradient_regularizer.get_config() == regularizer.get_config()


@pytest.mark.filterwarnings("ignore")  # of TensorFlow's own exporter
def test_a_trained_model_is_exported_and_copied(tmp_path):
    layer = kbptt.GRU(U, gradient_regularizer="vanishing_gradient")
    model = keras.Sequential([keras.Input((T, D)), layer])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(4, T, D)).astype("float32")
    model.fit(x, np.ones((4, U), "float32"), verbose=0)
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(served.serve(x), model(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(copy.deepcopy(model)(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"weight": 0},
        {"weight": -1},
        {"weight": float("nan")},
        {"weight": "1"},
        {"decay_steps": 0},
        {"squared": "no"},
        {"squared": None},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        VanishingGradient(**arguments)


def gradient_of_omega(policy="float32", optimizer=None, **compile_arguments):
    """What Ω adds to the recurrent kernel's step of SGD, and the penalty that the layer tells."""
    kernels = []
    for regularizer in (None, VanishingGradient(3.0)):
        keras.utils.set_random_seed(0)
        layer = kbptt.SimpleRNN(U, gradient_regularizer=regularizer, dtype=policy)
        dense = keras.layers.Dense(1, dtype=policy)
        model = keras.Sequential([keras.Input((T, D)), layer, dense])
        model.compile(optimizer() if optimizer else "sgd", "mse", **compile_arguments)
        x = np.random.default_rng(0).normal(size=(4, T, D)).astype("float32")
        loss = model.fit(x, np.ones((4, 1), "float32"), verbose=0).history["loss"]
        kernels.append(keras.ops.convert_to_numpy(layer.cell.recurrent_kernel))
    return kernels[1] - kernels[0], layer.gradient_penalty, loss


@pytest.mark.parametrize(
    ("policy", "optimizer", "compile_arguments"),
    [
        ("mixed_float16", None, {}),
        ("mixed_float16", None, {"jit_compile": True}),
        ("mixed_float16", None, {"run_eagerly": True}),
        ("float32", lambda: keras.optimizers.SGD(loss_scale_factor=1024.0), {}),
        ("float32", lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), {}),
    ],
)
def test_the_loss_scale_is_on_the_regularizer_too(policy, optimizer, compile_arguments):
    step, penalty, loss = gradient_of_omega()
    assert np.abs(step).max() > 1e-3
    found, found_penalty, found_loss = gradient_of_omega(policy, optimizer, **compile_arguments)
    tolerance = {"rtol": 0.02, "atol": 1e-4} if policy == "mixed_float16" else {"rtol": 1e-4}
    np.testing.assert_allclose(found, step, **tolerance)
    assert found_penalty == pytest.approx(penalty, rel=tolerance["rtol"])
    assert found_loss == pytest.approx(loss, rel=1e-2)


def test_a_loop_that_leaves_the_losses_of_layers_out_has_the_regularizer_too():
    def gradient(regularizer, add_losses):
        keras.utils.set_random_seed(0)
        layer = kbptt.SimpleRNN(U, gradient_regularizer=regularizer)
        x = tf.constant(np.random.default_rng(0).normal(size=(4, T, D)), tf.float32)
        with tf.GradientTape() as tape:
            for _ in range(2):
                loss = tf.reduce_sum(layer(x))
            assert len(layer.losses) == (regularizer is not None)
            loss += sum(layer.losses) if add_losses else 0.0
        return tape.gradient(loss, layer.cell.recurrent_kernel.value).numpy()

    plain = gradient(None, False)
    left_out, added = (gradient(VanishingGradient(), add_losses) for add_losses in (False, True))
    assert np.abs(added - plain).max() > 1e-2
    np.testing.assert_allclose(left_out, added, rtol=1e-6)


def test_a_layer_takes_a_name_a_config_or_an_object():
    config = {"class_name": "VanishingGradient", "config": {"weight": 1.5}}
    for given, weight in (
        ("vanishing_gradient", 4.0),
        (config, 1.5),
        (VanishingGradient(2.0), 2.0),
    ):
        layer = kbptt.GRU(3, gradient_regularizer=given)
        assert layer.gradient_regularizer.weight == weight
    with pytest.raises(ValueError, match="`weight`"):
        kbptt.GRU(3, gradient_regularizer={**config, "config": {"weight": -1}})
    for other in ("orthogonality", kbptt.regularizers.Orthogonality(), 3):
        with pytest.raises(ValueError, match=r"`gradient_regularizer`.*'vanishing_gradient'"):
            kbptt.GRU(3, gradient_regularizer=other)
