"""The extension module with the compiled loops: found, checked and loaded."""

import ctypes
import functools
import importlib
import importlib.machinery
import importlib.util
import os
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import numpy as np

_MODULE = "kbptt.engine.native._loops"


class Problem(ctypes.Structure):
    """The arguments of the loops; see ``problem.hpp``."""

    _integers = (
        "batch timesteps features units windows cell activation recurrent_activation normalized "
        "carry_normalized overlapping penalty instruction_set members team_scratch diagonal "
        "span clip_by_norm centred"
    )
    _numbers = "epsilon clip smallest_norm zoneout_h zoneout_c"
    _arrays = (
        "x kernel recurrent_kernel bias recurrent_bias input_gain recurrent_gain state_gain "
        "state_bias h_start c_start h_restart c_restart mask resets x_masks h_masks "
        "zoneout_key scratch meetings h slots c gates starts entries ends "
        "dh dh_final dc_final factors through_factors penalty_weight dx norms "
        "d_kernel d_recurrent_kernel d_bias "
        "d_recurrent_bias d_input_gain d_recurrent_gain d_state_gain d_state_bias d_h_start "
        "d_c_start d_h_restart d_c_restart penalty_value"
    )
    _fields_ = (
        *((name, ctypes.c_int64) for name in _integers.split()),
        *((name, ctypes.c_double) for name in _numbers.split()),
        *((name, ctypes.c_void_p) for name in _arrays.split()),
    )

    def keep(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes arrays by their names; their addresses are good for as long as they are kept."""
        self.arrays: dict[str, np.ndarray] = getattr(self, "arrays", {}) | arrays
        for name, array in arrays.items():
            setattr(self, name, array.ctypes.data)

    def call_off(self) -> None:
        """Has no thread wait any more for one that does not come; see ``team.hpp``."""
        self.arrays["meetings"][:, 2] = 1


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

    A pass is run by several threads, which belong to teams: see ``team.hpp``. All have to run at
    the same time. `address` is that of a `Problem`, `double` whether its arrays are of float64.

    Attributes:
        forward: ``forward(address, double, thread, first, last)``, one thread's part of the forward
            pass of the samples of its team, from `first` up to `last`. `thread` counts through the
            teams: it belongs to team ``thread // problem.members``.
        backward: Likewise of the backward pass, for (window, sample) rows; where windows overlap,
            for all windows of the samples.
        scratch: ``scratch(address, double, backward, rows)``, the bytes of scratch space of a team
            with so many rows.
        group: Likewise how many of its rows go through time together; see ``blocks.hpp``.
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
            self.forward: Callable[[int, bool, int, int, int], None] = module.forward
            self.backward: Callable[[int, bool, int, int, int], None] = module.backward
            self.scratch: Callable[[int, bool, bool, int], int] = module.scratch
            self.group: Callable[[int, bool, bool, int], int] = module.group
        except (AttributeError, ValueError):
            size, declaration, activations = 0, "", []
        fits = size == ctypes.sizeof(Problem) and _fields(declaration) == list(Problem._fields_)
        if not fits:
            raise ImportError(f"{module.__file__} was built from a different version of the source")
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
            "instead, more slowly. To rebuild them, reinstall kbptt, in a checkout with "
            "`python -m pip install --force-reinstall --no-deps .` (or `--editable .` if it was "
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
