"""When training is flossed, what that changes, and that a killed run goes on as it would have."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt import methods
from kbptt.ablation import building
from kbptt.ablation.grid import Grid
from kbptt.analysis import flossing_loss
from kbptt.callbacks import GradientFlossing

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6, 2)).astype("float32")
Y = X[:, 0, :1]
SMALL = {"steps": 2, "learning_rate": 0.1, "x": X, "timesteps": 3, "batch_size": 2}


def build(layers=lambda: [kbptt.SimpleRNN(4, name="rnn")], optimizer=None):
    keras.utils.set_random_seed(1)
    layers = layers()
    model = keras.Sequential([keras.Input((6, 2)), *layers, keras.layers.Dense(1)])
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    return model


def fit(model, *callbacks, **arguments):
    """Eight sequences in four batches an epoch. Returns weights and logs."""
    arguments = {"batch_size": 2, "shuffle": False, "verbose": 0, **arguments}
    logs = model.fit(X, Y, callbacks=list(callbacks), **arguments).history
    return model.get_weights(), logs


def flossings(callback):
    return len(callback.history["rnn"]) // callback.steps


def test_it_is_adam_on_the_loss_before_the_first_step():
    """Two steps of Adam, its formula written out, on the layer's weights alone."""
    model, floss = build(), GradientFlossing(**{**SMALL, "x": X[:1], "count": 3, "burn_in": 1})
    reference = build().layers[0]
    m = v = 0.0
    for t in (1, 2):
        with tf.GradientTape() as tape:
            loss = flossing_loss(reference, np.repeat(X[:1, :3], 2, axis=0), 3, burn_in=1)
        weights = np.concatenate([w.ravel() for w in reference.get_weights()])
        variables = [v.value for v in reference.trainable_variables]
        g = np.concatenate([np.ravel(g) for g in tape.gradient(loss, variables)])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        weights -= 0.1 * (m / (1 - 0.9**t)) / ((np.sqrt(v) + 1e-7) / np.sqrt(1 - 0.999**t))
        parts = np.split(weights, np.cumsum([w.size for w in reference.get_weights()])[:-1])
        shapes = [w.shape for w in reference.get_weights()]
        reference.set_weights([p.reshape(s) for p, s in zip(parts, shapes, strict=True)])
    model.optimizer.learning_rate = 0.0
    before = model.layers[1].get_weights()
    fit(model, floss)
    for found, expected in zip(model.layers[0].get_weights(), parts, strict=True):
        np.testing.assert_allclose(found.ravel(), expected, rtol=1e-4, atol=1e-5)
    for found, expected in zip(model.layers[1].get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert len(floss.history["rnn"]) == 2


def test_no_steps_is_no_flossing_and_the_optimizer_is_left_alone():
    def trained(*callbacks):
        model = build(optimizer=keras.optimizers.Adam(0.1))
        weights, _ = fit(model, *callbacks, epochs=2)
        return model, weights

    _, plain = trained()
    _, off = trained(GradientFlossing(**{**SMALL, "steps": 0}))
    for a, b in zip(plain, off, strict=True):
        np.testing.assert_array_equal(a, b)
    model, flossed = trained(GradientFlossing(**SMALL))
    assert not np.array_equal(flossed[1], plain[1])
    # From the weights that flossing leaves, Adam trains as from any others.
    start = build()
    start.optimizer.learning_rate = 0.0
    by_hand = build(optimizer=keras.optimizers.Adam(0.1))
    by_hand.set_weights(fit(start, GradientFlossing(**SMALL))[0])
    fit(by_hand, epochs=2)
    for a, b in zip(by_hand.get_weights(), flossed, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(model.optimizer.iterations) == 8


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 1),
        ({"freq": "epoch"}, 3),
        ({"freq": 5}, 3),  # after 0, 5 and 10 of 12 steps
        ({"freq": 5, "repeats": 1}, 2),
        ({"freq": "epoch", "repeats": 0}, 1),
    ],
)
def test_how_often(arguments, expected):
    floss = GradientFlossing(**SMALL, **arguments)
    _, logs = fit(build(), floss, epochs=3)
    assert flossings(floss) == expected
    assert len(logs["flossing_loss"]) == len(logs["lyapunov_exponent"]) == 3
    assert np.all(np.isfinite(logs["flossing_loss"]))


@pytest.mark.parametrize("freq", [None, 3])
def test_a_run_that_is_continued_is_the_run_that_was_not_interrupted(freq, tmp_path):
    unbroken, floss = build(), GradientFlossing(**SMALL, freq=freq)
    whole, _ = fit(unbroken, floss, epochs=3)

    class Killed(Exception):
        pass

    def die(epoch, logs):
        if epoch == 2:
            raise Killed

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    kill = keras.callbacks.LambdaCallback(on_epoch_begin=die)
    with pytest.raises(Killed):
        fit(build(), GradientFlossing(**SMALL, freq=freq), backup, kill, epochs=3)
    again = GradientFlossing(**SMALL, freq=freq)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    found, _ = fit(build(), again, backup, epochs=3)
    assert flossings(again) == {None: 0, 3: 1}[freq]
    for a, b in zip(found, whole, strict=True):
        np.testing.assert_array_equal(a, b)
    fit(unbroken, floss)  # a further fit goes on, too
    assert flossings(floss) == {None: 0, 3: 2}[freq]


def test_layers_of_a_stack_are_flossed_in_turn_on_what_they_receive():

    def stack():
        return [kbptt.GRU(3, return_sequences=True, name="a"), kbptt.LSTM(2, name="b")]

    model, floss = build(stack), GradientFlossing(**{**SMALL, "x": X[:1]}, burn_in=0)
    fit(model, floss, epochs=1)
    assert {name: len(losses) for name, losses in floss.history.items()} == {"a": 2, "b": 2}
    # The first loss of the second layer is at its first weights, and at the last of the first.
    fresh = build(stack)
    start = GradientFlossing(**{**SMALL, "x": X[:1], "burn_in": 0})
    fresh.layers[1].trainable = False
    fresh.optimizer.learning_rate = 0.0
    fit(fresh, start)
    inner = np.repeat(fresh.layers[0](X[:1])[:, :3], 2, axis=0)
    assert list(start.history) == ["a"]
    expected = float(flossing_loss(fresh.layers[1], inner, 2))
    assert floss.history["b"][0] == pytest.approx(expected, rel=1e-4)


def test_random_inputs_reach_layers_at_any_depth():
    def layers():
        return [keras.layers.Dense(5), keras.layers.Bidirectional(kbptt.SimpleRNN(3, name="rnn"))]

    floss = GradientFlossing(**{**SMALL, "x": None})
    fit(build(layers), floss)
    assert sorted(floss.history) == ["backward_rnn", "forward_rnn"]


def test_what_does_not_fit_is_refused():
    def rnn():
        return [kbptt.SimpleRNN(4)]

    def wrapped():
        return [keras.layers.Bidirectional(kbptt.GRU(2))]

    def stateful():
        return [kbptt.GRU(2, stateful=True, return_sequences=True), kbptt.GRU(2)]

    for layers, arguments, message in [
        (rnn, {"count": 5}, "`count`. Expected at most 4"),
        (rnn, {"burn_in": 3}, "`burn_in`. Expected .* below"),
        (lambda: [keras.layers.Flatten()], {}, "no recurrent layer"),
        (wrapped, {}, "no recurrent layer at its top level"),
        (wrapped, {"x": None, "count": 3}, "`count`. Expected at most 2"),
        (stateful, {}, "stateful"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(build(layers), GradientFlossing(**{**SMALL, **arguments}))
    unbuilt = keras.Sequential([kbptt.GRU(2), keras.layers.Dense(1)])
    unbuilt.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match="functional or Sequential model"):
        fit(unbuilt, GradientFlossing(**SMALL))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
def test_a_direction_that_is_cut_off_is_left_out_with_a_warning():
    """ReLU at 0 everywhere: log 0. The weights stay as they are, and finite."""
    model = build(lambda: [kbptt.SimpleRNN(3, activation="relu", name="rnn")])
    model.optimizer.learning_rate = 0.0
    model.layers[0].cell.bias.assign([-99.0] * 3)
    before = model.get_weights()
    with pytest.warns(UserWarning, match="left out 2 of 2 steps on layer 'rnn'"):
        found, _ = fit(model, GradientFlossing(**SMALL))
    for a, b in zip(found, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_method_flosses_on_the_sequences_of_the_task():
    (trial,) = Grid.make(["adding"], ["flossing"], 1, units=4, length=6, sizes=[6, 2, 2]).trials()
    task, model, (floss,) = building.build(trial.config)
    np.testing.assert_array_equal(floss.x, task.data(trial.config["seed"]).train[0])
    assert methods.get("flossing").callbacks[0]["config"] == {"x": "$inputs"}
    floss.steps = 1
    model.fit(*task.data(0).train, verbose=0, callbacks=[floss])
    assert len(floss.history["lstm_1"]) == 1
