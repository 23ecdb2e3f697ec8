"""The page for contributors: the cell that it adds trains in every loop."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

CHECK = """
import sys, types
import keras, numpy as np, tensorflow as tf
import kbptt
from kbptt.cells import names

def module(name, source):
    made = types.ModuleType(name)
    exec(compile(source, name, "exec"), vars(made))
    return made

cell, layer = (open(path).read() for path in sys.argv[1:3])
sys.modules["kbptt.cells.leaky_rnn"] = module("kbptt.cells.leaky_rnn", cell)
names.NAMES["LeakyRNN"] = names.Name("leaky_rnn", gates=1)
from kbptt.engine import using
made = module("kbptt.layers.leaky_rnn", layer)
rng = np.random.default_rng(0)
x, e = rng.normal(size=(5, 11, 3)), rng.normal(size=(5, 11, 4))
mask, resets = rng.random((5, 11)) > 0.2, rng.random((5, 11)) > 0.8
kept = rng.normal(size=(3, 4)), rng.normal(size=(4, 4)), rng.normal(size=4)

def gradients(layer):
    layer.build(x.shape)
    layer.set_weights(kept)
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = layer(inputs, mask=mask, resets=resets)
        loss = tf.reduce_sum(y * e)
    found = tape.gradient(loss, [inputs, *(v.value for v in layer.trainable_variables)])
    return [y, *found, layer.gradient_norms]

for truncation in (None, 4, kbptt.truncation.Windowed(5, 2)):
    options = dict(return_sequences=True, truncation=truncation, dtype="float64")
    reference = kbptt.RNN(made.LeakyCell(4, dtype="float64"), **options)
    with using(jit=False):
        expected = gradients(reference)
    for native in (True, False):
        layer = made.LeakyRNN(4, **options)
        with using(native=native, jit=False):
            found = gradients(layer)
        assert layer.loops == {"cpu" if native else "tensorflow"}, layer.loops
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 if a is not found[-1] else 1e-6)
dropped = []
for native in (True, False):
    layer = made.LeakyRNN(4, recurrent_dropout=0.5, seed=1, dtype="float64")
    layer.build(x.shape)
    layer.set_weights(reference.get_weights())
    with using(native=native, jit=False), tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.sin(layer(x, training=True)))
    dropped.append(tape.gradient(loss, [v.value for v in layer.trainable_variables]))
for a, b in zip(*dropped, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
"""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_a_cell_is_added_in_three_places(tmp_path):
    compiler = shutil.which("g++") or shutil.which("c++")
    include = Path(sysconfig.get_paths()["include"])
    if compiler is None or not (include / "Python.h").exists():
        pytest.skip("no C++ compiler or no headers of Python")
    cell, layer = blocks("python")
    (header,) = blocks("cpp")
    (tmp_path / "cell.py").write_text(cell)
    (tmp_path / "layer.py").write_text(layer)

    sources = tmp_path / "native"
    shutil.copytree(
        ROOT / "kbptt/engine/native", sources, ignore=shutil.ignore_patterns("*.so", "*.py")
    )
    (sources / "cells/leaky_rnn.hpp").write_text(header)
    text = (sources / "cells.hpp").read_text()
    assert text.count("using Cells = List<SimpleRNN, GRU, LSTM>;") == 1
    text = text.replace("<SimpleRNN, GRU, LSTM>", "<SimpleRNN, GRU, LSTM, LeakyRNN>")
    text = text.replace(
        '#include "cells/gru.hpp"', '#include "cells/gru.hpp"\n#include "cells/leaky_rnn.hpp"'
    )
    (sources / "cells.hpp").write_text(text)
    built = tmp_path / "loops.so"
    options = ["-std=c++17", "-shared", "-fPIC", "-DKBPTT_BASELINE_ONLY", f"-I{include}"]
    names = ("module.cpp", "dispatch.cpp", "baseline.cpp", "baseline_double.cpp")
    parts = [sources / name for name in names]
    subprocess.run([compiler, *options, *parts, "-o", built], check=True, timeout=300)

    run = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", CHECK, "cell.py", "layer.py"],
        cwd=tmp_path,
        env={**os.environ, "KBPTT_NATIVE_LIBRARY": str(built)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
