"""A compiled library that does not fit is left alone: the TensorFlow loops run instead."""

import ctypes
import os
import shutil
import subprocess
import sysconfig
import warnings
from pathlib import Path

import numpy as np
import pytest

import kbptt
from kbptt import cells
from kbptt.engine.native.library import Problem, library

SOURCES = Path(__file__).parents[2] / "kbptt/engine/native"
# Builds of the loops themselves would take some ten seconds each.
STUB = """
#include <cstdlib>
#include "dispatch.hpp"
namespace kbptt {
static void stop(const void *, int64_t, int64_t, int64_t) { abort(); }
static int64_t size(const void *, int64_t) { abort(); }
#define STOP {stop, stop, size, size}
const Passes baseline_floats = STOP, baseline_doubles = STOP;
}
"""


def build(folder, module="module.cpp", header=None, file="problem.hpp"):
    """The module with loops that end the process, and with changes of the text of a file."""
    compiler = shutil.which("g++") or shutil.which("c++")
    include = Path(sysconfig.get_paths()["include"])
    if compiler is None or not (include / "Python.h").exists():
        pytest.skip("no C++ compiler or no headers of Python")
    shutil.copytree(SOURCES, folder / "native", ignore=shutil.ignore_patterns("*.so", "*.py"))
    changed = folder / "native" / file
    text = changed.read_text()
    for old, new in (header or {}).items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    changed.write_text(text)
    (folder / "native/stub.cpp").write_text(STUB)
    path = folder / "native.so"
    options = ["-std=c++17", "-shared", "-fPIC", "-DKBPTT_BASELINE_ONLY", f"-I{include}"]
    sources = [folder / "native" / name for name in (module, "dispatch.cpp", "stub.cpp") if name]
    subprocess.run([compiler, *options, *sources, "-o", path], check=True, timeout=100)
    return path


def test_where_there_is_a_compiler_the_loops_were_built():
    """Or else every test of them would be left out, and nobody would notice."""
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    include = Path(sysconfig.get_paths()["include"])
    if compiler is None or not (include / "Python.h").exists():
        pytest.skip("no C++ compiler or no headers of Python")
    assert library() is not None


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
    "a field is missing": {"    const uint8_t *mask;       /* (B, T): 0 holds the state */\n": ""},
    "a field is new": {"    T *h;  ": "    T *more;\n    T *h;  "},
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


def test_a_library_without_a_function_is_refused(tmp_path, chosen):
    """As one that was built before the function was."""
    chosen(build(tmp_path, header={'{"group", ': '{"grouped", '}, file="module.cpp"))
    with pytest.warns(RuntimeWarning, match="different version.*rebuild"):
        assert library() is None


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
        path = build(tmp_path, module=None)
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


built = pytest.mark.skipif(library() is None, reason="the C++ loops were not built")


@built
def test_the_compiled_cells_are_those_of_python():
    for name, cell in library().cells.items():
        described = cells.CELLS[name]
        assert cell.gates == described.gates
        assert cell.states == len(described.states)
    described = {name: a.keeps_argument for name, a in cells.ACTIVATION.items()}
    assert {name: a.keeps_argument for name, a in library().activations.items()} == described


@built
@pytest.mark.parametrize(
    "name", "cell activation recurrent_activation instruction_set members".split()
)
@pytest.mark.parametrize("value", [-2, 99999])
def test_numbers_that_stand_for_nothing_are_refused(name, value):
    problem = Problem(1, 1, 1, 1, **{"members": 1, name: value})
    address = ctypes.addressof(problem)
    for run in (
        lambda: library().forward(address, False, 0, 0, 1),
        lambda: library().backward(address, False, 0, 0, 1),
        lambda: library().scratch(address, False, True, 1),
    ):
        with pytest.raises(ValueError, match=f"`{name}`.*Received: {value}"):
            run()
