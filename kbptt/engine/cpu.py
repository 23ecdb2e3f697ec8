"""Backpropagation through time on a CPU by compiled loops: the plan of `tensorflow.py` in C++.

What XLA leaves on the table is in between the matrix products: passes over (timesteps, batch,
4·units), one thread where the update is in place, and the dispatch of every operation of every
timestep. In the compiled loops (`native`) a group of rows walks through time with its state in the
cache, and the weight gradients are summed while the gradients of the gates are still there. Nothing
larger than the states and the gates is ever written down, and inputs and outputs stay batch-major:
nothing is transposed. `plan` says which thread does what.

The numbers are those of `kbptt.engine.tensorflow`, which does everything that is not done here:
other cells, gradients by lag, a train step that XLA compiles as a whole, accelerators, machines
without a C++ compiler.
"""

import ctypes
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kbptt.cells.base import Cell, Weights
from kbptt.engine import by_row, observation, plan
from kbptt.engine.blocks import divide
from kbptt.engine.compiled import UNSAVABLE, refuse_saving
from kbptt.engine.gradient import Context, Loop, Monitor, Options
from kbptt.engine.native import sums, why_not_usable
from kbptt.engine.native.arrays import (
    BESIDE,
    FINALS,
    GIVEN,
    RESIDUALS,
    RESTARTS,
    STATES,
    check_shapes,
)
from kbptt.engine.native.buffers import Buffers
from kbptt.engine.native.library import Loops, Problem, library
from kbptt.engine.native.pool import InPool
from kbptt.engine.numpy_op import numpy_op
from kbptt.engine.settings import settings
from kbptt.truncation.windows import Windows


class CPULoop(Loop):
    """A recurrent loop with its own truncated gradient, run by the compiled loops.

    Args:
        cell: One of `kbptt.cells` with a compiled loop.
        options: The `Options`. A penalty is a `kbptt.regularizers.VanishingGradient`.
        current: Called in every backward pass for the `Options` of that moment, of which windows
            and clip are used. Defaults to `options`.
        by_row: Whether the backward pass keeps the gradients of each row apart.
        every_state: Whether the forward pass keeps c of all timesteps, also where the backward pass
            could compute it again.
    """

    time_major = False
    reads_windows_late = True
    output = 0

    def __init__(
        self,
        cell: Cell,
        options: Options,
        current: Callable[[], Options] | None = None,
        by_row: bool = False,
        every_state: bool = False,
    ) -> None:
        super().__init__(options)
        self.by_row = by_row
        self.every_state = every_state
        self.cell = cell
        self.current = current or (lambda: options)
        # Graphs run in other threads, to which the settings in force here do not extend.
        self.run = settings()
        normalization = cell.normalization
        loops = _loops()
        self.settings: dict[str, float] = {
            "cell": loops.cells[cell.name].number,
            "activation": loops.activations[cell.activations[0]].number,
            "recurrent_activation": loops.activations[cell.activations[-1]].number,
            "instruction_set": -1,
        }
        if self.run.instruction_set is not None:
            chosen = loops.instruction_sets.index(self.run.instruction_set)
            self.settings["instruction_set"] = chosen
        if normalization is not None:
            self.settings["normalized"] = True
            self.settings["epsilon"] = normalization.epsilon
            self.settings["carry_normalized"] = normalization.carry_normalized
            self.settings["centred"] = normalization.centred
        if options.penalty is not None:
            self.settings["penalty"] = 2 if options.penalty.squared else 1
            self.settings["smallest_norm"] = options.penalty.SMALLEST_NORM
        self.settings |= zip(("zoneout_h", "zoneout_c"), options.zoneout, strict=False)

    @staticmethod
    def why_not(cell: Cell, options: Options, dtype: tf.DType) -> str | None:
        """Why the compiled loops cannot run such a cell here; None if they can."""
        if cell.centres:
            return "layer normalization with a separate dropout mask per gate"
        if options.lags:
            return "gradients are measured by lag"
        if dtype not in (tf.float32, tf.float64):
            return f"the C++ loops compute in float32 and float64, not in {dtype.name}"
        if (reason := why_not_usable()) is not None:
            return reason
        return None if cell.name in _loops().cells else f"there is no C++ loop for {cell.name}"

    # The plan for a size ----------------------------------------------------------------------

    @property
    def instruction_set(self) -> str:
        """The one that the compiled loops use."""
        return self.run.instruction_set or _loops().instruction_sets[-1]

    def share(self, rows: int, units: int) -> plan.Sharing:
        """Which thread does what."""
        if self.by_row:
            return plan.Sharing(rows, 1)
        return plan.share(rows, units, self.threads, self.whole_rows, self.run.members)

    @property
    def threads(self) -> int:
        """As many as there may be."""
        return self.run.threads or plan.threads()

    @property
    def whole_rows(self) -> bool:
        """Whether a row cannot be divided: its units are summed up in each timestep."""
        summed = self.cell.normalization is not None or self.options.penalty is not None
        return summed or self.current().clip_by_norm

    def group(
        self,
        shape: tuple[int, int, int, int],
        dtype: tf.DType,
        windows: int | None = None,
        overlapping: bool = False,
    ) -> int:
        """How many rows of a thread go through time together; see ``native/blocks.hpp``.

        Args:
            shape: ``(batch, timesteps, features, units)``.
            dtype: Of the loop.
            windows: Number of windows in the backward pass; None for the forward pass.
            overlapping: Whether the windows overlap.
        """
        problem = Problem(*shape, windows=windows or 1, overlapping=overlapping, **self.settings)
        batch, _, _, units = shape
        rows = batch if overlapping else batch * problem.windows
        teams, problem.members = self.share(rows, units)
        address, double = ctypes.addressof(problem), dtype == tf.float64
        return _loops().group(address, double, windows is not None, -(-rows // teams))

    def gates_width(self, units: int) -> int:
        """Numbers of a row of gates that the backward pass reads."""
        width = _loops().residuals(self.cell.name, self.cell.activations)
        # Where zoneout has put other values into h, it is not what the step computed.
        return max(width, bool(self.options.zoneout)) * units

    def most_gates(self, windows: Windows) -> int:
        """Bytes up to which gates are kept; more are computed again."""
        if self.cell.normalization is not None:
            return 0  # as many statistics would have to be kept, and none is
        return plan.most_gates(windows, self.run.kept_gates)

    # In TensorFlow ----------------------------------------------------------------------------

    def forward(self, x, start, weights, context):
        # Here alone: the gradient of a `tf.cond` is a graph that cannot capture anything new.
        refuse_saving()
        arrays = self._arrays(x, start, weights, context)
        run = functools.partial(self.run_forward, tuple(arrays))
        kept = context.watched is None or context.watched.anything
        kinds, read = [x.dtype] * 4 + [tf.int64], [True, True, kept, kept, kept]
        h, c_final, *residuals = numpy_op(run, [*arrays.values()], kinds, read, UNSAVABLE)
        h.set_shape([*x.shape[:2], start[0].shape[1]])
        final = (h[:, -1], c_final)[: len(start)]
        for value, initial in zip(final, start, strict=True):
            value.set_shape(initial.shape)
        return h, final, {"h": h, **dict(zip(RESIDUALS, residuals, strict=True))}

    def backward(self, x, start, weights, context, residuals, upstream):
        arrays = self._arrays(x, start, weights, context)
        given = {n: v for n, v in arrays.items() if n not in BESIDE}
        arrays |= residuals
        arrays |= zip(FINALS, upstream.final, strict=False)
        shape = [tf.shape(x)[1], tf.shape(x)[0]]
        factors, through = (
            None if f is None else tf.broadcast_to(f, shape)
            for f in (upstream.xi, upstream.through)
        )
        more = {
            "dh": upstream.outputs,
            "factors": factors,
            "through_factors": through,
            "penalty_weight": upstream.penalty_weight,
        }
        arrays |= {name: value for name, value in more.items() if value is not None}
        run = functools.partial(self.run_backward, tuple(given), tuple(arrays))
        kinds = [x.dtype] * len(given) + [tf.float32, x.dtype]
        read = [context.watched is None or context.watched.x] + [True] * (len(kinds) - 1)
        *results, norms, penalty = numpy_op(run, [*arrays.values()], kinds, read, UNSAVABLE)
        for result, value in zip(results, given.values(), strict=True):
            if not tf.executing_eagerly():  # then they have one, and what is not read any
                result.set_shape(value.shape)
        norms.set_shape([x.shape[1]])
        found = dict(zip(given, results, strict=True))
        gradients = (
            found["x"],
            tuple(found[name] for name in STATES[: len(start)]),
            tuple(found[name] for name in RESTARTS if name in found),
            Weights(*(found.get(name) for name in Weights._fields)),
        )
        penalized = upstream.penalty_weight is not None
        return gradients, Monitor(norms, penalty=penalty if penalized else None)

    def reach(self, x, start, weights, context, residuals, probes):
        given = self._arrays(x, start, weights, context)
        wanted = tuple(name for name in given if name not in BESIDE)
        options = self.options._replace(clip=None, clip_by_norm=False, record=False)
        loop = CPULoop(self.cell, options, by_row=True)
        return by_row.reach(loop, wanted, given | residuals)

    def observe(self, x, start, weights, context):
        arrays = self._arrays(x, start, weights, context)
        loop = CPULoop(self.cell, self.options, every_state=True)
        values = [np.asarray(value) for value in arrays.values()]
        h, _, c, *_ = loop.run_forward(tuple(arrays), (True,) * 5, *values)
        return observation.of_results(self.cell, x, start, weights, context, h, c)

    @staticmethod
    def _arrays(x, start, weights: Weights, context: Context) -> dict[str, tf.Tensor]:
        """What there is, by the names of `Problem`."""
        arrays = {"x": x, "mask": context.mask, "zoneout_key": context.zoneout_key}
        arrays |= weights._asdict() | context.dropout._asdict()
        arrays |= zip(STATES, start, strict=False)
        if context.resets is not None:
            arrays["resets"] = context.resets.at
            arrays |= zip(RESTARTS, context.resets.states, strict=False)
        return {name: value for name, value in arrays.items() if value is not None}

    # In NumPy ---------------------------------------------------------------------------------

    def run_forward(
        self, names: tuple[str, ...], read: tuple[bool, ...], *values: np.ndarray
    ) -> list[np.ndarray]:
        """h ``(batch, timesteps, units)``, the last c, and what the backward pass reads.

        Args:
            names: What the values are, by the names of `Problem`.
            read: Whether each result is. Without a backward pass the last three are not.
            *values: Arrays.

        Returns:
            h; c of the last timestep; and of `Problem` what the backward pass reads: c and gates
            (empty if they are not kept), and where c is kept of some timesteps alone, `slots`.
        """
        arrays = dict(zip(names, values, strict=True))
        dtype, (batch, timesteps, _) = arrays["x"].dtype, arrays["x"].shape
        units = arrays["recurrent_kernel"].shape[0]
        has_c, is_kept = len(self.cell.states) > 1, any(read[2:])
        windows = divide(timesteps, self.current())
        width = self.gates_width(units)
        size = timesteps * batch * width * dtype.itemsize
        keeps_gates = is_kept and size <= self.most_gates(windows)
        slots = np.zeros([timesteps], np.int64) if has_c and not is_kept else None
        if has_c and is_kept and not keeps_gates and not self.every_state:
            slots = plan.slots(windows)
        count = timesteps if slots is None else int(slots.max()) + 1
        arrays["h"] = _memory.array([batch, timesteps, units], dtype)
        arrays["c"] = _memory.array([count, batch, units * has_c], dtype)
        arrays["gates"] = _memory.array([timesteps * keeps_gates, batch, width], dtype)
        arrays["slots"] = np.zeros([0], np.int64) if slots is None else slots
        problem, forward = self._problem(arrays), _loops().forward
        sharing = self.share(batch, units)
        calls = self._calls(False, problem, dtype, batch, sharing)
        with InPool(forward, calls, problem):
            forward(*calls[0])
        last = arrays["c"][-1 if slots is None else 0].copy()  # c goes when nobody reads it
        if not is_kept:
            arrays["c"] = arrays["c"][:0]
        return [arrays["h"], last, *(arrays[name] for name in RESIDUALS)]

    @np.errstate(over="ignore", invalid="ignore")  # gradients may explode
    def run_backward(
        self,
        wanted: tuple[str, ...],
        names: tuple[str, ...],
        read: tuple[bool, ...],
        *values: np.ndarray,
    ) -> list[np.ndarray]:
        """The gradients of the `wanted` arrays, Σ_b ‖∂L/∂h_t‖₂, and the weighted penalty."""
        arrays = dict(zip(names, values, strict=True))
        if len(self.cell.states) > 1 and not len(arrays["c"]):
            # The forward pass ran where nobody seemed to ask for a gradient.
            forward = {n: arrays[n] for n in GIVEN if n in arrays}
            results = self.run_forward(tuple(forward), (True,) * 5, *forward.values())
            arrays |= zip(RESIDUALS, results[2:], strict=True)
        batch, timesteps, _ = arrays["x"].shape
        dtype = arrays["x"].dtype
        options = self.current()
        windows = divide(timesteps, options)
        # Only the final state has a gradient: nothing flows outside the last window.
        last = slice(None) if "dh" in arrays else slice(-1, None)
        bounds = {name: getattr(windows, name)[last] for name in ("starts", "entries", "ends")}
        overlapping = "dh" in arrays and windows.overlapping
        # Windows that overlap add up, so that one team has all those of a sample.
        rows = batch if overlapping else len(bounds["ends"]) * batch
        units = arrays["recurrent_kernel"].shape[0]
        sharing = self.share(rows, units)
        start = bounds["starts"][0]
        made = {}
        if read[wanted.index("x")]:
            made["dx"] = _memory.array(arrays["x"].shape, dtype)
            made["dx"][:, :start] = 0
        if self.options.record:
            made["norms"] = _memory.array([sharing.members, batch, timesteps], np.dtype(np.float32))
            made["norms"][:, :, :start] = 0
        for name in set(wanted) - {"x"}:
            # Teams sum up on their own: states as they go, weights to write them down at the end.
            make = np.zeros if name in (*STATES, *RESTARTS) else _memory.array
            teams = [sharing.teams] if sharing.teams > 1 else []
            made[f"d_{name}"] = make([*teams, *arrays[name].shape], dtype)
        made["penalty_value"] = np.zeros([sharing.teams * sharing.members])
        problem = self._problem(arrays | made | bounds)
        problem.clip = math.inf if options.clip is None else options.clip
        problem.clip_by_norm = options.clip_by_norm
        problem.overlapping = overlapping
        problem.diagonal = options.diagonal
        backward = _loops().backward
        calls = self._calls(True, problem, dtype, rows, sharing)
        for first in range(0, len(calls), self.threads):  # all at once where teams meet
            some = calls[first : first + self.threads]
            with InPool(backward, some, problem):
                backward(*some[0])
        join = sums.apart if self.by_row else sums.summed
        found = {n: join(made[f"d_{n}"], sharing.teams, _memory) for n in wanted if n != "x"}
        found["x"] = made.get("dx", np.empty([0, 0, 0], dtype))
        results = [found[name] for name in wanted]
        penalty = made["penalty_value"].sum() * arrays.get("penalty_weight", 0)
        norms = sums.norms(made["norms"]) if "norms" in made else np.zeros([timesteps], np.float32)
        return [*results, norms, np.asarray(penalty, dtype)]

    def _calls(
        self, backward: bool, problem: Problem, dtype: np.dtype, rows: int, sharing: plan.Sharing
    ) -> list[tuple[Any, ...]]:
        """The arguments of every thread of a pass over `rows` rows."""
        double = dtype == np.float64
        teams, members = sharing
        problem.members = members
        ends = [rows * i // teams for i in range(teams + 1)]
        most = max(end - first for first, end in itertools.pairwise(ends))
        address = ctypes.addressof(problem)
        size = problem.team_scratch = _loops().scratch(address, double, backward, most)
        made = {
            "scratch": _memory.array([teams * size], np.dtype(np.uint8)),
            "meetings": np.zeros([teams, 8], np.int64),
        }
        problem.keep(made)
        return [
            (address, double, team * members + member, ends[team], ends[team + 1])
            for team in range(teams)
            for member in range(members)
        ]

    def _problem(self, arrays: dict[str, np.ndarray]) -> Problem:
        batch, timesteps, features, units = check_shapes(arrays)
        problem = Problem(batch, timesteps, features, units, **self.settings)
        problem.windows = len(arrays.get("ends", ()))
        problem.span = plan.SPAN
        problem.keep({n: np.ascontiguousarray(a) for n, a in arrays.items() if a.size})
        return problem


_memory = Buffers()


def _loops() -> Loops:
    """The compiled loops, where `why_not_usable` has found them."""
    loops = library()
    assert loops is not None
    return loops
