"""Models of tasks: what is built, seeded weights, the tasks' Keras objects."""

import keras
import numpy as np
import pytest

import kbptt
from kbptt import tasks
from kbptt.tasks.keras_objects import (
    BitsPerSymbol,
    InfluenceBalancingCell,
    OneHot,
    WithinSquaredError,
)
from kbptt.tasks.text import generate


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("adding", {"length": 12}, (None, 1)),
        ("copy_memory", {"lag": 4, "items": 2}, (None, 8, 9)),
        ("temporal_order", {"length": 10}, (None, 4)),
        ("digits", {}, (None, 10)),
    ],
)
def test_the_head_fits_the_task_and_trains(name, options, shape):
    task = tasks.get(name, sizes=(8, 8, 8), **options)
    model = tasks.build_model(task, cell="simple_rnn", units=3, truncation=4)
    assert model.output_shape == shape
    model.compile("adam", task.loss(), metrics=task.metrics())
    data = task.data(0)
    model.fit(*data.train, batch_size=8, verbose=0)
    scores = model.evaluate(*data.test, verbose=0, return_dict=True)
    assert np.isfinite(scores[task.metric])
    # Copy memory reports the cross entropy in nats, which is its loss.
    if task.metric in ("cross_entropy", "mse"):
        assert scores[task.metric] == pytest.approx(scores["loss"], rel=1e-4)


def test_layers_are_stacked():
    task = tasks.get("adding", length=12)
    model = tasks.build_model(task, cell="gru", units=5, layers=3, truncation=4)
    recurrent = [layer for layer in model.layers if isinstance(layer, kbptt.GRU)]
    assert [layer.name for layer in recurrent] == ["gru_1", "gru_2", "gru_3"]
    assert [layer.return_sequences for layer in recurrent] == [True, True, False]
    assert all(layer.truncation.length == 4 for layer in recurrent)


def test_a_large_vocabulary_is_embedded():
    small, large = (tasks.get("random_permutation", symbols=n) for n in (256, 257))
    assert isinstance(tasks.build_model(small).layers[1], OneHot)
    assert isinstance(tasks.build_model(large).layers[1], keras.layers.Embedding)


def test_weights_depend_on_the_seed_and_on_nothing_drawn_elsewhere():
    task = tasks.get("adding", length=12)

    def weights(seed=0, **arguments):
        keras.random.normal((3,))
        return tasks.build_model(task, units=6, seed=seed, layers=2, **arguments).get_weights()

    for first, again in zip(weights(), weights(), strict=True):
        np.testing.assert_array_equal(first, again)
    # Another recurrent initializer shifts no other weight: the head and the input kernels agree.
    for i, (first, other) in enumerate(
        zip(weights(), weights(recurrent_initializer="glorot_uniform"), strict=True)
    ):
        assert (first == other).all() == (i not in (1, 4))
    assert (weights()[0] != weights(seed=1)[0]).all()
    first_layer, second_layer = weights()[1], weights()[4]
    assert (first_layer != second_layer).any()


def test_an_initializer_with_its_own_seed_keeps_it():
    task = tasks.get("adding", length=12)
    own = keras.initializers.Orthogonal(seed=5)
    kernels = [
        tasks.build_model(task, units=4, seed=seed, recurrent_initializer=own).get_weights()[1]
        for seed in (0, 1)
    ]
    np.testing.assert_array_equal(*kernels)


def test_a_nested_initializer_is_seeded_too():
    from kbptt.initializers import SpectralRadius

    task = tasks.get("adding", length=12)
    kernels = [
        tasks.build_model(
            task, "SimpleRNN", 4, recurrent_initializer=SpectralRadius(0.9, "random_normal")
        ).get_weights()[1]
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*kernels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "LSTN"}, "`cell`.*'LSTM', 'GRU', 'SimpleRNN'"),
        ({"units": 0}, "`units`"),
        ({"layers": 1.5}, "`layers`"),
        ({"truncation": 0}, "truncation|length"),
        ({"seed": -1}, "`seed`"),
        ({"recurrent_initializer": "orthogonl"}, "initializer"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tasks.build_model(tasks.get("adding"), **arguments)


def test_bits_per_symbol_is_the_cross_entropy_in_base_two():
    logits = np.log([[[0.5, 0.25, 0.25], [0.125, 0.375, 0.5]]])
    metric = BitsPerSymbol()
    metric.update_state(np.array([[0, 0]]), logits)
    assert float(metric.result()) == pytest.approx((1 + 3) / 2, rel=1e-6)


def test_within_squared_error_counts():
    metric = WithinSquaredError(0.04)
    metric.update_state(np.array([[0.0], [0.0], [1.0], [1.0]]), [[0.19], [0.21], [1.19], [0.0]])
    assert float(metric.result()) == pytest.approx(0.5)
    assert WithinSquaredError.from_config(metric.get_config()).bound == 0.04


def test_one_hot_keeps_a_single_timestep():
    encoded = OneHot(4)(np.array([[3], [0]]))
    np.testing.assert_array_equal(encoded, [[[0, 0, 0, 1]], [[1, 0, 0, 0]]])


def chain(theta, length, units=23, positive=10):
    """The system as its paper defines it, with the matrix written out."""
    matrix = 0.5 * (np.eye(units) + np.eye(units, k=1))
    signs = np.where(np.arange(units) < positive, 1.0, -1.0)
    state = np.ones(units)
    for _ in range(length):
        state = matrix @ state + theta * signs
    return state


def test_influence_balancing_is_the_linear_chain():
    layer = keras.layers.RNN(InfluenceBalancingCell())
    np.testing.assert_allclose(layer(np.zeros((2, 37, 1)))[:, 0], chain(0.5, 37)[0], rtol=1e-5)
    # Where it comes to rest, and the θ that brings it to 1.
    assert chain(-1 / 6, 500)[0] == pytest.approx(1)
    assert chain(0.5, 150)[0] == pytest.approx(-3, abs=1e-3)


def theta_gradient(truncation):
    task = tasks.get("influence_balancing", sizes=(2, 1, 1))
    model = tasks.build_model(task, truncation=truncation)
    model.compile(keras.optimizers.SGD(1.0), task.loss())
    before = model.get_weights()[0]
    model.train_on_batch(*task.data(0).train)
    assert len(model.get_weights()) == 1
    return before - model.get_weights()[0]


def test_influence_balancing_punishes_a_short_truncation():
    """Full: d(s - 1)²/dθ = 2 (-3 - 1) (-6) = 48; truncated to 10: every influence is still +."""
    assert theta_gradient(None) == pytest.approx(48, rel=1e-3)
    # By hand: the gradient through the last k steps alone is the chain started at 0 with θ = 1.
    truncated = 2 * (-3 - 1) * (chain(1.0, 10)[0] - chain(0.0, 10)[0])
    assert theta_gradient(10) == pytest.approx(truncated, rel=1e-3) and truncated < 0


def test_influence_balancing_accepts_only_what_its_layer_has():
    task = tasks.get("influence_balancing")
    tasks.build_model(task, cell="GRU", units=3, recurrent_initializer="glorot_uniform")
    with pytest.raises(ValueError, match=r"truncation and gradient_clip\. Received: dropout"):
        tasks.build_model(task, dropout=0.5)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "alphabet.txt"
    path.write_text("abcdefgh" * 60)
    return tasks.get("text", path=path, length=16)


def test_generated_text_is_that_of_the_model_fed_from_the_start(text):
    """One stateful step at a time writes what the whole sequence, read again, would predict."""
    model = tasks.build_model(text, cell="LSTM", units=8, layers=2, seed=3)
    written = generate(model, text, 15, prompt="a", temperature=1e-6)
    tokens = text.encode("a" + written)
    greedy = model.predict(tokens[None], verbose=0)[0].argmax(axis=-1)
    np.testing.assert_array_equal(tokens[1:], greedy[:-1])


def test_generated_text_is_a_function_of_the_seed(text):
    model = tasks.build_model(text, units=8)
    first, again, other = (generate(model, text, 40, seed=seed) for seed in (0, 0, 1))
    assert first == again != other and len(first) == 40 and set(first) <= set("abcdefgh")
    with pytest.raises(ValueError, match="`temperature`"):
        generate(model, text, 4, temperature=0)


def test_a_saved_model_of_a_text_loads_with_its_metric(text, tmp_path):
    model = tasks.build_model(text, units=4, truncation=8)
    model.compile("adam", text.loss(), metrics=text.metrics())
    data = text.data(0)
    model.fit(*data.train, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(*data.test, verbose=0, return_dict=True)["bits"] == pytest.approx(
        model.evaluate(*data.test, verbose=0, return_dict=True)["bits"]
    )
