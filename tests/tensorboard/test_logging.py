"""From `fit` to the tab's server side, where names, sizes or disks are odd."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from plugin_client import get, make_client, read_grid

import kbptt
from kbptt.callbacks import GradientFlow
from kbptt.tensorboard import layout, reader

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@keras.saving.register_keras_serializable("kbptt_tests_logging")
class Long(keras.layers.SimpleRNN):
    """A layer with norms of as many timesteps as asked for, whatever its input is."""

    gradient_norms = None


def fit(log_dir, layer, epochs=2, **arguments):
    model = keras.Sequential([keras.Input((2, 1)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    flow = GradientFlow(log_dir, **arguments)
    model.fit(np.ones((2, 2, 1)), np.ones((2, 1)), epochs=epochs, verbose=0, callbacks=[flow])
    return flow


@pytest.mark.parametrize("timesteps", [1, 20_000])
def test_one_and_twenty_thousand_timesteps(tmp_path, timesteps):
    layer = Long(2, name="rnn")
    layer.gradient_norms = np.linspace(1, 2, timesteps, dtype=np.float32)
    flow = fit(tmp_path / "run", layer)
    steps, norms = kbptt.tensorboard.read(tmp_path / "run")["rnn"]
    assert steps.tolist() == [1, 2]
    np.testing.assert_array_equal(norms, [layer.gradient_norms] * 2)
    np.testing.assert_array_equal(flow.history["rnn"][1], norms)
    client = make_client(tmp_path)
    header, values = read_grid(get(client, "grid", run="run", tag=layout.profile_tag("rnn")))
    assert header["timesteps"] == timesteps and values.shape == (2, min(timesteps, 200))
    assert values[0, -1] == pytest.approx(np.log10(2 if timesteps > 1 else 1), abs=0.01)


@pytest.mark.parametrize(
    "name",
    ["with spaces", "größe 层", "<script>alert(1)</script>", "a/b/../c", "[ab]*?", "%2e&=#", "'\""],
)
def test_a_directory_of_any_name_is_a_run_of_that_name(tmp_path, name):
    layer = kbptt.SimpleRNN(2, name="rnn")
    first = fit(tmp_path / name, layer)
    assert first.log_dir == str(tmp_path / name)
    with pytest.warns(UserWarning, match="a different run"):
        second = fit(tmp_path / name, kbptt.SimpleRNN(2, name="rnn"))
    assert second.log_dir == f"{tmp_path / name}_2"
    run = os.path.relpath(tmp_path / name, tmp_path)
    client = make_client(tmp_path)
    assert set(get(client, "tags").json) == {run, f"{run}_2"}
    for log_dir in (run, f"{run}_2"):
        (profile,) = get(client, "profiles", run=log_dir, tag=layout.profile_tag("rnn")).json
        _, norms = kbptt.tensorboard.read(tmp_path / log_dir)["rnn"]
        assert profile["norms"] == pytest.approx(norms[-1].tolist())
    csv = get(client, "export", run=run, tag=layout.profile_tag("rnn"))
    disposition = csv.headers["Content-Disposition"]
    assert disposition.isascii() and disposition.count('"') == 2 and "/" not in disposition


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
def test_a_disk_that_fills_up_inside_a_record(tmp_path):
    """The limit of a file's size fails as a full disk does: after a part has been written."""
    code = f"""
import resource, warnings
import keras, numpy as np, kbptt
model = keras.Sequential([keras.Input((9, 1)), kbptt.SimpleRNN(2, name="rnn")])
model.compile("sgd", "mse", run_eagerly=True)
flow = kbptt.callbacks.GradientFlow({str(tmp_path / "run")!r}, log_freq=1, heatmap_freq=None)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, -1))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model.fit(np.ones((40, 9, 1)), np.ones((40, 2)), batch_size=1, verbose=0, callbacks=[flow])
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
said = [str(w.message) for w in caught if "GradientFlow" in str(w.message)]
print(len(said), "training continues" in said[0], int(model.optimizer.iterations))
model.fit(np.ones((40, 9, 1)), np.ones((40, 2)), batch_size=1, verbose=0, callbacks=[flow])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "True", "40"]
    # The torn record is left out, by kbptt as by TensorBoard; the next `fit` logs again.
    steps, _ = kbptt.tensorboard.read(tmp_path / "run")["rnn"]
    torn = steps.tolist().index(41)
    assert 0 < torn < 40 and steps.tolist() == [*range(1, torn + 1), *range(41, 81)]
    assert reader.last_step(str(tmp_path / "run")) == 80
    client = make_client(tmp_path)
    (profile,) = get(client, "profiles", run="run", tag=layout.profile_tag("rnn")).json
    assert profile["steps"] == steps.tolist()
