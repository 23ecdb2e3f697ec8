"""GradientFlow in directories that other fits, processes and callbacks write to, too."""

import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from recorded_gradients import data, fit, load, make_model, one_warning, steps

import kbptt
from kbptt.callbacks import GradientFlow, _heatmaps
from kbptt.tensorboard import layout
from kbptt.tensorboard.history import History


def test_other_callbacks_that_write_to_the_same_directory(tmp_path):
    """They log before the first step: that must not look like the profiles of another run."""
    x, y = data()
    model = make_model(kbptt.SimpleRNN(3, return_sequences=True, name="rnn"))
    others = [
        kbptt.callbacks.SpectralMonitor(tmp_path),
        kbptt.callbacks.AdaptiveTruncation(
            minimum=1, maximum=4, warmup=0, data=(x, y), log_dir=tmp_path
        ),
    ]
    callback = GradientFlow(tmp_path, heatmap_freq=None)
    model.fit(x, y, batch_size=2, verbose=0, callbacks=[*others, callback])
    assert callback.log_dir == str(tmp_path)
    series, _ = load(tmp_path)
    assert steps(series) == [6]
    assert steps(series, "gradient_flow_stats/rnn/truncation") == [0]
    assert steps(series, "gradient_flow/rnn/dL_dh_by_lag") == [0]


def test_two_fits_continue_the_steps(tmp_path):
    callback, model = GradientFlow(tmp_path, log_freq=2), make_model()
    fit(model, callback, epochs=1)
    fit(model, callback, epochs=1)
    model.compile("adam", "mse", run_eagerly=True)  # restarts the iterations
    fit(model, callback, epochs=1)
    logged = steps(load(tmp_path)[0])
    assert logged == [1, 3, 5, 7, 9, 11, 12, 14, 16]


def test_resumed_in_a_new_process_the_steps_still_increase(tmp_path):
    model = make_model()
    fit(model, GradientFlow(tmp_path / "run", log_freq=1), epochs=1)
    model.save(tmp_path / "model.keras")
    fit(model, GradientFlow(tmp_path / "run", log_freq=1), epochs=1)
    # As after a crash: the checkpoint is older than what was logged.
    resumed = keras.models.load_model(tmp_path / "model.keras")
    fit(resumed, GradientFlow(tmp_path / "run", log_freq=1), epochs=2)
    assert steps(load(tmp_path / "run")[0]) == list(range(1, 19))


def test_another_run_in_the_same_directory_is_numbered(tmp_path):
    callback = GradientFlow(tmp_path / "run")
    fit(make_model(), callback)
    with one_warning("contains the profiles of a different run"):
        fit(make_model(), callback)  # one callback object, two models
    assert callback.log_dir == str(tmp_path / "run_2")
    assert len(callback.history["rnn"][0]) == 2
    with one_warning("run_3"):
        fit(make_model(), GradientFlow(tmp_path / "run"))
    for name in ("run", "run_2", "run_3"):
        assert steps(load(tmp_path / name)[0]) == [6, 12]


@pytest.mark.skipif(sys.platform == "win32", reason="no fcntl")
def test_a_live_process_in_the_same_directory_is_noticed(tmp_path):
    run = tmp_path / "run"
    code = (
        "import sys; from kbptt.callbacks._run_directory import Claim\n"
        f"claim = Claim({str(run)!r}); print(claim.acquire(), flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "True\n"
        callback = GradientFlow(run)
        with one_warning("in use by another process"):
            fit(make_model(), callback)
    finally:
        other.communicate("")
    assert callback.log_dir == str(tmp_path / "run_2")
    assert len(load(callback.log_dir)[0]["gradient_flow/rnn/dL_dh"]) == 2


def test_an_exception_in_fit_then_fit_again(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model, callback = make_model(), GradientFlow(tmp_path, log_freq=1)
    x, y = data()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=2, verbose=0, callbacks=[callback, Stop()])
    assert steps(load(tmp_path)[0]) == [1]  # written at once, not at the end
    fit(model, callback, epochs=1)
    assert steps(load(tmp_path)[0]) == list(range(1, 8))


def test_an_interrupted_run_has_its_image_in_the_end(tmp_path):
    """At the next `fit` or the end of the process: Keras calls no hook when `fit` raises."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    def interrupted():
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, y, batch_size=6, verbose=0, callbacks=[callback, Stop()])

    model, callback = make_model(), GradientFlow(tmp_path)
    image = "gradient_flow_heatmap/rnn"
    x, y = data()
    interrupted()
    assert image not in load(tmp_path)[0]
    interrupted()
    assert steps(load(tmp_path)[0], image) == [2]
    _heatmaps._finish_all()  # what the process calls at its end
    _heatmaps._finish_all()
    assert steps(load(tmp_path)[0], image) == [2, 4]
    interrupted()
    shutil.rmtree(tmp_path)
    _heatmaps._finish_all()
    assert not tmp_path.exists()


def test_drawing_takes_a_small_share_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_heatmaps.time, "monotonic", lambda: now[0])
    profiles = History(10)
    heatmaps = _heatmaps.Heatmaps(profiles)
    for step in range(2):
        profiles.add(step, {"rnn": np.ones(3, np.float32)})
    heatmaps.note(1, {"rnn": layout.Division()}, None)
    now[0] = 20.0  # too early for an image of half a second
    assert not heatmaps.due()
    now[0] = 25.0
    assert heatmaps.due()
    assert len(heatmaps.draw()) == 1
    assert not heatmaps.due()  # the history has not grown


def test_beside_keras_tensorboard_in_one_directory(tmp_path):
    x, y = data()
    board = keras.callbacks.TensorBoard(tmp_path, update_freq="epoch", write_graph=False)
    callbacks = [board, GradientFlow(tmp_path, log_freq=1)]
    make_model().fit(x, y, batch_size=2, verbose=0, validation_data=(x, y), callbacks=callbacks)
    assert steps(load(tmp_path)[0]) == [1, 2, 3, 4, 5, 6]
    assert "epoch_loss" in load(tmp_path / "train")[0]
