"""GradientFlow(health=…): what it measures in `fit`, and that training is as without it."""

import re
import warnings

import keras
import numpy as np
import pytest
from ill_models import TIMESTEPS, data, healthy, ill, linear, network
from recorded_gradients import load, one_warning, steps

import kbptt
from kbptt.analysis import find_faults
from kbptt.callbacks import GradientFlow


def fit(model, flow, x, y, **arguments):
    arguments = {"batch_size": 8, "epochs": 2, "verbose": 0, "shuffle": False} | arguments
    return model.fit(x, y, callbacks=[flow, *arguments.pop("more", ())], **arguments)


def small(optimizer=None, **options):
    return network(kbptt.LSTM(3, name="rnn", **options), optimizer=optimizer)


def test_training_is_the_same_and_the_step_is_traced_once():
    weights, traces = [], []
    x, y = data()
    for health in (False, True):
        count = []

        class Counted(keras.Sequential):
            def train_step(self, batch, count=count):
                count.append(1)
                return super().train_step(batch)

        keras.utils.set_random_seed(0)
        layer = kbptt.GRU(3, name="rnn", dropout=0.2, return_sequences=True)
        model = Counted([keras.Input((TIMESTEPS, 2)), layer, keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        fit(model, GradientFlow(None, log_freq=1, health=health), x, y[:, None], batch_size=12)
        weights.append(model.get_weights())
        traces.append(len(count))
    for plain, watched in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, watched)
    assert traces == [traces[0]] * 2  # batches of 12, 12 and 8


def test_what_is_measured_is_the_batch_of_the_step(tmp_path):
    """Against the gradient, the update and the states computed by hand before each step."""
    rate = 0.25
    model = small(keras.optimizers.SGD(rate))
    x, y = data()
    expected = {"h": [], "norm": [], "ratio": []}

    class Expect(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            import tensorflow as tf

            part = slice(8 * batch, 8 * batch + 8)
            (found,) = kbptt.analysis.health(model, x[part])
            expected["h"].append(found.state_norms["h"])
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x[part]) - y[part]) ** 2)
            variables = model.trainable_variables
            gradients = tape.gradient(loss, [v.value for v in variables])
            norms = {v.path: np.linalg.norm(g) for v, g in zip(variables, gradients, strict=True)}
            expected["norm"].append(norms)
            sizes = {v.path: np.linalg.norm(v) for v in variables}
            ratios = {p: rate * norms[p] / sizes[p] for p in norms if sizes[p]}
            expected["ratio"].append(ratios)

    flow = GradientFlow(tmp_path, log_freq=1, health=["states", "variables"], heatmap_freq=None)
    fit(model, Expect(), x, y, more=[flow], epochs=1)
    series, accumulator = load(tmp_path)
    measured = [norms for _, norms in series["gradient_flow/rnn/h_norm"]]
    np.testing.assert_allclose(measured, expected["h"], rtol=1e-5)
    assert steps(series, "gradient_flow/rnn/c_norm") == [1, 2, 3, 4]
    plugin = accumulator.SummaryMetadata("gradient_flow/rnn/c_norm").plugin_data
    assert plugin.plugin_name == "gradient_flow" and b'"layer":"rnn"' in plugin.content
    for path in expected["norm"][0]:
        # Without the model's name, which differs from model to model.
        of_variable = f"gradient_flow_stats/variables/{path.removeprefix(f'{model.name}/')}"
        found = [float(v) for _, v in series[f"{of_variable}/gradient_norm"]]
        np.testing.assert_allclose(found, [e[path] for e in expected["norm"]], rtol=1e-4)
        found = dict(series[f"{of_variable}/update_to_weight"])
        for step, ratios in enumerate(expected["ratio"], 1):
            assert (step in found) == (path in ratios)  # a bias of 0 has no ratio
            if path in ratios:
                assert float(found[step]) == pytest.approx(ratios[path], rel=1e-3)
    assert not any(tag.endswith("by_lag") for tag in series)
    assert flow.states["rnn/h"][1].shape == (4, TIMESTEPS)
    values = flow.scalars["rnn/gate_f_open"]
    assert values[0].tolist() == [1, 2, 3, 4] and values[1].shape == (4,)


def test_variables_are_measured_before_any_clip():
    model = small(keras.optimizers.SGD(0.1))
    x, y = data()
    clip = kbptt.callbacks.ClipByGlobalNorm(1e-3)
    flow = GradientFlow(None, log_freq=1, health="variables")
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[clip, flow])
    found = flow.scalars
    norms = [v[1] for k, v in found.items() if k.endswith("/gradient_norm")]
    np.testing.assert_allclose(
        np.sqrt(np.square(norms).sum(axis=0)), found["optimizer/global_norm"][1], rtol=1e-5
    )
    assert found["optimizer/global_norm"][1].min() > 1e-3
    assert found["optimizer/norm_after"][1].max() <= 1.001e-3


def test_lags_of_the_batch_only_where_every_timestep_has_an_output(tmp_path):
    x, y = data(per_timestep=True)
    model = network(
        kbptt.SimpleRNN(3, return_sequences=True, name="lower", truncation=5),
        kbptt.SimpleRNN(3, name="upper"),
    )
    flow = GradientFlow(tmp_path, health="lags", max_lags=20, heatmap_freq=None)
    fit(model, flow, x, y[:, 0], epochs=1)
    found = kbptt.tensorboard.read(tmp_path, by_lag=True)
    assert list(found) == ["lower"] and found["lower"][1].shape == (1, 20)
    (profile,) = flow.lag_profiles
    np.testing.assert_allclose(found["lower"][1][0], profile.norms, rtol=1e-6)
    assert (profile.norms > 0).all()  # beyond the window


def test_by_default_the_last_step_of_an_epoch():
    x, y = data()
    flow = GradientFlow(None, health="states")
    fit(small(), flow, x, y)
    assert flow.history["rnn"][0].tolist() == [4, 8]
    assert flow.states["rnn/h"][0].tolist() == [4]  # a second one would take too large a share


def test_a_share_of_the_time_of_fit(monkeypatch):
    """The third measurement waits until 4 % of the time are enough for it."""
    from kbptt.callbacks import _health

    now = [0.0]
    monkeypatch.setattr(_health.time, "monotonic", lambda: now[0])

    def slow(*_):
        now[0] += 1.0

    monkeypatch.setattr(_health.HealthMonitor, "_states", slow)

    class Pass(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            now[0] += 10.0

    x, y = data(samples=8)
    flow = GradientFlow(None, health=["states", "variables"])
    fit(small(), flow, x, y, epochs=8, more=[Pass()])
    (measured,) = (
        steps
        for key, (steps, _) in flow.scalars.items()
        if re.search(r"dense.*/update", key) and "kernel" in key
    )
    # Counted are those from the second on: a second each, which 25 s pay for.
    assert measured.tolist() == [1, 2, 6]


@pytest.mark.parametrize("together", [2, 3])
def test_steps_that_run_together(together):
    x, y = data()
    model = small()
    model.compile(keras.optimizers.SGD(0.1), "mse", steps_per_execution=together)
    flow = GradientFlow(None, log_freq=together, health=True)
    fit(model, flow, x, y, epochs=1)
    assert set(flow.states["rnn/h"][0]) == set(flow.history["rnn"][0])


def test_a_stream_is_seen_with_the_states_it_carries(tmp_path):
    rng = np.random.default_rng(0)
    sequence = rng.normal(size=(60, 2)).astype("float32")
    targets = sequence[:, :1]
    windows = kbptt.data.Streams(sequence, targets, target=None, length=5, batch_size=2)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((None, 2)), kbptt.GRU(3, return_sequences=True), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(1e-9), "mse")
    flow = GradientFlow(None, log_freq=1, health="states")
    state = kbptt.callbacks.StreamState(windows)
    model.fit(windows, verbose=0, callbacks=[state, flow])
    (name,) = flow.history
    windows.seek(0)
    x, _, real = (np.concatenate(parts, axis=1) for parts in zip(*windows, strict=True))
    h = model.layers[0](x, mask=real > 0)
    expected = np.ma.masked_array(np.linalg.norm(h, axis=-1), real == 0).mean(axis=0)
    measured = flow.states[f"{name}/h"][1]
    np.testing.assert_allclose(measured, expected.filled(np.nan).reshape(-1, 5), rtol=1e-4)


def test_what_cannot_be_measured_does_not_end_training():
    class Strange(keras.Model):
        """Takes batches that its `call` does not."""

        def __init__(self):
            super().__init__()
            self.rnn, self.dense = kbptt.SimpleRNN(3), keras.layers.Dense(1)

        def call(self, x):
            return self.dense(self.rnn(x))

        def train_step(self, batch):
            return super().train_step((batch["sequences"], batch["targets"]))

    import tensorflow as tf

    x, y = data()
    batches = tf.data.Dataset.from_tensor_slices({"sequences": x, "targets": y}).batch(8)
    model = Strange()
    model.compile("sgd", "mse")
    flow = GradientFlow(None, health=True)
    with one_warning("cannot measure the states"):
        model.fit(batches, epochs=2, verbose=0, callbacks=[flow])
    assert len(flow.history[model.rnn.name][0]) == 2


@pytest.mark.parametrize("name", ill())
def test_an_ill_model_gets_its_finding(name):
    model, (x, y), more = ill()[name]
    flow = GradientFlow(None, log_freq=1, health=True)
    fit(model, flow, x, y, more=more)
    found = {finding.name for finding in flow.findings()}
    assert name in found
    # What follows from it, and nothing else.
    consequences = {
        "window-too-long": {"vanishing"},
        "saturated-gates": {"vanishing"},
        "dead-units": {"vanishing"},
    }
    assert found - {name} <= consequences.get(name, set())


@pytest.mark.parametrize("name", healthy())
def test_a_healthy_model_gets_none(name):
    model, (x, y), more = healthy()[name]
    flow = GradientFlow(None, log_freq=1, health=True, on_verdict="warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, flow, x, y, more=more)
    assert not [w for w in caught if "GradientFlow" in str(w.message)]
    assert flow.findings() == []


def test_warn_stop_and_call(tmp_path):
    x, y = data()
    with one_warning("found vanishing (rnn)"):
        fit(network(linear(0.8)), GradientFlow(None, log_freq=1, on_verdict="warn"), x, y)
    calls = []
    flow = GradientFlow(tmp_path, log_freq=1, on_verdict=calls.append, heatmap_freq=None)
    fit(network(linear(0.8)), flow, x, y)
    ((finding,),) = calls  # once, not at every profile
    assert (finding.name, finding.where) == ("vanishing", "rnn")
    model = network(linear(0.8))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, GradientFlow(None, log_freq=1, on_verdict="stop"), x, y, epochs=5)
    assert any("ends training: vanishing" in str(w.message) for w in caught)
    assert int(model.optimizer.iterations.numpy()) == 3  # the first at which anything is judged
    flow = GradientFlow(None, log_freq=1, on_verdict="stop", thresholds={"vanishing": 1e-9})
    fit(network(linear(0.8)), flow, x, y)


@pytest.mark.parametrize("first", [True, False])
def test_steps_that_a_clip_skips_are_found_though_no_profile_comes(first):
    x, y = data()
    x[:] = np.nan
    clip = kbptt.callbacks.ClipByGlobalNorm(1.0)
    flow = GradientFlow(None, log_freq=1, on_verdict="warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        callbacks = [flow, clip] if first else [clip, flow]
        network(linear(0.98)).fit(x, y, batch_size=8, verbose=0, callbacks=callbacks)
    text = "non-finite: 1 step had a NaN or infinite gradient"
    assert any(text in str(w.message) for w in caught)
    of_steps, of_layer = flow.findings()
    assert (of_steps.name, of_steps.value, of_layer.where) == ("non-finite", 4, "rnn")


def test_a_second_fit_is_judged_by_its_own_clips_and_by_all_steps(tmp_path):
    x, y = data()
    bad = np.where(np.arange(32)[:, None, None] < 8, np.nan, x)
    model, flow = network(linear(0.98)), GradientFlow(tmp_path, log_freq=1, heatmap_freq=None)
    fit(model, flow, bad, y, epochs=1, more=[kbptt.callbacks.ClipByGlobalNorm(1e-6)])
    assert {f.name for f in flow.findings()} == {"clip-always", "non-finite"}
    fit(model, flow, x, y, epochs=1)
    for found in flow.findings(), find_faults(kbptt.tensorboard.read_evidence(tmp_path)):
        assert [(f.name, f.value) for f in found] == [("non-finite", 1)]


def test_a_step_that_only_accumulates_has_no_update():
    x, y = data()
    model = small(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    flow = GradientFlow(None, log_freq=1, health="variables")
    fit(model, flow, x, y)
    ratios = [v for k, (_, v) in flow.scalars.items() if k.endswith("update_to_weight")]
    assert ratios and all((of > 0).all() for of in ratios)


def test_lags_of_a_padded_batch_are_those_of_whole_sequences():
    """Of a linear network of weight 1 every loss reaches all earlier states alike."""
    x = np.ones((8, 12, 2), "float32")
    for number, sequence in enumerate(x):
        sequence[12 - number :] = 0
    layer = kbptt.SimpleRNN(
        2,
        activation="linear",
        recurrent_initializer="identity",
        return_sequences=True,
        name="rnn",
    )
    model = keras.Sequential([keras.Input((12, 2)), keras.layers.Masking(), layer])
    model.compile(keras.optimizers.SGD(1e-9), "mse")
    flow = GradientFlow(None, health="lags")
    model.fit(x, np.zeros((8, 12, 2)), batch_size=8, shuffle=False, verbose=0, callbacks=[flow])
    (profile,) = flow.lag_profiles
    # The norms of the losses themselves grow along the sequence: compare with an unpadded batch.
    expected = kbptt.analysis.lag_profile(model, x[:1], np.zeros((1, 12, 2)))
    np.testing.assert_allclose(profile.norms, expected.norms, rtol=1e-4)
    x[:, -1] = 0
    fresh = GradientFlow(None, health="lags")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, np.zeros((8, 12, 2)), batch_size=8, epochs=3, verbose=0, callbacks=[fresh])
    assert fresh.lag_profiles == []  # no sequence of the batch is whole
    assert len([one for one in caught if "had none and is skipped" in str(one.message)]) == 1


def test_lags_are_measured_up_to_the_cut():
    x, y = data(per_timestep=True)
    layer = linear(0.999, truncation=30, return_sequences=True)
    model = network(layer)
    flow = GradientFlow(None, log_freq=1, health="lags", max_lags=5)
    fit(model, flow, x, y, epochs=1)
    (profile,) = flow.lag_profiles
    assert len(profile) == 30 and "cut-too-short" in {f.name for f in flow.findings()}


def test_without_a_directory_only_the_history(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = data()
    flow = GradientFlow(log_freq=2, health=True)
    fit(network(linear(0.8)), flow, x, y)
    assert list(tmp_path.iterdir()) == [] and flow.log_dir is None
    assert len(flow.history["rnn"][0]) == 4
    flow.summary()
    printed = capsys.readouterr().out
    assert "rnn: vanishing." in printed and "docs/findings.md#vanishing" in printed
    figure = flow.plot()
    assert figure._repr_png_().startswith(b"\x89PNG") and len(figure.axes) == 5
    with pytest.raises(ValueError, match="'rnn'"):
        flow.plot("lstm")
    with pytest.raises(ValueError, match="at least one profile"):
        GradientFlow().plot()
    again = GradientFlow.from_config(flow.get_config())
    assert again.log_dir is None and again.health == ("states", "variables", "lags")
