"""What whoever has installed kbptt finds: the loops, the command, the tab, the types.

`make test-wheel` runs this on the packages of a release, outside the tree; the suite runs it on the
editable installation.
"""

import importlib.metadata
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import kbptt
from kbptt.engine import native

PLACE = pathlib.Path(kbptt.__file__).resolve().parent


installed = pytest.mark.skipif(
    "KBPTT_INSTALLED" not in os.environ, reason="kbptt was not installed from a package"
)


@installed
def test_it_is_the_installed_package_and_runs_the_compiled_loops():
    assert PLACE.is_relative_to(pathlib.Path(sys.prefix).resolve())
    assert native.library() is not None, "the package has no compiled loops"
    assert native.is_usable()
    layer = kbptt.LSTM(4, truncation=5)
    assert "C++" in str(kbptt.explain(layer, (2, 10, 3)))


def test_a_model_trains_and_its_gradient_is_logged(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 12, 3)).astype("float32"), rng.normal(size=(16, 1))
    layer = kbptt.GRU(4, truncation=6)
    model = keras.Sequential([keras.Input((12, 3)), layer, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    callbacks = [kbptt.callbacks.GradientFlow(tmp_path), kbptt.callbacks.ClipByGlobalNorm(1.0)]
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
    assert np.isfinite(history.history["loss"]).all()
    norms = layer.gradient_norms
    assert not norms[:6].any() and norms[6:].all()
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_the_command_is_there(tmp_path):
    command = pathlib.Path(sys.executable).with_name("kbptt")
    done = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("train", "compare", "report", "check"):
        assert name in done.stdout


def test_tensorboard_finds_the_tab():
    (entry,) = importlib.metadata.entry_points(
        group="tensorboard_plugins", name="kbptt_gradient_flow"
    )
    assert entry.load().__name__ == "GradientFlowLoader"


def test_type_checkers_find_the_types():
    assert (PLACE / "py.typed").is_file()
    assert (PLACE / "__init__.pyi").is_file()


def test_what_the_tab_and_the_reports_show_is_there():
    assert list((PLACE / "tensorboard/static").glob("*.js"))
    assert list((PLACE / "ablation/templates").iterdir())


@installed
def test_the_version_is_that_of_the_package():
    assert importlib.metadata.version("kbptt") == kbptt.__version__
