"""Activations of the C++ loops: tanh and σ at most 2 ulp from the correctly rounded value.

Others that are made of exponentials: at most 8.
"""

import re
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import numpy_bptt
import pytest
import scipy.special
import tensorflow as tf

import kbptt
from kbptt import cells
from kbptt.engine import native, using

pytestmark = pytest.mark.skipif(native.library() is None, reason="the C++ loops were not built")

ROOT = Path(__file__).parents[2]


# As the translation units of kbptt/engine/native name them.
OPTIONS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -mprefer-vector-width=512".split(),
}


def check(folder, step):
    """Runs native/accuracy.cpp with the options of setup.py, for what this machine has."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    setup = (ROOT / "setup.py").read_text()
    if "clang" in subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout:
        setup = re.sub(r"GCC_OPTIONS = \[.*?\]", "", setup, flags=re.DOTALL)
    options = re.findall(r'"(-(?:O|f|std=)[^"]+)"', setup)
    assert "-ffp-contract=fast" in options
    for name in native.library().instruction_sets:
        program = folder / name
        source = ROOT / "tests/engine/native/accuracy.cpp"
        command = [compiler, *options, *OPTIONS[name], f"-I{ROOT / 'kbptt/engine/native'}"]
        subprocess.run([*command, source, "-o", program], check=True, timeout=300)
        found = subprocess.run(
            [program, str(step)], check=True, capture_output=True, text=True, timeout=3000
        )
        lines = found.stdout.splitlines()
        assert len(lines) == 20
        for line in lines:
            bound = 2 if line.split()[1] in ("tanh:", "sigmoid:") else 8
            assert int(line.split("at most ")[1].split()[0]) <= bound, f"{name} {line}"
            assert float(line.split("derivative ")[1].split()[0]) <= 2, f"{name} {line}"
            assert ", 0 special values wrong," in line, f"{name} {line}"


def test_a_sample_of_all_floats_and_doubles(tmp_path):
    """Every 4,999th of the 2^32 floats: all exponents, and 1,678 significands of each."""
    check(tmp_path, 4999)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_all_floats(tmp_path):
    check(tmp_path, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("activation", cells.ACTIVATION)
def test_what_the_loop_computes_from_one_number(activation, level, dtype):
    """Through the loop itself, with as many units as fill vectors and leave a remainder."""
    units = 37
    largest = np.finfo(dtype).max
    special = [0.0, -0.0, 1e-30, -1e-30, 9.02, -9.02, 20, -20, -80, 1e5, -1e5, 1e30, -1e30]
    special += [largest, -largest, np.inf, -np.inf, np.nan]
    numbers = np.concatenate([special, np.random.default_rng(0).normal(size=37 * 3 - 18) * 5])
    x = numbers.astype(dtype).reshape(3, units)
    layer = kbptt.SimpleRNN(units, activation=activation, use_bias=False, dtype=dtype)
    layer.build((None, 1, 1))
    chosen = native.library().instruction_sets[: level + 1][-1]
    found = []
    with using(instruction_set=chosen):
        for row in x:
            # 1·x is x, Inf and NaN included, where 0·x would be NaN.
            layer.set_weights([row[None], np.zeros((units, units))])
            found.append(layer(np.ones((1, 1, 1), dtype)).numpy()[0])
    found = np.concatenate(found)
    # SciPy's erfc is a double at best.
    exact = np.float64 if dtype == "float32" or activation == "gelu" else np.longdouble
    function = numpy_bptt.FUNCTIONS[activation][0]
    if activation == "gelu" and dtype == "float32":
        function = lambda v: v * scipy.special.ndtr(v)  # noqa: E731
    with np.errstate(over="ignore", invalid="ignore"):
        expected = function(x.ravel().astype(exact)).astype(dtype)
    keras_says = keras.activations.get(activation)(tf.constant(x.ravel())).numpy()
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(keras_says))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(keras_says))
    special = np.isin(expected, [0, 1, -1])
    np.testing.assert_array_equal(found[special], expected[special])
    finite = np.isfinite(expected)
    bound = 2 if activation in ("tanh", "sigmoid", "relu", "linear") else 8
    if activation == "gelu" and dtype == "float64":
        finite &= np.abs(x.ravel()) < 2  # SciPy rounds the argument of erfc
    np.testing.assert_array_max_ulp(found[finite], expected[finite], bound)


@pytest.mark.parametrize("cell", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize("value", [1e5, np.inf, np.nan])
def test_a_saturated_unit_has_no_gradient(cell, value):
    """The slope of a saturated tanh or gate is exactly 0: a large feature cannot show through."""
    x = np.full((2, 3, 1), value, "float32")
    layer = getattr(kbptt, cell)(4, use_bias=False)
    layer.build((None, 3, 1))
    kernel, recurrent_kernel = map(np.ones_like, layer.get_weights())
    kernel[:, ::2] = -1
    layer.set_weights([kernel, 0 * recurrent_kernel])
    plain = getattr(keras.layers, cell)(4, use_bias=False)
    plain.build((None, 3, 1))
    plain.set_weights(layer.get_weights())

    def gradients(layer):
        source = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(source)
            loss = tf.reduce_sum(layer(source))
        return [v.numpy() for v in tape.gradient(loss, [source, *layer.trainable_variables])]

    for found, expected in zip(gradients(layer), gradients(plain), strict=True):
        np.testing.assert_array_equal(found, expected)
        if value == 1e5:
            assert not found.any()
