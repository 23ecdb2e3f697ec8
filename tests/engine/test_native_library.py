"""A compiled library that does not fit is left alone: the TensorFlow loops run instead."""

import ctypes
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest

import kbptt
from kbptt.engine import native
from kbptt.engine.native.library import Problem, library

CSRC = Path(__file__).parents[2] / "kbptt/engine/native"
# Builds of the whole loops would take a minute each.
STUB = """
#include <stdlib.h>
#include <math.h>
#include "problem.h"
int kbptt_level(int wanted) { return 0; }
int kbptt_forward(const Problem *p, int is_double, int64_t first, int64_t last) { abort(); }
int kbptt_backward(const Problem *p, int is_double, int64_t i, int64_t first, int64_t last) {
    abort();
}
"""
DECLARED = """
const char *kbptt_problem(int64_t *size) { *size = sizeof(Problem); return declaration; }
"""


def build(folder, declared=True, **changes):
    """A library of stubs whose `Problem` differs by `changes` of the header's text."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    header = (CSRC / "problem.h").read_text()
    for old, new in changes.get("header", {}).items():
        assert header.count(old) == 1
        header = header.replace(old, new)
    (folder / "problem.h").write_text(header)
    (folder / "stub.c").write_text(STUB + (DECLARED if declared else ""))
    path = folder / "native.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", folder / "stub.c", "-o", path], check=True, timeout=60
    )
    return path


@pytest.fixture
def chosen(monkeypatch):
    """Lets a test name the library, as a new process would find it."""

    def choose(path):
        monkeypatch.setenv("KBPTT_NATIVE_LIBRARY", str(path))
        library.cache_clear()

    yield choose
    monkeypatch.undo()
    library.cache_clear()


STALE = {
    "a field is missing": {
        "    const uint8_t *mask;          /* (B, T): 0 holds the state */\n": ""
    },
    "a field is new": {"    void *h;  ": "    void *more;\n    void *h;  "},
    "two fields of one size are exchanged": {
        "*x;                /*": "*kernel;           /*",
        "*kernel;           /* (D, N) */": "*x;                /* (D, N) */",
    },
    "a number has another type": {"double clip;": "int64_t clip;"},
}


@pytest.mark.parametrize("change", STALE)
def test_a_stale_library_is_refused_with_the_way_to_rebuild(change, tmp_path, chosen):
    chosen(build(tmp_path, header=STALE[change]))
    with pytest.warns(RuntimeWarning, match="different version.*rebuild") as caught:
        assert library() is None
    assert str(tmp_path) in str(caught[0].message)


def test_the_tensorflow_loops_run_instead_and_one_warning_says_so(tmp_path, chosen):
    chosen(build(tmp_path, header=STALE["a field is new"]))
    with pytest.warns(RuntimeWarning, match="in TensorFlow") as caught:
        layers = [kbptt.SimpleRNN(3, return_sequences=True, truncation=2) for _ in range(2)]
        outputs = [layer(np.ones((2, 5, 3), "float32")) for layer in layers]
    assert len(caught) == 1
    # The stubs would have ended the process.
    assert np.isfinite(outputs).all()
    assert {loop for layer in layers for loop in layer.loops} == {"tensorflow"}


@pytest.mark.parametrize("how", ["no symbol", "no library", "no file", "empty file"])
def test_what_is_no_library_of_this_version_is_refused(how, tmp_path, chosen):
    path = tmp_path / "native.so"
    if how == "no symbol":
        path = build(tmp_path, declared=False)
    elif how != "no file":
        path.write_text("not a library" if how == "no library" else "")
    chosen(path)
    with pytest.warns(RuntimeWarning, match="rebuild") as caught:
        assert library() is None
        assert library() is None
    assert len(caught) == 1


def test_the_same_declaration_is_accepted(tmp_path, chosen):
    chosen(build(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert library() is not None


@pytest.mark.skipif(native.library() is None, reason="the C loops were not built")
def test_size_and_fields_are_those_of_the_header():
    size = ctypes.c_int64()
    declared = native.library().kbptt_problem(ctypes.byref(size)).decode()
    assert size.value == ctypes.sizeof(Problem)
    for name, _ in Problem._fields_:
        assert name in declared
