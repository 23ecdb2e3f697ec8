"""Fixtures that many test modules use."""

import gc
import pathlib
import sys

import pytest


@pytest.fixture(scope="module", autouse=True)
def tidy():
    """Leaves nothing of a file's models behind.

    What is left is spared by the garbage collector: going through millions of old objects again and
    again made the last files of a run take several times as long as alone.
    """
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session(free_memory=False)
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["native", "tensorflow"])
def eager(request):
    """Runs the loops operation by operation, once those in C++ and once those in TensorFlow."""
    from recurrent import running_eagerly

    with running_eagerly(request.param):
        yield


@pytest.fixture
def working_directory(tmp_path: pathlib.Path, monkeypatch) -> pathlib.Path:
    """An empty directory that the test runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def float64():
    """Keras's default dtype is float64: also of losses, metrics and stacked cells."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(before)
