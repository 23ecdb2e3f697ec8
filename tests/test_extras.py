"""One clear sentence where an optional dependency is missing."""

import configparser
import pathlib
import re
import subprocess
import sys

import pytest

from kbptt._extras import EXTRAS, MissingExtra, optional_imports

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_error_names_the_extra(extra):
    for module in EXTRAS[extra]:
        sentence = rf"needs '{module}', which is not installed.*pip install 'kbptt\[{extra}\]'"
        with pytest.raises(MissingExtra, match=sentence), optional_imports():
            raise ModuleNotFoundError(name=f"{module}.submodule")


def test_the_table_is_that_of_the_metadata():
    """setup.cfg names distributions, `EXTRAS` the modules in them."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    modules = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
    for extra, expected in EXTRAS.items():
        names = re.findall(r"^[\w-]+(?!.*\[)", setup["options.extras_require"][extra], re.MULTILINE)
        found = {modules.get(name, name) for name in names}
        assert found == {*expected} - {"dask"}  # which distributed brings


def test_other_missing_modules_keep_their_error():
    with pytest.raises(ModuleNotFoundError) as raised, optional_imports():
        import kbptt.missing  # noqa: F401
    assert raised.type is ModuleNotFoundError


TRAINING = """\
import pathlib, sys
for name in {hidden!r}:
    sys.modules[name] = None
import keras, numpy as np, kbptt
model = keras.Sequential([keras.Input((6, 2)), kbptt.GRU(3, truncation=2, name="rnn"),
                          keras.layers.Dense(1)])
model.compile("sgd", "mse")
flow = kbptt.callbacks.GradientFlow("logs", log_freq=1)
clip = kbptt.callbacks.ClipByGlobalNorm(1.0)
model.fit(np.ones((4, 6, 2)), np.ones((4, 1)), epochs=3, verbose=0, callbacks=[flow, clip])
written = kbptt.tensorboard.read("logs")
assert len(flow.history["rnn"][0]) == 3 and written
from kbptt.tensorboard.plugin import GradientFlowLoader
for call in (lambda: kbptt.tensorboard.heatmap_figure, lambda: flow.__class__("x", heatmap_freq=2)):
    try:
        call()
    except kbptt._extras.MissingExtra as error:
        assert "kbptt[plot]" in str(error)
    else:
        raise AssertionError
"""


def test_training_and_logging_need_no_extra(tmp_path):
    hidden = {module for modules in EXTRAS.values() for module in modules} - {"rich"}  # Keras's
    code = TRAINING.format(hidden=hidden)
    done = subprocess.run(
        [sys.executable, "-W", "error:::kbptt", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
