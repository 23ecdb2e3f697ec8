"""`kbptt.analysis.health` against an LSTM and a GRU written in NumPy, in all loops."""

import keras
import numpy as np
import pytest

import kbptt
from kbptt.analysis import health
from kbptt.engine import using

BATCH, TIMESTEPS, FEATURES, UNITS = 5, 12, 3, 4


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm(x, weights):
    """h and c `(batch, timesteps, units)`, and the gates."""
    kernel, recurrent, bias = (np.asarray(w, np.float64) for w in weights)
    h = c = np.zeros((len(x), UNITS))
    found = {name: [] for name in "hcifo"}
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=-1)
        i, f, o = sigmoid(i), sigmoid(f), sigmoid(o)
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        for name, value in zip("hcifo", (h, c, i, f, o), strict=True):
            found[name].append(value)
    return {name: np.stack(values, 1) for name, values in found.items()}


def gru(x, weights):
    kernel, recurrent, bias = (np.asarray(w, np.float64) for w in weights)
    h = np.zeros((len(x), UNITS))
    found = {name: [] for name in "hzr"}
    for t in range(x.shape[1]):
        xz, xr, xn = np.split(x[:, t] @ kernel + bias[0], 3, axis=-1)
        hz, hr, hn = np.split(h @ recurrent + bias[1], 3, axis=-1)
        z, r = sigmoid(xz + hz), sigmoid(xr + hr)
        h = z * h + (1 - z) * np.tanh(xn + r * hn)
        for name, value in zip("hzr", (h, z, r), strict=True):
            found[name].append(value)
    return {name: np.stack(values, 1) for name, values in found.items()}


def network(*layers, masked=False):
    keras.utils.set_random_seed(1)
    mask = [keras.layers.Masking()] if masked else []
    return keras.Sequential([keras.Input((TIMESTEPS, FEATURES)), *mask, *layers])


def inputs(scale=4.0):
    x = scale * np.random.default_rng(0).normal(size=(BATCH, TIMESTEPS, FEATURES))
    return x.astype("float32")


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(("layer", "oracle"), [(kbptt.LSTM, lstm), (kbptt.GRU, gru)])
def test_norms_and_gates(layer, oracle, native):
    model, x = network(layer(UNITS)), inputs()
    with using(native=native):
        (found,) = health(model, x)
    expected = oracle(x, model.get_weights())
    for state, norms in found.state_norms.items():
        by_sample = np.linalg.norm(expected[state], axis=-1)
        np.testing.assert_allclose(norms, by_sample.mean(axis=0), rtol=1e-5)
    assert set(found.state_norms) | set(found.gates) == set(expected)
    for name, gate in found.gates.items():
        shares = (expected[name] < 0.05).mean(), (expected[name] > 0.95).mean()
        assert (gate.closed, gate.open) == pytest.approx(shares, abs=1e-12)
        assert 0 < gate.saturated < 1


@pytest.mark.parametrize(
    "options",
    [
        {"normalization": "layer"},
        {"normalization": "rms"},
        {"recurrent_activation": "hard_sigmoid"},
        {"dropout": 0.3, "recurrent_dropout": 0.3},
        {"zoneout": 0.3},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_loop_shows_the_same(options):
    model, x = network(kbptt.LSTM(UNITS, **options)), inputs()
    (compiled,) = health(model, x, training=True)
    with using(native=False):
        (tensorflow,) = health(model, x, training=True)
    for state, norms in compiled.state_norms.items():
        np.testing.assert_allclose(norms, tensorflow.state_norms[state], rtol=1e-5)
    assert compiled.statistics() == pytest.approx(tensorflow.statistics(), abs=1e-12)
    assert {"cpu", "tensorflow"} <= model.layers[0].loops


def test_a_cell_that_changes_variables_while_it_runs():
    class Counting(keras.layers.SimpleRNNCell):
        def build(self, shape):
            super().build(shape)
            self.calls = self.add_weight((), "zeros", trainable=False)

        def call(self, *args, **kwargs):
            self.calls.assign(self.calls + 1)
            return super().call(*args, **kwargs)

    model, x = network(kbptt.RNN(Counting(UNITS), return_sequences=True)), inputs()
    expected = np.linalg.norm(model(x), axis=-1).mean(axis=0)
    calls = float(model.layers[0].cell.calls.value)
    (found,) = health(model, x)
    np.testing.assert_allclose(found.state_norms["h"], expected, rtol=1e-5)
    assert float(model.layers[0].cell.calls.value) == calls


def test_a_cell_of_the_users_own_has_norms_and_no_activation():
    class Plain(keras.layers.Layer):
        state_size = UNITS

        def build(self, shape):
            self.dense = keras.layers.Dense(UNITS)
            self.dense.build(shape)

        def call(self, x, states):
            h = keras.ops.tanh(self.dense(x) + states[0])
            return h, [h]

    lower = kbptt.LSTM(UNITS, return_sequences=True)
    model, x = network(lower, kbptt.RNN(Plain(), return_sequences=True)), inputs()
    first, second = health(model, x)
    assert first.gates and not second.gates and np.isnan(second.saturated_units)
    expected = np.linalg.norm(model(x), axis=-1).mean(axis=0)
    np.testing.assert_allclose(second.state_norms["h"], expected, rtol=1e-5)


def test_of_nan_states_nothing_is_said():
    model = network(kbptt.LSTM(UNITS))
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    (found,) = health(model, inputs())
    assert found.statistics() == {} and np.isnan(found.state_norms["h"]).all()


def test_masked_timesteps_are_left_out():
    model = network(kbptt.LSTM(UNITS), masked=True)
    x = inputs()
    x[0, 7:] = 0
    x[:, -1] = 0
    (found,) = health(model, x)
    expected = lstm(x, model.get_weights())
    real = (x != 0).any(axis=-1)
    norms = np.linalg.norm(expected["h"], axis=-1)
    np.testing.assert_allclose(found.state_norms["h"][7], norms[1:, 7].mean(), rtol=1e-5)
    assert np.isnan(found.state_norms["h"][-1]) and not np.isnan(found.state_norms["h"][:-1]).any()
    assert found.gates["i"].closed == pytest.approx((expected["i"][real] < 0.05).mean())


def test_a_reset_and_a_burn_in_are_where_they_are():
    sequences, resets = keras.Input((TIMESTEPS, FEATURES)), keras.Input((TIMESTEPS,), dtype="bool")
    layer = kbptt.LSTM(UNITS)
    model = keras.Model([sequences, resets], layer(sequences, resets=resets, burn_in=5))
    x, at = inputs(), np.zeros((BATCH, TIMESTEPS), bool)
    at[:, 8] = True
    (found,) = health(model, [x, at])
    before, after = (lstm(part, layer.get_weights()) for part in (x[:, :8], x[:, 8:]))
    for state, norms in found.state_norms.items():
        whole = np.concatenate([before[state], after[state]], axis=1)
        np.testing.assert_allclose(norms, np.linalg.norm(whole, axis=-1).mean(axis=0), rtol=1e-5)
    assert found.gates["f"].closed == pytest.approx(
        np.mean(np.concatenate([before["f"], after["f"]], axis=1) < 0.05)
    )


def test_every_layer_at_any_depth_and_the_top_of_a_stack():
    cells = [keras.layers.LSTMCell(3), keras.layers.GRUCell(UNITS)]
    model = network(
        keras.layers.Bidirectional(kbptt.SimpleRNN(6, return_sequences=True)),
        kbptt.RNN(cells, name="stack"),
    )
    found = {one.layer: one for one in health(model, inputs())}
    assert len(found) == 3 and list(found["stack"].state_norms) == ["h"]
    assert set(found["stack"].gates) == {"z", "r"}


def test_dead_and_saturated_units():
    """Two units that a large bias holds at ±1, one that nothing reaches, one that lives."""
    layer = kbptt.SimpleRNN(4, use_bias=True)
    model = network(layer)
    kernel = np.zeros((FEATURES, 4), "float32")
    kernel[0, 3] = 0.3
    layer.set_weights([kernel, np.zeros((4, 4)), np.array([9.0, -9.0, 0.0, 0.0])])
    (found,) = health(model, inputs(1.0))
    assert (found.dead_units, found.saturated_units) == (0.25, 0.5)
    assert found.statistics() == {"dead_units": 0.25, "saturated_units": 0.5}
    relu = kbptt.SimpleRNN(4, activation="relu")
    model = network(relu)
    relu.set_weights([kernel, np.zeros((4, 4)), np.array([-9.0, -9.0, -9.0, 0.0])])
    (found,) = health(model, inputs(1.0))
    assert found.dead_units == 0.75 and np.isnan(found.saturated_units)
    assert "saturated_units" not in found.statistics()
    (found,) = health(network(kbptt.SimpleRNN(2)), inputs()[:1, :1])
    assert np.isnan(found.dead_units)  # one record shows nothing


def test_nothing_of_the_model_changes():
    layer = kbptt.LSTM(UNITS, stateful=True, dropout=0.2, zoneout=0.1)
    model = keras.Sequential(
        [
            keras.Input((TIMESTEPS, FEATURES), batch_size=BATCH),
            keras.layers.BatchNormalization(),
            layer,
        ]
    )
    x = inputs()
    model(x, training=True)
    states = [*layer.training_states, *layer.inference_states]
    variables = [*model.variables, *states]
    before = [keras.ops.convert_to_numpy(v).copy() for v in variables]
    (first,), (second,) = (health(model, x, training=True) for _ in range(2))
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    np.testing.assert_array_equal(first.state_norms["c"], second.state_norms["c"])


def test_a_stateful_layer_is_seen_where_training_goes_on():
    layer = kbptt.GRU(UNITS, stateful=True)
    model = keras.Sequential([keras.Input((TIMESTEPS, FEATURES), batch_size=BATCH), layer])
    x = inputs()
    model(x, training=True)
    (found,) = health(model, x, training=True)
    whole = gru(np.concatenate([x, x], axis=1), layer.get_weights())["h"][:, TIMESTEPS:]
    expected = np.linalg.norm(whole, axis=-1).mean(axis=0)
    np.testing.assert_allclose(found.state_norms["h"], expected, rtol=1e-5)


def test_a_model_without_recurrent_layers():
    with pytest.raises(ValueError, match="no recurrent kbptt layer"):
        health(network(keras.layers.Dense(1)), inputs())
