"""Gradients by lag against automatic differentiation of every loss on its own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt.analysis import adaptive, lag_profile, lags, suggest_truncation, truncation_bias

# Compiling each engine takes longer than the test; test_compiled does it once.
pytestmark = pytest.mark.usefixtures("eager")

T, FEATURES, UNITS = 5, 2, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, T, FEATURES))
Y = RNG.normal(size=(5, T, 1))


def build(*layers, head=None, loss="mse", dtype="float64"):
    keras.utils.set_random_seed(1)
    head = head or keras.layers.Dense(1, dtype=dtype)
    model = keras.Sequential([keras.Input((T, FEATURES), dtype=dtype), *layers, head])
    model.compile(keras.optimizers.SGD(0.1), loss)
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def recurrent(cell="LSTM", sequences=True, **arguments):
    if cell == "RNN":
        cells = [keras.layers.SimpleRNNCell(4), keras.layers.GRUCell(UNITS)]
        return kbptt.RNN(cells, return_sequences=sequences, dtype="float64", **arguments)
    return getattr(kbptt, cell)(UNITS, return_sequences=sequences, dtype="float64", **arguments)


def brute_force(model, x, y):
    """∂L_s/∂h_t of every loss and state, `(s, t, batch, units)`, by a Python loop and a tape.

    The model is one recurrent layer and a Dense layer; L_s is its share of the mean squared error.
    """
    layer, head = model.layers
    x, y = tf.constant(x), tf.constant(y)
    batch, steps = x.shape[:2]
    with tf.GradientTape(persistent=True) as tape:
        state, hidden, losses = layer.get_initial_state(batch), [], []
        for t in range(steps):
            output, state = layer.cell(x[:, t], state)
            hidden.append(output)
            # The cells' own output must be the state that goes on, or the tape would miss it.
            assert output is keras.tree.flatten(state)[-2 if "lstm" in layer.name else -1]
            last = t == steps - 1
            if layer.return_sequences or last:
                target = y[:, t] if layer.return_sequences else y
                count = batch * (steps if layer.return_sequences else 1)
                losses.append(tf.reduce_sum((head(output) - target) ** 2) / count)
    zero = tf.UnconnectedGradients.ZERO
    return np.stack(
        [np.stack(tape.gradient(loss, hidden, unconnected_gradients=zero)) for loss in losses]
    )


def by_lag(gradients):
    """φ and ‖ĝ_K‖ from `brute_force`."""
    losses, steps = gradients.shape[:2]
    times = range(steps - losses, steps)
    norms, vectors = [], []
    for k in range(steps):
        pairs = [gradients[i, s - k] for i, s in enumerate(times) if s >= k]
        # The mean over the batch is in the loss already.
        norms.append(np.mean([np.linalg.norm(p, axis=-1).sum() for p in pairs]))
        vectors.append(np.mean([p.sum(axis=0) for p in pairs], axis=0))
    return np.array(norms), np.linalg.norm(np.cumsum(vectors, axis=0), axis=-1)


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("cell", ["SimpleRNN", "GRU", "LSTM", "RNN"])
def test_equals_every_loss_differentiated_on_its_own(cell, sequences):
    model = build(recurrent(cell, sequences))
    y = Y if sequences else Y[:, -1]
    norms, truncated = by_lag(brute_force(model, X, y))
    profile = lag_profile(model, X, y)
    np.testing.assert_allclose(profile.norms, norms, rtol=2e-6)
    np.testing.assert_allclose(profile.truncated, truncated, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(profile), profile.norms)
    assert len(profile) == profile.timesteps == T
    # Fewer lags are the first ones; the size of the batches does not matter.
    short = lag_profile(model, X, y, maximum=3, batch_size=2)
    np.testing.assert_allclose(short.norms, norms[:3], rtol=2e-6)
    np.testing.assert_allclose(short.truncated, truncated[:3], rtol=1e-5)


def test_a_single_loss_counts_alone():
    """A loss at the last step, of a layer that returns sequences, is not divided by T."""
    model = build(recurrent("GRU"))
    only_last = np.zeros((5, T))
    only_last[:, -1] = 1
    profile = lag_profile(model, X, Y, sample_weight=only_last)
    gradients = brute_force(model, X, Y)[-1:]
    norms, truncated = by_lag(gradients)
    np.testing.assert_allclose(profile.norms, norms, rtol=2e-6)
    np.testing.assert_allclose(profile.truncated, truncated, rtol=1e-5)


def test_the_model_is_left_as_it_is():
    def trained():
        layer = recurrent(truncation=kbptt.truncation.Randomized(0.5, seed=3), stateful=False)
        model = build(layer, keras.layers.BatchNormalization(dtype="float64"))
        model.train_on_batch(X, Y)
        return layer, model

    (layer, model), (undisturbed, other) = trained(), trained()
    truncation, norms = layer.truncation, layer.gradient_norms
    variables = model.variables + model.metrics_variables
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in variables]
    lag_profile(model, X, Y)
    for value, variable in zip(before, variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    assert layer.truncation is truncation
    np.testing.assert_array_equal(layer.gradient_norms, norms)
    # The next step draws ξ and records norms as if nothing had been measured.
    model.train_on_batch(X, Y)
    other.train_on_batch(X, Y)
    np.testing.assert_array_equal(layer.gradient_norms, undisturbed.gradient_norms)
    assert np.any(layer.gradient_norms != norms)


def test_does_not_depend_on_the_truncation_of_any_layer():
    def profile(truncation):
        model = build(
            recurrent("GRU", name="lower", truncation=truncation),
            recurrent("SimpleRNN", name="upper", truncation=truncation),
        )
        return lag_profile(model, X, Y, layer="lower").norms

    np.testing.assert_array_equal(profile(None), profile(2))


def test_one_of_several_layers():
    model = build(recurrent("GRU", name="lower"), recurrent("LSTM", name="upper"))
    with pytest.raises(ValueError, match=r"several .* one of 'lower', 'upper'\."):
        lag_profile(model, X, Y)
    with pytest.raises(ValueError, match=r"one of 'lower', 'upper'.*'middle'"):
        lag_profile(model, X, Y, layer="middle")
    both = lags.lag_profiles(model, X, Y)
    assert [p.layer for p in both] == ["lower", "upper"]
    one = lag_profile(model, X, Y, layer=model.layers[1])
    np.testing.assert_array_equal(one.norms, both[1].norms)
    longest = suggest_truncation(model, X, Y, 0.3)
    assert longest == max(suggest_truncation(model, X, Y, 0.3, layer=n) for n in ["lower", "upper"])


def test_inside_a_bidirectional_layer():
    rnn = recurrent("SimpleRNN", name="rnn")
    model = build(keras.layers.Bidirectional(rnn, merge_mode="sum", dtype="float64"))
    backward, forward = lags.lag_profiles(model, X, Y)
    assert (backward.layer, forward.layer) == ("backward_rnn", "forward_rnn")
    # Time turned round, and the layers with it, changes nothing.
    *first, kernel, bias = model.get_weights()
    model.set_weights([*first[3:], *first[:3], kernel, bias])
    mirrored = lags.lag_profiles(model, X[:, ::-1], Y[:, ::-1])
    for a, b in zip(mirrored, [forward, backward], strict=True):
        np.testing.assert_allclose(a.norms, b.norms, rtol=1e-6)
        np.testing.assert_allclose(a.truncated, b.truncated, rtol=1e-6)


def test_stateful_goes_on_and_keeps_its_state():
    keras.utils.set_random_seed(0)
    layer = recurrent("GRU", stateful=True)
    model = keras.Sequential(
        [keras.Input((T, FEATURES), batch_size=5), layer, keras.layers.Dense(1, dtype="float64")]
    )
    model.compile("sgd", "mse")
    model(X)
    state = np.array(keras.ops.convert_to_numpy(layer.states[0]))
    profile = lag_profile(model, X, Y)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer.states[0]), state)
    assert profile.timesteps is None


def test_loss_scaling_is_undone():
    def profile(policy):
        model = build(kbptt.GRU(UNITS, return_sequences=True), dtype="float32")
        if policy:
            model.compile(
                keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=1024),
                "mse",
            )
        return lag_profile(model, X, Y).norms

    np.testing.assert_allclose(profile(True), profile(False), rtol=1e-5)


def test_one_timestep():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1, FEATURES)), kbptt.GRU(3), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert len(lag_profile(model, X[:, :1], Y[:, 0])) == 1
    answer = suggest_truncation(model, X[:, :1], Y[:, 0])
    assert answer == 1 and answer.relative_bias == 0


def test_errors_say_what_is_wrong():
    model = build(recurrent())
    with pytest.raises(ValueError, match=r"`maximum`. Expected at least 2 lags"):
        lag_profile(model, X, Y, maximum=1)
    with pytest.raises(ValueError, match="equally many samples"):
        lag_profile(model, X, Y[:2])
    with pytest.raises(ValueError, match="`tolerance`"):
        suggest_truncation(model, X, Y, tolerance=0)
    with pytest.raises(ValueError, match="not finite"):
        suggest_truncation(model, X * np.nan, Y)
    with pytest.raises(ValueError, match="all zero"):
        suggest_truncation(model, X, Y, sample_weight=np.zeros((5, T)))
    model.compile("sgd", lambda y, predictions: keras.ops.mean(y**2))
    with pytest.raises(ValueError, match="No gradient reaches layer"):
        lag_profile(model, X, Y)
    with pytest.raises(ValueError, match="no recurrent kbptt layer"):
        lag_profile(build(keras.layers.LSTM(2, return_sequences=True)), X, Y)
    with pytest.raises(ValueError, match="must be compiled"):
        lag_profile(keras.Sequential([keras.Input((T, FEATURES)), recurrent()]), X, X)


def test_suggestion_is_a_truncation_and_says_how_it_was_found():
    model = build(recurrent("SimpleRNN"))
    answer = suggest_truncation(model, X, Y, tolerance=0.2)
    estimate = lag_profile(model, X, Y).estimate(0.2)
    assert answer == estimate.length and answer.beta == estimate.beta
    assert answer.within_tolerance == (answer.relative_bias < 0.2)
    assert kbptt.LSTM(2, truncation=answer).truncation.length == answer
    assert f"{int(answer)}: layer='simple_rnn" in repr(answer) and str(answer) == str(int(answer))
    assert suggest_truncation(model, X, Y, 0.2, minimum=4) >= 4
    assert suggest_truncation(model, X, Y, 1e-9, maximum=3) == 3


def test_the_window_covers_the_memory_of_a_shift_register():
    """The target is the input of 5 steps ago, which moves from unit to unit: 6 states matter."""
    units, steps = 6, 16
    layer = kbptt.SimpleRNN(units, activation="linear", return_sequences=True, dtype="float64")
    head = keras.layers.Dense(1, dtype="float64")
    model = keras.Sequential([keras.Input((steps, 1)), layer, head])
    model.compile("sgd", "mse")
    first, last = np.eye(units)[:1], np.eye(units)[:, -1:]
    shift = np.eye(units, k=1)
    model.set_weights([0.9 * first, shift, np.zeros(units), last, np.zeros(1)])
    x = RNG.normal(size=(4, steps, 1)) + 1
    y = np.concatenate([np.zeros((4, units - 1, 1)), x[:, : 1 - units]], axis=1)
    norms = lag_profile(model, x, y).norms
    assert np.all(norms[:units] > 0) and np.all(norms[units:] == 0)
    assert suggest_truncation(model, x, y) == units
    # One state less loses all of the input kernel's gradient.
    sliding = [kbptt.truncation.Windowed(n, stride=1) for n in (units - 1, units)]
    biases = [truncation_bias(model, x, y, one) for one in sliding]
    assert biases[0] > 0.3 and biases[1] < 1e-6


def test_bias_of_a_truncation_is_the_distance_of_the_gradients():
    model = build(recurrent("SimpleRNN", truncation=3))

    def gradient(truncation):
        layer = model.layers[0]
        layer.truncation = truncation
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(X) - Y) ** 2)
        flat = [
            np.ravel(g) for g in tape.gradient(loss, [v.value for v in model.trainable_variables])
        ]
        layer.truncation = 3
        return np.concatenate(flat)

    full = gradient(None)
    expected = np.linalg.norm(gradient(2) - full) / np.linalg.norm(full)
    found = truncation_bias(model, X, Y, 2, batch_size=2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert truncation_bias(model, X, Y, T) < 1e-12
    assert model.layers[0].truncation == kbptt.truncation.Windowed(3)


# The arithmetic ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", adaptive.METHODS)
@pytest.mark.parametrize("tau", [0, 4, 12])
@pytest.mark.parametrize("beta", [0.3, 0.9, 1.1])
def test_decay_of_a_geometric_profile(method, tau, beta):
    assert adaptive.decay(5 * beta ** np.arange(20.0), tau, method) == pytest.approx(beta)


def test_decay_by_hand():
    norms = np.exp([9.0, 0.0, -1.0, -1.5, -4.0])
    assert adaptive.decay(norms, 1, "largest_ratio") == pytest.approx(np.exp(-0.75))
    slope = np.polyfit(range(4), [0.0, -1.0, -1.5, -4.0], 1)[0]
    assert adaptive.decay(norms, 1) == pytest.approx(np.exp(slope))
    pairs = [-1.0, -0.75, -4 / 3, -0.5, -1.5, -2.5]
    assert adaptive.decay(norms, 1, "quantile") == pytest.approx(np.exp(np.quantile(pairs, 0.95)))


def test_decay_of_zeros_and_of_one_lag():
    assert adaptive.decay([1.0, 0.0, 0.0]) == 0
    assert adaptive.decay([0.0, 0.0]) == 0
    assert np.isnan(adaptive.decay([1.0, 0.5], tau=1))
    assert adaptive.decay([1.0, 0.0, 0.25]) == pytest.approx(0.5)  # a zero is left out


@pytest.mark.parametrize("tau", [0, 3, 9])
@pytest.mark.parametrize("timesteps", [None, 10, 25])
def test_remaining_gradient_of_a_geometric_profile(tau, timesteps):
    beta, norms = 0.8, 3 * 0.8 ** np.arange(10.0)
    found = adaptive.remaining_gradient(norms, beta, tau, timesteps)
    end = 0 if timesteps is None else beta**timesteps
    expected = 3 * (beta ** np.arange(1, 11) - end) / (1 - beta)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_remaining_gradient_measures_up_to_tau():
    norms = np.array([5.0, 1.0, 7.0, 2.0, 100.0, 100.0])  # beyond τ the data do not count
    found = adaptive.remaining_gradient(norms, 0.5, 3)
    np.testing.assert_allclose(found, [1 + 7 + 4, 7 + 4, 4, 2, 1, 0.5])
    found = adaptive.remaining_gradient(norms, 1.0, 3, timesteps=8)
    np.testing.assert_allclose(found, [1 + 7 + 10, 7 + 10, 10, 8, 6, 4])
    assert np.all(np.isinf(adaptive.remaining_gradient(norms, 1.0, 3)))
    # No gradient lies beyond the end of the sequences, even if it grows.
    assert adaptive.remaining_gradient(norms, 2.0, 3, timesteps=6)[-1] == 0
    np.testing.assert_array_equal(adaptive.remaining_gradient([1.0, 0.0], 0.0, 1), [0, 0])


@pytest.mark.parametrize("tolerance", [0.9, 0.5, 0.1, 0.01])
def test_window_of_a_geometric_profile(tolerance):
    """Aligned gradients: ‖ĝ_K‖ = Σ_{k<K} φ_k, the whole is known, and δ(K) = β^K / (1 − …)."""
    beta, n = 0.8, 40
    norms = beta ** np.arange(n)
    truncated = np.cumsum(norms)
    found = adaptive.estimate_window(norms, truncated, tolerance)
    # max_K' (Σ_{k<K'} φ_k − E(K')) is at the largest K'.
    whole = (1 - 2 * beta**n) / (1 - beta)
    expected = beta ** np.arange(1, n + 1) / (1 - beta) / whole
    np.testing.assert_allclose(found.biases, expected, rtol=1e-9)
    assert found.length == np.flatnonzero(expected < tolerance)[0] + 1
    assert found.relative_bias == found.biases[found.length - 1]
    assert found.beta == pytest.approx(beta)


def test_bound_holds_for_gradients_that_cancel():
    """The estimate is never below the true relative bias of vectors that fall geometrically."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        vectors = rng.normal(size=(200, 4))
        vectors *= 0.8 ** np.arange(200)[:, None] / np.linalg.norm(vectors, axis=1)[:, None]
        whole = vectors.sum(axis=0)
        sums = np.cumsum(vectors, axis=0)
        true = np.linalg.norm(whole - sums, axis=1) / np.linalg.norm(whole)
        norms = np.linalg.norm(vectors, axis=1)[:40]
        truncated = np.linalg.norm(sums, axis=1)[:40]
        biases = adaptive.estimate_window(norms, truncated, method="largest_ratio").biases
        assert np.all(biases >= true[:40] * (1 - 1e-9))


def test_without_a_bound_the_window_is_the_longest():
    growing = 1.1 ** np.arange(10)
    found = adaptive.estimate_window(growing, np.cumsum(growing), maximum=8)
    assert found.length == 8 and found.relative_bias == np.inf
    # Unless the sequences end.
    found = adaptive.estimate_window(growing, np.cumsum(growing), timesteps=10)
    assert found.length == 10 and found.relative_bias == 0


def test_lengths_to_round_up_to():
    grid = adaptive.length_grid(4, 40, 2)
    np.testing.assert_array_equal(grid, [4, 8, 16, 32, 40])
    assert [adaptive.round_up(k, grid) for k in (1, 4, 5, 33, 99)] == [4, 4, 8, 40, 40]
    np.testing.assert_array_equal(adaptive.length_grid(1, 4, 1.1), [1, 2, 3, 4])
    np.testing.assert_array_equal(adaptive.length_grid(5, 5), [5])
    with pytest.raises(ValueError, match=r"`maximum`. Expected at least `minimum`"):
        adaptive.length_grid(5, 4)
    with pytest.raises(ValueError, match="`tau`"):
        adaptive.decay([1.0, 0.5], tau=2)
    with pytest.raises(ValueError, match=r"`method`.*'largest_ratio'"):
        adaptive.decay([1.0, 0.5], method="mean")
