"""The shared library with the compiled loops: found, checked and loaded."""

import ctypes
import functools
import importlib.util
import os
import warnings


class Problem(ctypes.Structure):
    """The arguments of the loops; see ``native/problem.h``."""

    _integers = (
        "batch timesteps features units windows cell activation recurrent_activation normalized "
        "carry_normalized overlapping penalty"
    )
    _numbers = "epsilon clip smallest_norm"
    _arrays = (
        "x kernel recurrent_kernel bias recurrent_bias input_gain recurrent_gain state_gain "
        "state_bias h_start c_start h_restart c_restart mask resets h c gates starts entries ends "
        "dh dh_final dc_final factors penalty_weight dx norms d_kernel d_recurrent_kernel d_bias "
        "d_recurrent_bias d_input_gain d_recurrent_gain d_state_gain d_state_bias d_h_start "
        "d_c_start d_h_restart d_c_restart penalty_value"
    )
    _fields_ = (
        *((name, ctypes.c_int64) for name in _integers.split()),
        *((name, ctypes.c_double) for name in _numbers.split()),
        *((name, ctypes.c_void_p) for name in _arrays.split()),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled loops, or None where they were not built or do not fit this version.

    `KBPTT_NATIVE_LIBRARY` is the path of a different build, as in `make sanitize`.
    """
    path = os.environ.get("KBPTT_NATIVE_LIBRARY")
    if path is None:
        spec = importlib.util.find_spec("kbptt.engine._native")
        path = None if spec is None else spec.origin
    if path is None:
        return None
    try:
        return _load(path)
    except OSError as error:
        warnings.warn(
            f"kbptt cannot use its compiled loops: {error}. The same loops run in TensorFlow "
            "instead, more slowly. To rebuild them, install kbptt again: in a checkout with "
            "`python -m pip install --force-reinstall --no-deps .` (with `--editable .` if it was "
            "installed that way).",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def _load(path: str) -> ctypes.CDLL:
    """The library at `path`.

    Raises:
        OSError: If it cannot be loaded, or was compiled with a different `Problem`.
    """
    loops = ctypes.CDLL(path)
    size = ctypes.c_int64()
    try:
        loops.kbptt_problem.restype = ctypes.c_char_p
        declared = _fields(loops.kbptt_problem(ctypes.byref(size)).decode())
    except AttributeError:
        declared = None
    if (declared, size.value) != (list(Problem._fields_), ctypes.sizeof(Problem)):
        raise OSError(f"{path} was built from a different version of the source")
    rows = [ctypes.c_int64, ctypes.c_int64]
    problem = ctypes.POINTER(Problem)
    loops.kbptt_forward.argtypes = [problem, ctypes.c_int, *rows]
    loops.kbptt_backward.argtypes = [problem, ctypes.c_int, ctypes.c_int64, *rows]
    return loops


def _fields(declaration: str) -> list[tuple[str, type]]:
    """Names and types of a C structure, as in `ctypes.Structure._fields_`."""
    kinds = {"int64_t": ctypes.c_int64, "double": ctypes.c_double}
    fields = []
    for line in declaration.split(";"):
        kind, _, names = line.strip().removeprefix("const ").partition(" ")
        for name in filter(None, names.split(",")):
            pointer = name.strip().startswith("*")
            fields.append((name.strip(" *"), ctypes.c_void_p if pointer else kinds.get(kind)))
    return fields
