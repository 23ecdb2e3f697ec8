"""Orthogonality, norm stabilizer, AR and TAR: formula, gradient, masks, life inside `fit`."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kbptt import regularizers
from kbptt.regularizers import (
    ActivationRegularization,
    NormStabilizer,
    Orthogonality,
    SequenceRegularization,
    VanishingGradient,
)

RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(3, 5, 4))
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 0, 1]], dtype=bool)


def orthogonality(w, factor=0.3, gates=4):
    blocks = np.split(w, gates, axis=1)
    return factor * sum(np.linalg.norm(b.T @ b - np.eye(len(b.T)), "fro") ** 2 for b in blocks)


def norm_stabilizer(h, mask, beta=50.0):
    total = 0.0
    for states, valid in zip(h, mask, strict=True):
        norms = [np.sqrt(np.sum(state**2)) for state in states]
        steps = [t for t in range(1, len(norms)) if valid[t] and valid[t - 1]]
        if steps:
            total += sum((norms[t] - norms[t - 1]) ** 2 for t in steps) / len(steps)
    return beta * total / len(h)


def ar_tar(h, mask, alpha=2.0, beta=1.0):
    ar = [state**2 for states, valid in zip(h, mask, strict=True) for state in states[valid]]
    tar = [
        (states[t] - states[t - 1]) ** 2
        for states, valid in zip(h, mask, strict=True)
        for t in range(1, len(states))
        if valid[t] and valid[t - 1]
    ]
    return alpha * np.mean(ar) + beta * np.mean(tar)


def central_difference(f, array, step=1e-6):
    gradient = np.zeros_like(array)
    for i in np.ndindex(array.shape):
        above, below = array.copy(), array.copy()
        above[i] += step
        below[i] -= step
        gradient[i] = (f(above) - f(below)) / (2 * step)
    return gradient


def value_and_gradient(f, array):
    variable = tf.Variable(array)
    with tf.GradientTape() as tape:
        value = f(variable)
    return float(value), tape.gradient(value, variable).numpy()


FORMULAS = [
    (NormStabilizer(), norm_stabilizer),
    (NormStabilizer(2.0), lambda h, m: norm_stabilizer(h, m, 2.0)),
    (ActivationRegularization(), ar_tar),
    (ActivationRegularization(0.0, 3.0), lambda h, m: ar_tar(h, m, 0.0, 3.0)),
    (ActivationRegularization(3.0, 0.0), lambda h, m: ar_tar(h, m, 3.0, 0.0)),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("regularizer", "formula"), FORMULAS)
def test_state_penalties_equal_their_formula_and_central_differences(regularizer, formula, masked):
    mask = MASK if masked else np.ones_like(MASK)
    passed = tf.constant(MASK) if masked else None
    value, gradient = value_and_gradient(lambda h: regularizer.penalty(h, passed), STATES)
    np.testing.assert_allclose(value, formula(STATES, mask), rtol=1e-12)
    expected = central_difference(lambda h: formula(h, mask), STATES)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("gates", [1, 3, 4])
def test_orthogonality_equals_its_formula_and_central_differences(gates):
    kernel = RNG.normal(size=(4, 4 * gates))
    value, gradient = value_and_gradient(Orthogonality(0.3), kernel)
    np.testing.assert_allclose(value, orthogonality(kernel, gates=gates), rtol=1e-12)
    expected = central_difference(lambda w: orthogonality(w, gates=gates), kernel)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


def test_orthogonality_of_rectangular_blocks_uses_the_smaller_gram_matrix():
    rows, _ = np.linalg.qr(RNG.normal(size=(6, 2)))
    kernel = np.concatenate([rows.T, -rows.T], axis=1)  # two blocks (2, 6) with orthonormal rows
    assert float(Orthogonality(gates=2)(tf.constant(kernel))) < 1e-20


def test_orthogonality_is_zero_exactly_at_orthogonal_gates_and_sees_their_norm():
    q, _ = np.linalg.qr(RNG.normal(size=(4, 4)))
    kernel = np.concatenate([q, q.T, -q], axis=1)
    assert float(Orthogonality()(tf.constant(kernel))) < 1e-20
    # Twice an orthogonal matrix explodes; Keras' own regularizer calls it perfect.
    assert float(Orthogonality(1.0)(tf.constant(2 * q))) == pytest.approx(9 * 4)
    keras_own = keras.regularizers.OrthogonalRegularizer(1.0)
    assert float(keras_own(tf.constant(2 * q, "float32"))) < 1e-6  # float32 rounding


@pytest.mark.parametrize("regularizer", [f[0] for f in FORMULAS])
def test_nan_in_padding_reaches_neither_value_nor_gradient(regularizer):
    states = np.where(MASK[..., None], STATES, np.nan)
    value, gradient = value_and_gradient(
        lambda h: regularizer.penalty(h, tf.constant(MASK)), states
    )
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert not gradient[~MASK].any()


@pytest.mark.parametrize("regularizer", [f[0] for f in FORMULAS])
@pytest.mark.parametrize("case", ["zeros", "one step", "all masked"])
def test_degenerate_sequences_are_finite(regularizer, case):
    states = {"zeros": np.zeros((2, 4, 3)), "one step": np.ones((2, 1, 3))}.get(case, STATES)
    mask = tf.zeros(STATES.shape[:2], bool) if case == "all masked" else None
    value, gradient = value_and_gradient(lambda h: regularizer.penalty(h, mask), states)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("cell", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize("batch", [2, 6])
def test_as_activity_regularizer_the_loss_is_the_papers(cell, batch):
    layer = getattr(keras.layers, cell)(3, return_sequences=True, dtype="float64")
    # Set as an attribute: Keras 3.15's SimpleRNN drops the constructor's argument.
    layer.activity_regularizer = NormStabilizer()
    h = layer(RNG.normal(size=(batch, 5, 2)))
    np.testing.assert_allclose(
        float(layer.losses[0]), norm_stabilizer(h.numpy(), np.ones((batch, 5))), rtol=1e-12
    )


def test_the_pass_through_layer_uses_the_mask():
    x = keras.Input((5, 4), dtype="float64")
    masked = keras.layers.Masking(dtype="float64")(x)
    layer = SequenceRegularization("ar_tar", dtype="float64")
    model = keras.Model(x, layer(masked))
    states = np.where(MASK[..., None], STATES, 0.0)
    out = model(states)
    np.testing.assert_array_equal(out, states)
    np.testing.assert_allclose(float(model.losses[0]), ar_tar(STATES, MASK), rtol=1e-12)
    # The mask goes on to the next layer.
    np.testing.assert_array_equal(out._keras_mask, MASK)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_in_fit_the_penalty_falls(policy):
    keras.utils.set_random_seed(0)
    x = RNG.normal(size=(32, 6, 2)).astype("float32")
    layer = keras.layers.GRU(
        8,
        return_sequences=True,
        activity_regularizer=NormStabilizer(),
        recurrent_regularizer=Orthogonality(0.1),
        recurrent_initializer="random_uniform",
        dtype=policy,
    )
    model = keras.Sequential([keras.Input((6, 2)), layer, keras.layers.Dense(1, dtype=policy)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    kernel = layer.cell.recurrent_kernel
    before = float(Orthogonality()(kernel))
    losses = model.fit(x, x[..., :1], epochs=8, batch_size=8, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert float(Orthogonality()(kernel)) < 0.8 * before


def test_states_of_the_last_step_alone_are_refused():
    layer = keras.layers.LSTM(3, activity_regularizer=NormStabilizer())
    with pytest.raises(ValueError, match="return_sequences=True"):
        layer(np.zeros((2, 5, 2), "float32"))


ALL = [
    NormStabilizer(3.0),
    ActivationRegularization(0.5, 0.0),
    Orthogonality(0.2, gates=4),
    VanishingGradient(2.0, decay_steps=10.0),
]


@pytest.mark.parametrize("regularizer", ALL)
def test_config_round_trip_through_json(regularizer):
    whole = json.loads(json.dumps(keras.saving.serialize_keras_object(regularizer)))
    name = type(regularizer).__name__
    # As `serialize` writes it, and as a person does.
    for config in (whole, {"class_name": name, "config": regularizer.get_config()}):
        again = regularizers.get(config)
        assert type(again) is type(regularizer)
        assert again.get_config() == regularizer.get_config()


def test_a_saved_model_loads(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((5, 2)),
            keras.layers.LSTM(
                3,
                return_sequences=True,
                activity_regularizer=ActivationRegularization(),
                recurrent_regularizer=Orthogonality(),
            ),
            SequenceRegularization(NormStabilizer(4.0)),
        ]
    )
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    x = RNG.normal(size=(2, 5, 2)).astype("float32")
    model(x), again(x)
    assert len(again.losses) == 3
    np.testing.assert_allclose(again.losses, model.losses, rtol=1e-6)


def test_get_by_name():
    assert isinstance(regularizers.get("orthogonality"), Orthogonality)
    assert isinstance(regularizers.get("norm_stabilizer"), NormStabilizer)
    assert isinstance(regularizers.get("vanishing_gradient"), VanishingGradient)
    assert regularizers.get("ar").get_config() == {"alpha": 2.0, "beta": 0.0}
    assert regularizers.get("tar").get_config() == {"alpha": 0.0, "beta": 1.0}
    assert regularizers.get("ar_tar").get_config() == {"alpha": 2.0, "beta": 1.0}
    assert isinstance(regularizers.get("l2"), keras.regularizers.L2)
    assert regularizers.get(None) is None
    for regularizer in ALL:  # Keras knows its own by these names too
        assert type(regularizers.get(type(regularizer).__name__)) is type(regularizer)


@pytest.mark.parametrize(
    "identifier", ["nonsense", 3, [1], {"foo": 1}, {"class_name": "Nope", "config": {}}], ids=str
)
def test_what_is_no_regularizer_is_refused_with_all_names(identifier):
    with pytest.raises(ValueError) as raised:
        regularizers.get(identifier)
    message = str(raised.value)
    for name in ("orthogonality", "norm_stabilizer", "ar", "tar", "ar_tar", "vanishing_gradient"):
        assert repr(name) in message
    assert message.endswith(f"Received: {identifier!r}.")


def test_a_wrong_argument_in_a_config_is_named():
    with pytest.raises(ValueError, match="`factor`"):
        regularizers.get({"class_name": "Orthogonality", "config": {"factor": -1}})
    with pytest.raises(TypeError, match="'facto'"):
        regularizers.get({"class_name": "kbptt>Orthogonality", "config": {"facto": 1}})


@keras.saving.register_keras_serializable(package="mine", name="Orthogonality")
class Mine(keras.regularizers.Regularizer):
    def __call__(self, x):
        return 0.0

    def get_config(self):
        return {}


def test_a_class_of_the_user_with_the_same_name_is_the_users():
    config = keras.regularizers.serialize(Mine())
    assert type(regularizers.get(config)) is Mine


def test_a_gradient_regularizer_elsewhere_says_where_it_belongs():
    omega = regularizers.get("vanishing_gradient")
    for argument in ("recurrent_regularizer", "activity_regularizer"):
        layer = keras.layers.GRU(3, return_sequences=True, **{argument: omega})
        with pytest.raises(TypeError, match="`gradient_regularizer`"):
            layer(np.zeros((2, 5, 2), "float32"))
            sum(layer.losses)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Orthogonality(0), "factor"),
        (lambda: Orthogonality(-1), "factor"),
        (lambda: Orthogonality(float("nan")), "factor"),
        (lambda: Orthogonality(gates=1.5), "gates"),
        (lambda: NormStabilizer("50"), "beta"),
        (lambda: NormStabilizer(0), "beta"),
        (lambda: ActivationRegularization(-1), "alpha"),
        (lambda: ActivationRegularization(0, 0), "alpha"),
        (lambda: SequenceRegularization("l2"), "regularizer"),
    ],
)
def test_invalid_arguments_name_the_argument(make, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        make()


def test_orthogonality_refuses_a_kernel_that_has_no_square_blocks():
    with pytest.raises(ValueError, match="shape="):
        Orthogonality()(tf.ones((4, 6)))
