"""The extension module with the compiled loops: found, checked and loaded."""

import ctypes
import functools
import importlib
import importlib.machinery
import importlib.util
import os
import warnings
from types import ModuleType
from typing import NamedTuple

_MODULE = "kbptt.engine.native._loops"


class Problem(ctypes.Structure):
    """The arguments of the loops; see ``problem.hpp``."""

    _integers = (
        "batch timesteps features units windows cell activation recurrent_activation normalized "
        "carry_normalized overlapping penalty instruction_set"
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


class CompiledCell(NamedTuple):
    """A cell of the compiled loops, as its header describes it.

    Attributes:
        number: What stands for it in `Problem`.
        gates: Blocks of `units` columns in the kernels.
        states: 1: h; 2: h and c.
        residuals: Blocks of `units` numbers in `gates` of a `Problem`; see `Loops.residuals`.
    """

    number: int
    gates: int
    states: int
    residuals: int


class CompiledActivation(NamedTuple):
    """An activation of the compiled loops.

    Attributes:
        number: What stands for it in `Problem`.
        keeps_argument: Whether its argument is kept for the backward pass, or else its output.
    """

    number: int
    keeps_argument: bool


class Loops:
    """The compiled loops.

    Attributes:
        cells: The cells by name.
        activations: The activations by name.
        instruction_sets: Names of those that this machine has, from the baseline to the best.

    Raises:
        ImportError: If the module was compiled with a different `Problem`.
    """

    def __init__(self, module: ModuleType) -> None:
        try:
            size, declaration = module.problem()
            activations = [(name, bool(keeps)) for name, keeps in module.activations()]
        except (AttributeError, ValueError):
            size, declaration, activations = 0, "", []
        fits = size == ctypes.sizeof(Problem) and _fields(declaration) == list(Problem._fields_)
        if not fits:
            raise ImportError(f"{module.__file__} was built from a different version of the source")
        self._module = module
        self.cells: dict[str, CompiledCell] = {
            name: CompiledCell(number, *sizes)
            for number, (name, *sizes) in enumerate(module.cells())
        }
        self.activations: dict[str, CompiledActivation] = {
            name: CompiledActivation(number, keeps_argument)
            for number, (name, keeps_argument) in enumerate(activations)
        }
        self.instruction_sets: tuple[str, ...] = tuple(module.instruction_sets())

    def residuals(self, cell: str, activations: tuple[str, ...]) -> int:
        """Blocks of `units` numbers that such a cell keeps in `gates` of a `Problem`."""
        # A cell that needs nothing but h has no place for an argument of its activation.
        return self.cells[cell].residuals or int(self.activations[activations[0]].keeps_argument)

    def forward(self, problem: Problem, double: bool, first: int, last: int) -> None:
        """The forward pass of the samples from `first` up to `last`; any thread may run some.

        Args:
            problem: The arguments.
            double: Whether the arrays are of float64, else of float32.
            first: The first sample.
            last: One more than the last sample.

        Raises:
            MemoryError: If there is none for the scratch space.
            ValueError: If a number in `problem` stands for nothing.
        """
        self._module.forward(ctypes.addressof(problem), double, 0, first, last)

    def backward(self, problem: Problem, double: bool, thread: int, first: int, last: int) -> None:
        """The backward pass of the (window, sample) rows from `first` up to `last`.

        Where windows overlap: of all windows of the samples from `first` up to `last`. Arguments
        and errors as of `forward`; `thread` is the number of the sums that the rows are added to.
        """
        self._module.backward(ctypes.addressof(problem), double, thread, first, last)


@functools.cache
def library() -> Loops | None:
    """The compiled loops, or None where they were not built or do not fit this version.

    `KBPTT_NATIVE_LIBRARY` is the path of a different build, as in `make sanitize`.
    """
    path = os.environ.get("KBPTT_NATIVE_LIBRARY")
    try:
        return Loops(importlib.import_module(_MODULE) if path is None else _load(path))
    except ModuleNotFoundError:
        return None
    except ImportError as error:
        warnings.warn(
            f"kbptt cannot use its compiled loops: {error}. The same loops run in TensorFlow "
            "instead, more slowly. To rebuild them, install kbptt again: in a checkout with "
            "`python -m pip install --force-reinstall --no-deps .` (with `--editable .` if it was "
            "installed that way).",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def _load(path: str) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader(_MODULE, path)
    spec = importlib.util.spec_from_file_location(_MODULE, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


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
