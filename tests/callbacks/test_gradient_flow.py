"""GradientFlow against the event files it writes, read by TensorBoard's own reader."""

import os
import traceback

import keras
import numpy as np
import pytest
from recorded_gradients import TIMESTEPS, Recorded, data, fit, load, make_model, one_warning, steps

import kbptt
from kbptt.analysis import gradient_flow
from kbptt.callbacks import GradientFlow
from kbptt.tensorboard import writer


def test_what_is_written(tmp_path):
    callback = GradientFlow(tmp_path, log_freq=2)
    fit(make_model(run_eagerly=False), callback)
    series, accumulator = load(tmp_path)

    profiles = series["gradient_flow/rnn/dL_dh"]
    assert [step for step, _ in profiles] == [1, 3, 5, 7, 9, 11]
    for number, (_, norms) in enumerate(profiles, start=1):
        assert norms.dtype == np.float32
        np.testing.assert_array_equal(norms, number * 0.5 ** np.arange(TIMESTEPS)[::-1])
    for key, expected in gradient_flow.summarize(profiles[0][1]).items():
        (step, value), *_ = series[f"gradient_flow_stats/rnn/{key}"]
        assert (step, value) == (1, pytest.approx(expected))
    metadata = accumulator.SummaryMetadata("gradient_flow/rnn/dL_dh")
    assert metadata.plugin_data.plugin_name == "gradient_flow"
    content = b'{"v":1,"layer":"rnn","loss":"last","window":null,"index":0}'
    assert metadata.plugin_data.content == content
    assert metadata.data_class == 2  # DATA_CLASS_TENSOR
    width, height, png = series["gradient_flow_heatmap/rnn"][-1][1]
    assert png.startswith(b"\x89PNG") and int(width) > int(height) > 0


def test_a_real_layer_with_windows(tmp_path):
    model = make_model(kbptt.SimpleRNN(3, truncation=4, name="rnn"))
    callback = GradientFlow(tmp_path, log_freq=1, heatmap_freq=None)
    fit(model, callback, epochs=1)
    series, accumulator = load(tmp_path)
    norms = series["gradient_flow/rnn/dL_dh"][-1][1]
    np.testing.assert_array_equal(norms, model.layers[0].gradient_norms)
    # Only the last timestep has an output: its gradient stops at the cut.
    assert np.all(norms[:2] == 0) and np.all(norms[2:] > 0)
    metadata = accumulator.SummaryMetadata("gradient_flow/rnn/dL_dh")
    content = b'{"v":1,"layer":"rnn","loss":"last","window":4,"index":0}'
    assert metadata.plugin_data.content == content


def test_history_and_read_return_the_same(tmp_path):
    callback = GradientFlow(tmp_path, log_freq=1, heatmap_freq=None)
    fit(make_model(), callback)
    read = kbptt.tensorboard.read(tmp_path)
    assert list(read) == list(callback.history) == ["rnn"]
    for got, expected in zip(read["rnn"], callback.history["rnn"], strict=True):
        np.testing.assert_array_equal(got, expected)
    assert read["rnn"][1].shape == (12, TIMESTEPS)


def test_default_is_one_profile_per_epoch(tmp_path):
    fit(make_model(), GradientFlow(tmp_path), epochs=3)
    assert steps(load(tmp_path)[0]) == [6, 12, 18]


def test_steps_per_execution(tmp_path):
    fit(
        make_model(run_eagerly=False, steps_per_execution=4),
        GradientFlow(tmp_path, log_freq=3),
        epochs=2,
    )
    assert steps(load(tmp_path)[0]) == [4, 10]  # callbacks see steps 4, 6, 10 and 12 only


def test_a_long_run_doubles_its_interval(tmp_path):
    callback = GradientFlow(tmp_path, log_freq=1, max_profiles=4, heatmap_freq=None)
    fit(make_model(), callback, epochs=6)
    logged = steps(load(tmp_path)[0])
    assert logged == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    assert len(callback.history["rnn"][0]) <= 4


def test_global_norm_is_logged_without_any_clipping(tmp_path):
    fit(make_model(), GradientFlow(tmp_path, heatmap_freq=None))
    values = [value for _, value in load(tmp_path)[0]["gradient_flow_stats/optimizer/global_norm"]]
    assert len(values) == 2 and np.all(np.array(values) > 0)


@pytest.mark.parametrize("first", [True, False])
def test_clip_rate_whatever_the_order_of_the_callbacks(tmp_path, first):
    flow, clip = (
        GradientFlow(tmp_path, heatmap_freq=None),
        kbptt.callbacks.ClipByGlobalNorm(1e-3),
    )
    x, y = data()
    callbacks = [clip, flow] if first else [flow, clip]
    make_model().fit(x, y, batch_size=2, verbose=0, callbacks=callbacks)
    series, _ = load(tmp_path)
    prefix = "gradient_flow_stats/optimizer/"
    assert series[prefix + "clip_rate"][-1][1] == 1
    assert series[prefix + "norm_after"][-1][1] == pytest.approx(1e-3, rel=1e-4)
    assert series[prefix + "global_norm"][-1][1] > 1e-3


def test_norms_are_those_of_the_unscaled_loss(tmp_path):
    """The dynamic scale doubles after every second step: the one in force counts."""
    sgd = keras.optimizers.SGD
    optimizers = {
        "plain": sgd(0.01),
        "static": sgd(0.01, loss_scale_factor=64.0),
        "dynamic": keras.optimizers.LossScaleOptimizer(
            sgd(0.01), initial_scale=1024.0, dynamic_growth_steps=2
        ),
    }
    found = {}
    for name, optimizer in optimizers.items():
        keras.utils.set_random_seed(0)
        model = make_model(kbptt.SimpleRNN(3, name="rnn"), run_eagerly=False)
        model.compile(optimizer, "mse")
        flow = GradientFlow(tmp_path / name, log_freq=1, heatmap_freq=None)
        x, y = data(10)
        fitted = model.fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=[flow])
        assert len(fitted.epoch) == 1
        found[name] = flow.history["rnn"][1]
    assert found["plain"].shape == (5, TIMESTEPS) and np.all(found["plain"] > 0)
    np.testing.assert_allclose(found["static"], found["plain"], rtol=1e-4)
    np.testing.assert_allclose(found["dynamic"], found["plain"], rtol=1e-4)


def test_value_of_the_gradient_regularizer(tmp_path):
    layer = kbptt.SimpleRNN(3, gradient_regularizer="vanishing_gradient", name="rnn")
    fit(make_model(layer, run_eagerly=False), GradientFlow(tmp_path, heatmap_freq=None), epochs=1)
    series, _ = load(tmp_path)
    ((_, value),) = series["gradient_flow_stats/rnn/gradient_penalty"]
    assert value == pytest.approx(layer.gradient_penalty) and value > 0
    fit(make_model(), GradientFlow(tmp_path / "b", heatmap_freq=None), epochs=1)
    assert "gradient_flow_stats/rnn/gradient_penalty" not in load(tmp_path / "b")[0]


def test_gradients_by_lag(tmp_path):
    layer = kbptt.SimpleRNN(3, return_sequences=True, truncation=2, name="rnn")
    model = make_model(layer)
    x, y = data()
    callback = GradientFlow(tmp_path, heatmap_freq=None, lag_data=(x[:4], y[:4]), lag_freq=2)
    expected = kbptt.analysis.lag_profile(model, x[:4], y[:4])
    fit(model, callback, epochs=3)
    logged, norms = kbptt.tensorboard.read(tmp_path, by_lag=True)["rnn"]
    assert logged.tolist() == [0, 12]  # before the first step, and after every second epoch
    np.testing.assert_allclose(norms[0], expected.norms, rtol=1e-5)
    assert norms.shape == (2, TIMESTEPS) and np.all(norms[:, 3:] > 0)  # beyond the window, too
    fit(model, callback, epochs=1)
    assert kbptt.tensorboard.read(tmp_path, by_lag=True)["rnn"][0].tolist() == [0, 12, 18]
    assert steps(load(tmp_path)[0]) == [6, 12, 18, 24]


def test_number_of_lags_and_a_layer_without_any(tmp_path):
    x, y = data()
    arguments = {"heatmap_freq": None, "lag_data": (x, y), "max_lags": 2}
    fit(make_model(kbptt.GRU(2, name="rnn")), GradientFlow(tmp_path / "a", **arguments), epochs=1)
    assert kbptt.tensorboard.read(tmp_path / "a", by_lag=True)["rnn"][1].shape == (2, 2)
    fit(make_model(), GradientFlow(tmp_path / "b", **arguments), epochs=1)
    assert kbptt.tensorboard.read(tmp_path / "b", by_lag=True) == {}


def test_lag_data_that_does_not_fit_the_model_is_named(tmp_path):
    x, y = data()
    layer = kbptt.SimpleRNN(3, return_sequences=True, name="rnn")
    callback = GradientFlow(tmp_path, lag_data=(np.repeat(x[:4], 2, axis=2), y[:4]))
    with pytest.raises(ValueError, match=r"`lag_data`.* as for `fit`. Received shapes \(4, "):
        fit(make_model(layer), callback, epochs=1)


def test_a_train_step_without_the_optimizer(tmp_path):
    class Own(keras.Model):
        def train_step(self, batch):
            return {"loss": keras.ops.mean(self(batch[0], training=True))}

    inputs = keras.Input((TIMESTEPS, 2))
    model = Own(inputs, keras.layers.Dense(1)(Recorded(3, name="rnn")(inputs)))
    model.compile("sgd", "mse")
    flow, norm = GradientFlow(tmp_path, heatmap_freq=None), kbptt.callbacks.GradientNorm()
    x, y = data()
    logs = model.fit(x, y, verbose=0, callbacks=[norm, flow]).history
    series, _ = load(tmp_path)
    assert "gradient_flow_stats/rnn/decay" in series
    assert "gradient_flow_stats/optimizer/global_norm" not in series  # nobody has seen one
    assert "gradient_norm" not in logs


def test_every_nested_layer_under_a_safe_unique_name(tmp_path):
    names = ["..", "a>b", "a_b", "a.b", "optimizer"]  # Keras itself refuses most others
    inner = keras.Sequential(
        [keras.Input((TIMESTEPS, 2)), Recorded(2, return_sequences=True, name=names[0])]
    )
    x = inputs = keras.Input((TIMESTEPS, 2))
    x = inner(x)
    for name in names[1:]:
        x = Recorded(2, return_sequences=True, name=name)(x)
    x = keras.layers.Bidirectional(Recorded(2, name="both"))(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, GradientFlow(tmp_path), epochs=1)
    series, accumulator = load(tmp_path)
    found = {tag.split("/")[1] for tag in series if tag.endswith("dL_dh")}
    assert len(found) == 7
    assert {"layer", "a.b", "optimizer_2", "forward_both", "backward_both"} <= found
    assert {"a_b", "a_b_2"} <= found
    for name in found:
        content = accumulator.SummaryMetadata(f"gradient_flow/{name}/dL_dh").plugin_data.content
        assert len(content) < 150
        assert (b'"loss":"all"' in content) == (not name.endswith("_both"))


def test_sequences_of_different_lengths_and_bad_norms(tmp_path):
    class Odd(Recorded):
        @property
        def gradient_norms(self):
            self.reads += 1
            return [None, [], [1, 0], [np.nan, np.inf, 0], [0, 0, 0, 0]][min(self.reads - 1, 4)]

    callback = GradientFlow(tmp_path, log_freq=1, heatmap_freq=1)
    fit(make_model(Odd(3, name="rnn")), callback, epochs=1)
    logged, norms = callback.history["rnn"]
    assert list(logged) == [2, 3, 4, 5, 6]
    # Aligned at the last timestep, where the loss is.
    assert norms[1].tolist() == [None, None, 1, 0]
    np.testing.assert_array_equal(norms[2].filled(-1), [-1, np.nan, np.inf, 0])


def test_a_model_without_such_a_layer_trains_with_one_warning(tmp_path):
    model = make_model(keras.layers.SimpleRNN(3))
    with one_warning("by kbptt.LSTM"):
        fit(model, GradientFlow(tmp_path), epochs=2)


def test_at_most_five_calls_lead_from_a_batch_to_the_event_file(tmp_path, monkeypatch):
    calls = []

    class Watched(writer.RecordWriter):
        def write(self, data):
            names = [frame.name for frame in traceback.extract_stack()][::-1]
            calls.append(names[1 : names.index("on_train_batch_end")])
            super().write(data)

    monkeypatch.setattr(writer, "RecordWriter", Watched)
    fit(make_model(), GradientFlow(tmp_path, log_freq=1, heatmap_freq=None), epochs=1)
    assert calls and all(0 < len(names) <= 5 for names in calls)


def test_evaluate_and_predict_write_nothing(tmp_path):
    callback, model = GradientFlow(tmp_path), make_model()
    x, y = data()
    model.evaluate(x, y, verbose=0, callbacks=[callback])
    model.predict(x, verbose=0, callbacks=[callback])
    assert os.listdir(tmp_path) == []


def test_a_file_system_of_tensorflow(tmp_path):
    import tensorflow as tf

    fit(make_model(), GradientFlow("ram://runs/a", heatmap_freq=None))
    (name,) = tf.io.gfile.listdir("ram://runs/a")
    tf.io.gfile.copy(f"ram://runs/a/{name}", str(tmp_path / name))
    assert steps(load(tmp_path)[0]) == [6, 12]


def test_arguments(tmp_path):
    (tmp_path / "file").write_text("")
    for log_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="is a file"):
            GradientFlow(log_dir)
    for bad in ("", 3):
        with pytest.raises(ValueError, match="log_dir"):
            GradientFlow(bad)
    for arguments in (
        {"log_freq": 0},
        {"log_freq": "batch"},
        {"heatmap_freq": True},
        {"max_profiles": 2.5},
        {"lag_data": 3},
        {"lag_data": ([1],)},
        {"lag_freq": 0},
        {"max_lags": 1},
        {"health": "gates"},
        {"health": 1},
        {"on_verdict": "raise"},
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
            GradientFlow(tmp_path, **arguments)


def test_lag_data_in_a_config(tmp_path):
    callback = GradientFlow(tmp_path, lag_data=(np.ones((1, 2, 1)), [[1.0]], None))
    again = GradientFlow.from_config(callback.get_config())
    assert again.lag_data[0].shape == (1, 2, 1) and again.lag_data[2] is None
