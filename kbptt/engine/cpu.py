"""Backpropagation through time on a CPU by compiled loops: the plan of `tensorflow.py` in C++.

What XLA leaves on the table is in between the matrix products: passes over (timesteps, batch,
4·units), one thread where the update is in place, and the dispatch of every operation of every
timestep. In the compiled loops (`native`) a group of rows walks through time with its state in the
cache, the weight gradients are summed while the gradients of the gates are still there, and
threads, each with rows of its own, never wait for each other. Nothing larger than the states and
the gates is ever written down, and inputs and outputs stay batch-major: nothing is transposed.

The numbers are those of `kbptt.engine.tensorflow`, which does everything that is not done here:
other cells, gradients by lag, a train step that XLA compiles as a whole, accelerators, machines
without a C++ compiler.
"""

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import tensorflow as tf

from kbptt.cells.base import Cell, Weights
from kbptt.engine.blocks import divide
from kbptt.engine.compiled import UNSAVABLE, refuse_saving
from kbptt.engine.gradient import Context, Loop, Monitor, Options
from kbptt.engine.native import is_usable
from kbptt.engine.native.buffers import Buffers
from kbptt.engine.native.library import Loops, Problem, library
from kbptt.engine.settings import settings

STATES = ("h_start", "c_start")
RESTARTS = ("h_restart", "c_restart")
# Fewer rows than this are not worth a second thread.
ROWS_OF_A_THREAD = 4

# Sizes of what is given, with the letters of ``native/problem.hpp``: the loops trust them.
SHAPES = {
    "x": "BTD",
    "kernel": "DN",
    "recurrent_kernel": "uN",
    **dict.fromkeys(("bias", "input_gain", "recurrent_gain"), "N"),
    **dict.fromkeys(("recurrent_bias", "state_gain", "state_bias"), "u"),
    **dict.fromkeys((*STATES, *RESTARTS, "dh_final", "dc_final"), "Bu"),
    **dict.fromkeys(("h", "dh"), "BTu"),
    **dict.fromkeys(("mask", "resets"), "BT"),
    "factors": "TB",
}


class CPULoop(Loop):
    """A recurrent loop with its own truncated gradient, run by the compiled loops.

    Args:
        cell: One of `kbptt.cells` with a compiled loop.
        options: The `Options`. A penalty is a `kbptt.regularizers.VanishingGradient`.
        current: Called in every backward pass for the `Options` of that moment, of which windows
            and clip are used. Defaults to `options`.
    """

    time_major = False
    reads_windows_late = True
    output = 0

    def __init__(
        self, cell: Cell, options: Options, current: Callable[[], Options] | None = None
    ) -> None:
        super().__init__(options)
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
        if options.penalty is not None:
            self.settings["penalty"] = 2 if options.penalty.squared else 1
            self.settings["smallest_norm"] = options.penalty.SMALLEST_NORM

    @staticmethod
    def supports(cell: Cell, options: Options, dtype: tf.DType) -> bool:
        """Whether the compiled loops can run such a cell here."""
        if options.lags or dtype not in (tf.float32, tf.float64) or not is_usable():
            return False
        return cell.name in _loops().cells

    # In TensorFlow ----------------------------------------------------------------------------

    def forward(self, x, start, weights, context):
        # Here alone: the gradient of a `tf.cond` is a graph that cannot capture anything new.
        refuse_saving()
        arrays = self._arrays(x, start, weights, context)
        run = functools.partial(self.run_forward, tuple(arrays))
        h, c, gates = tf.numpy_function(
            run, [*arrays.values()], [x.dtype] * 3, stateful=False, name=UNSAVABLE
        )
        h.set_shape([*x.shape[:2], start[0].shape[1]])
        final = (h[:, -1], c[-1])[: len(start)]
        for value, initial in zip(final, start, strict=True):
            value.set_shape(initial.shape)
        return h, final, {"h": h, "c": c, "gates": gates}

    def backward(self, x, start, weights, context, residuals, upstream):
        arrays = self._arrays(x, start, weights, context)
        given = {n: v for n, v in arrays.items() if n not in ("mask", "resets")}
        arrays |= residuals
        arrays |= zip(("dh_final", "dc_final"), upstream.final, strict=False)
        factors = upstream.xi
        if factors is not None:
            factors = tf.broadcast_to(factors, [tf.shape(x)[1], tf.shape(x)[0]])
        more = {
            "dh": upstream.outputs,
            "factors": factors,
            "penalty_weight": upstream.penalty_weight,
        }
        arrays |= {name: value for name, value in more.items() if value is not None}
        run = functools.partial(self.run_backward, tuple(given), tuple(arrays))
        kinds = [x.dtype] * len(given) + [tf.float32, x.dtype]
        *results, norms, penalty = tf.numpy_function(
            run, [*arrays.values()], kinds, stateful=False, name=UNSAVABLE
        )
        for result, value in zip(results, given.values(), strict=True):
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

    @staticmethod
    def _arrays(x, start, weights: Weights, context: Context) -> dict[str, tf.Tensor]:
        """What there is, by the names of `Problem`."""
        arrays = {"x": x, "mask": context.mask, **weights._asdict()}
        arrays |= zip(STATES, start, strict=False)
        if context.resets is not None:
            arrays["resets"] = context.resets.at
            arrays |= zip(RESTARTS, context.resets.states, strict=False)
        return {name: value for name, value in arrays.items() if value is not None}

    # In NumPy ---------------------------------------------------------------------------------

    def run_forward(self, names: tuple[str, ...], *values: np.ndarray) -> list[np.ndarray]:
        """h ``(batch, timesteps, units)``, c and the gates ``(timesteps, batch, …)`` if kept.

        Args:
            names: What the values are, by the names of `Problem`.
            *values: Arrays.
        """
        arrays = dict(zip(names, values, strict=True))
        batch, timesteps, _ = arrays["x"].shape
        units, dtype = arrays["recurrent_kernel"].shape[0], arrays["x"].dtype
        width = 0
        if self.cell.normalization is None:
            width = _loops().residuals(self.cell.name, self.cell.activations) * units
        # Where windows overlap, gates that are not kept would be computed many times.
        times = divide(timesteps, self.options).reach
        if width * batch * timesteps * dtype.itemsize > self.run.kept_gates * times:
            width = 0
        arrays["h"] = _memory.array([batch, timesteps, units], dtype)
        arrays["c"] = _memory.array([timesteps, batch, units * (len(self.cell.states) > 1)], dtype)
        arrays["gates"] = _memory.array([timesteps, batch, width], dtype)
        problem, double = self._problem(arrays), dtype == np.float64
        first, *others = self._shares(batch)
        forward = _loops().forward
        with _in_pool(forward, [(problem, double, *share) for share in others]):
            forward(problem, double, *first)
        return [arrays["h"], arrays["c"], arrays["gates"]]

    def run_backward(
        self, wanted: tuple[str, ...], names: tuple[str, ...], *values: np.ndarray
    ) -> list[np.ndarray]:
        """The gradients of the `wanted` arrays, Σ_b ‖∂L/∂h_t‖₂, and the weighted penalty."""
        arrays = dict(zip(names, values, strict=True))
        batch, timesteps, _ = arrays["x"].shape
        dtype = arrays["x"].dtype
        options = self.current()
        windows = divide(timesteps, options)
        # Only the final state has a gradient: nothing flows outside the last window.
        last = slice(None) if "dh" in arrays else slice(-1, None)
        bounds = {name: getattr(windows, name)[last] for name in ("starts", "entries", "ends")}
        overlapping = "dh" in arrays and windows.overlapping
        # Windows that overlap add up, so that one thread has all those of a sample.
        rows = batch if overlapping else len(bounds["ends"]) * batch
        shares = self._shares(rows, least=1 if overlapping else ROWS_OF_A_THREAD)
        start = bounds["starts"][0]
        made = {"dx": _memory.array(arrays["x"].shape, dtype)}
        made["dx"][:, :start] = 0
        if self.options.record:
            made["norms"] = _memory.array([batch, timesteps], np.dtype(np.float32))
            made["norms"][:, :start] = 0
        for name in set(wanted) - {"x"}:
            # Threads sum up on their own.
            made[f"d_{name}"] = np.zeros([len(shares), *arrays[name].shape], dtype)
        made["penalty_value"] = np.zeros([len(shares)])
        problem = self._problem(arrays | made | bounds)
        problem.clip = math.inf if options.clip is None else options.clip
        problem.overlapping = overlapping
        backward, double = _loops().backward, dtype == np.float64
        others = [(problem, double, i, *share) for i, share in enumerate(shares)][1:]
        with _in_pool(backward, others):
            backward(problem, double, 0, *shares[0])
        results = [made["dx"] if n == "x" else made[f"d_{n}"].sum(axis=0) for n in wanted]
        norms = made.get("norms", np.zeros([0, timesteps])).sum(axis=0, dtype=np.float64)
        penalty = made["penalty_value"].sum() * arrays.get("penalty_weight", 0)
        return [*results, norms.astype(np.float32), np.asarray(penalty, dtype)]

    def _shares(self, rows: int, least: int = ROWS_OF_A_THREAD) -> list[tuple[int, int]]:
        """The first and last row of each thread, which gets so many at least."""
        threads = max(min(self.run.threads or _threads(), rows // least), 1)
        ends = [rows * i // threads for i in range(threads + 1)]
        return list(itertools.pairwise(ends))

    def _problem(self, arrays: dict[str, np.ndarray]) -> Problem:
        batch, timesteps, features = arrays["x"].shape
        units, columns = arrays["recurrent_kernel"].shape
        sizes = {"B": batch, "T": timesteps, "D": features, "u": units, "N": columns}
        for name in arrays.keys() & SHAPES.keys():
            expected = tuple(sizes[letter] for letter in SHAPES[name])
            if arrays[name].shape != expected:
                raise ValueError(
                    f"The recurrent loop expected `{name}` of shape {expected}, as `x` of shape "
                    f"{arrays['x'].shape} asks for. Received shape {arrays[name].shape}."
                )
        problem = Problem(batch, timesteps, features, units, **self.settings)
        problem.windows = len(arrays.get("ends", ()))
        # The addresses are good for as long as the arrays are kept.
        problem.arrays = {n: np.ascontiguousarray(a) for n, a in arrays.items() if a.size}
        for name, array in problem.arrays.items():
            setattr(problem, name, array.ctypes.data)
        return problem


_memory = Buffers()


def _loops() -> Loops:
    """The compiled loops, where `is_usable` has found them."""
    loops = library()
    assert loops is not None
    return loops


@functools.cache
def _threads() -> int:
    """As many as TensorFlow gives to one operation."""
    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    if chosen:
        return chosen
    # macOS and Windows have no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(_threads() - 1, 1), thread_name_prefix="kbptt")


@contextlib.contextmanager
def _in_pool(work: Callable[..., None], calls: list[tuple]) -> Iterator[None]:
    """Runs `work` with each of the tuples of arguments while the body of the scope runs."""
    others = [_pool().submit(work, *arguments) for arguments in calls]
    try:
        yield
    finally:
        wait(others)  # they write to arrays that go when this function ends
    for other in others:
        other.result()
