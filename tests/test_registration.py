"""Keras and kbptt imported in either order, also where kbptt's layers cannot be."""

import os
import subprocess
import sys

import pytest


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "order",
    [
        "import kbptt, keras",
        "import keras, kbptt",
        # Each imports Keras on its way, and is needed by the layers, which are registered then.
        "from kbptt import truncation; import keras",
        "import kbptt.engine, keras",
    ],
)
def test_keras_knows_the_classes(order):
    code = (
        f"{order}\n"
        "for name in ('LSTM', 'Windowed', 'VanishingGradient'):"
        "    print(keras.saving.get_registered_object('kbptt>' + name).__name__)"
    )
    done = python(code)
    assert done.stdout.split() == ["LSTM", "Windowed", "VanishingGradient"], done.stderr
    assert "does not know" not in done.stderr


@pytest.mark.parametrize("order", ["import kbptt, keras", "import keras, kbptt"])
def test_what_cannot_be_imported_breaks_neither_keras_nor_plugins(order):
    """TensorBoard loads the plugin, and with it kbptt, in whatever environment there is."""
    code = f"""
import sys
sys.modules["kbptt.layers"] = None  # importing it raises ImportError
{order}
import kbptt.tensorboard.layout
print(keras.layers.LSTM.__name__)
try:
    kbptt.LSTM
except ImportError as error:
    print(error)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    name, error = done.stdout.splitlines()
    assert name == "LSTM" and "kbptt.layers" in error
    assert "does not know kbptt's classes" in done.stderr
