"""The regularizers on kbptt's layers do what they do on Keras' of the same name."""

import keras
import numpy as np
import pytest

import kbptt
from kbptt.callbacks import GradientNormPenalty, SpectralMonitor
from kbptt.initializers import Chrono, OrthogonalPerGate
from kbptt.regularizers import ActivationRegularization, Orthogonality, SequenceRegularization

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6, 2)).astype("float32")
Y = RNG.normal(size=(8, 1)).astype("float32")


def change(library, cell, callbacks, head=(), offset=None, **arguments):
    """What one step of SGD(1) changes in a model whose weights are the same for any library."""
    keras.utils.set_random_seed(1)
    layer = getattr(library, cell)(3, name="rnn", **arguments)
    model = keras.Sequential([keras.Input((6, 2)), layer, *head, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    rng = np.random.default_rng(2)
    before = [0.5 * rng.normal(size=w.shape) for w in model.get_weights()]
    if offset is not None:
        before = [b + o for b, o in zip(before, offset, strict=True)]
    model.set_weights(before)
    y = Y if not arguments.get("return_sequences") else np.repeat(Y[:, None], 6, axis=1)
    model.fit(X, y, batch_size=8, verbose=0, callbacks=callbacks)
    return [b - a for b, a in zip(before, model.get_weights(), strict=True)]


@pytest.mark.parametrize(
    ("cell", "form"),
    [
        ("SimpleRNN", "exact"),
        ("GRU", "exact"),
        pytest.param("LSTM", "exact", marks=pytest.mark.slow),
        ("LSTM", "finite_difference"),
    ],
)
def test_the_gradient_norm_penalty_is_that_of_the_keras_layer(cell, form):
    ours = change(kbptt, cell, [GradientNormPenalty(0.3, form, radius=0.05)])
    theirs = change(keras.layers, cell, [GradientNormPenalty(0.3, form, radius=0.05)])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_finite_difference_of_a_truncated_layer_is_its_formula():
    """g + (λ/r)(g(θ + r·g/‖g‖) − g), where g is the truncated gradient that the optimizer gets."""
    weight, radius = 0.3, 0.1
    g = change(kbptt, "GRU", [], truncation=2)
    norm = np.sqrt(sum(np.sum(a**2) for a in g))
    there = change(kbptt, "GRU", [], truncation=2, offset=[radius / norm * a for a in g])
    penalty = GradientNormPenalty(weight, radius=radius, squared=False)
    used = change(kbptt, "GRU", [penalty], truncation=2)
    for u, a, b in zip(used, g, there, strict=True):
        np.testing.assert_allclose(u, a + weight / radius * (b - a), rtol=1e-3, atol=1e-5)


class CountingCell(keras.layers.SimpleRNNCell):
    """Changes a variable while it runs: its layer always takes the ordinary loop."""

    def build(self, input_shape):
        super().build(input_shape)
        self.count = self.add_weight(shape=(), trainable=False, name="count")

    def call(self, sequence, states, training=False):
        self.count.assign_add(1.0)
        return super().call(sequence, states, training=training)


class NormsOfEveryStep(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.norms = []

    def on_train_batch_end(self, batch, logs=None):
        self.norms.append(self.model.layers[0].gradient_norms)


@pytest.mark.parametrize("form", ["exact", "finite_difference"])
@pytest.mark.parametrize(
    "how",
    [{}, {"run_eagerly": True}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)],
    ids=str,
)
@pytest.mark.parametrize(
    "make", [lambda: kbptt.GRU(3), lambda: kbptt.RNN(CountingCell(3))], ids=["GRU", "own cell"]
)
def test_the_recorded_gradient_norms_are_those_of_the_loss(form, how, make):
    """At every step: not those of the penalty, nor those at the point beside the weights."""
    recorded = []
    for callbacks in ([], [GradientNormPenalty(0.3, form, radius=1.0)]):
        keras.utils.set_random_seed(1)
        layer = make()
        model = keras.Sequential([keras.Input((6, 2)), layer, keras.layers.Dense(1)])
        # The weights stay: what differs from step to step is the batch.
        model.compile(keras.optimizers.SGD(0.0), "mse", **how)
        record = NormsOfEveryStep()
        fit = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
        model.fit(X, Y, callbacks=[*callbacks, record], **fit)
        recorded.append(record.norms)
        assert layer.record_gradient_norms
    np.testing.assert_allclose(recorded[1], recorded[0], rtol=1e-5)
    assert not np.allclose(recorded[0][0], recorded[0][1])


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_penalties_of_weights_and_states(cell):
    arguments = {
        "return_sequences": True,
        "recurrent_regularizer": Orthogonality(0.1),
        "activity_regularizer": ActivationRegularization(),
    }
    head = [SequenceRegularization("norm_stabilizer")]
    ours = change(kbptt, cell, [], head, **arguments)
    theirs = change(keras.layers, cell, [], head, **arguments)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_initializers_and_monitor():
    layer = kbptt.LSTM(
        3,
        name="rnn",
        recurrent_initializer=OrthogonalPerGate(seed=1),
        bias_initializer=Chrono(50, seed=1),
        unit_forget_bias=False,
        truncation=2,
    )
    twin = keras.layers.LSTM(3)
    model = keras.Sequential([keras.Input((6, 2)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    twin.build((None, 6, 2))
    twin.set_weights(layer.get_weights())
    monitor = SpectralMonitor(x=X[:2], exponents=2)
    expected = kbptt.analysis.lyapunov_exponents(twin, X[:2], 2)
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[monitor])
    assert monitor.history["rnn/spectral_radius_f"][0] == pytest.approx(1.0, rel=1e-5)
    assert monitor.history["rnn/lyapunov_exponent_1"][0] == pytest.approx(expected[0], rel=1e-4)
    assert monitor.history["rnn/lyapunov_exponent_2"][0] == pytest.approx(expected[1], rel=1e-4)
