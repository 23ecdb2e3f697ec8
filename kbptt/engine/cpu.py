"""Backpropagation through time by compiled loops on a CPU: the plan of `kbptt.engine.bptt` in C.

What XLA leaves on the table is in between the matrix products: passes over (timesteps, batch,
4·units), one thread where the update is in place, and the dispatch of every operation of every
timestep. In ``native/loops.h`` a group of rows walks through time with its state in the cache, the
weight gradients are summed while the gradients of the gates are still there, and threads, each
with rows of its own, never wait for each other. Nothing larger than the states and the gates is
ever written down, and inputs and outputs stay batch-major, so that nothing is transposed.

The numbers are those of `kbptt.engine.bptt`, which does everything that is not done here: other
cells, gradients by lag, a train step that XLA compiles as a whole, accelerators, machines without a
C compiler.
"""

import functools
import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kbptt.engine.blocks import Blocks
from kbptt.engine.compiled import UNSAVABLE, refuse_saving
from kbptt.engine.loop import Loop, Monitor, Options
from kbptt.engine.native import is_usable
from kbptt.engine.native.buffers import Buffers
from kbptt.engine.native.library import Problem, library

CELLS = ("SimpleRNN", "GRU", "LSTM")
STATES = ("h_start", "c_start")
RESTARTS = ("h_restart", "c_restart")
ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh")
# Up to so many bytes the gates are kept for the backward pass. Larger ones, which would come back
# from main memory, are computed a second time: at most a sixth more time, a third of the memory.
KEPT_GATES = 2**25
# Fewer rows than this are not worth a second thread.
ROWS_OF_A_THREAD = 4

# Sizes of what is given, with the letters of ``native/problem.h``: the loops trust them.
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

class NativeWeights(NamedTuple):
    """What the loops read; `N` is units times 1, 3 or 4.

    Attributes:
        kernel: ``(features, N)``.
        recurrent_kernel: ``(units, N)``.
        bias: ``(N,)``, or None.
        recurrent_bias: ``(units,)`` for GRU: added to h·U of the candidate; or None.
        input_gain: ``(N,)``, of layer-normalised x·W (GRU, LSTM). The columns of both kernels are
            centred then.
        recurrent_gain: ``(N,)``, of layer-normalised h·U; SimpleRNN: of the sum.
        state_gain: ``(units,)``, of the layer-normalised cell state (LSTM).
        state_bias: ``(units,)``, likewise.
    """

    kernel: tf.Tensor
    recurrent_kernel: tf.Tensor
    bias: tf.Tensor | None = None
    recurrent_bias: tf.Tensor | None = None
    input_gain: tf.Tensor | None = None
    recurrent_gain: tf.Tensor | None = None
    state_gain: tf.Tensor | None = None
    state_bias: tf.Tensor | None = None


class NativeBPTT(Loop):
    """A recurrent loop with its own truncated gradient, run by the compiled loops.

    Args:
        cell: One of `CELLS`.
        activations: One or two of `ACTIVATIONS`: of the candidate, and of the gates if any.
        options: The `Options`. A penalty is a `kbptt.regularizers.VanishingGradient`.
        normalization: None, or the `kbptt.normalization.LayerNormalization` of the layer.
        current: Called in every backward pass for the `Options` of that moment, of which windows
            and clip are used. Defaults to `options`.
    """

    time_major = False
    reads_windows_late = True
    output = 0

    def __init__(
        self,
        cell: str,
        activations: tuple[str, ...],
        options: Options,
        normalization: Any | None = None,
        current: Callable[[], Options] | None = None,
    ) -> None:
        super().__init__(options)
        self.current = current or (lambda: options)
        self.cell = cell
        self.normalized = normalization is not None
        self.settings: dict[str, float] = {
            "cell": CELLS.index(cell),
            "activation": ACTIVATIONS.index(activations[0]),
            "recurrent_activation": ACTIVATIONS.index(activations[-1]),
        }
        if normalization is not None:
            self.settings["normalized"] = True
            self.settings["epsilon"] = normalization.epsilon
            self.settings["carry_normalized"] = normalization.carry_normalized
        if options.penalty is not None:
            self.settings["penalty"] = 2 if options.penalty.squared else 1
            self.settings["smallest_norm"] = options.penalty.SMALLEST_NORM

    @staticmethod
    def supports(options: Options, dtype: tf.DType) -> bool:
        """Whether the compiled loops can run here, with such options and numbers."""
        return is_usable() and not options.lags and dtype in (tf.float32, tf.float64)

    # In TensorFlow ----------------------------------------------------------------------------

    def _run(self, x, start, weights, mask, resets):
        # Here alone: the gradient of a `tf.cond` is a graph that cannot capture anything new.
        refuse_saving()
        arrays = self._arrays(x, start, weights, mask, resets)
        h, c, gates = _numpy_function(self._forward, arrays, [x.dtype] * 3)
        h.set_shape([*x.shape[:2], start[0].shape[1]])
        final = (h[:, -1], c[-1])[: len(start)]
        for value, initial in zip(final, start, strict=True):
            value.set_shape(initial.shape)
        return h, final, {"h": h, "c": c, "gates": gates}

    def _pull(self, x, start, weights, mask, resets, kept, dy, d_final, xi, weight):
        given = self._arrays(x, start, weights)
        if resets is not None:
            given |= zip(RESTARTS, resets.states, strict=False)
        upstream = {"dh": dy, **dict(zip(("dh_final", "dc_final"), d_final, strict=False))}
        if xi is not None:
            upstream["factors"] = tf.broadcast_to(xi, [tf.shape(x)[1], tf.shape(x)[0]])
        upstream["penalty_weight"] = weight
        arrays = self._arrays(x, start, weights, mask, resets) | kept
        arrays |= {name: value for name, value in upstream.items() if value is not None}
        backward = functools.partial(self._backward, wanted=tuple(given))
        kinds = [x.dtype] * len(given) + [tf.float32, x.dtype]
        *results, norms, penalty = _numpy_function(backward, arrays, kinds)
        for result, value in zip(results, given.values(), strict=True):
            result.set_shape(value.shape)
        norms.set_shape([x.shape[1]])
        found = dict(zip(given, results, strict=True))
        pulled = (
            found["x"],
            tuple(found[name] for name in STATES[: len(start)]),
            tuple(found[name] for name in RESTARTS if name in found),
            NativeWeights(*(found.get(name) for name in NativeWeights._fields)),
        )
        return pulled, Monitor(norms, penalty=None if weight is None else penalty)

    @staticmethod
    def _arrays(x, start, weights, mask=None, resets=None) -> dict[str, tf.Tensor]:
        """What there is, by the names of `Problem`."""
        arrays = {"x": x, "mask": mask, **weights._asdict()}
        arrays |= zip(STATES, start, strict=False)
        if resets is not None:
            arrays |= {"resets": resets.at, **dict(zip(RESTARTS, resets.states, strict=False))}
        return {name: value for name, value in arrays.items() if value is not None}

    # In NumPy ---------------------------------------------------------------------------------

    def _forward(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        """h ``(batch, timesteps, units)``, c and the gates ``(timesteps, batch, …)`` if kept."""
        batch, timesteps, _ = arrays["x"].shape
        units, dtype = arrays["recurrent_kernel"].shape[0], arrays["x"].dtype
        lstm = self.cell == "LSTM"
        width = 0 if self.cell == "SimpleRNN" or self.normalized else 4 * units
        # Where windows overlap, gates that are not kept would be computed many times.
        times = -(-(self.options.length or 1) // (self.options.stride or 1))
        if width * batch * timesteps * dtype.itemsize > KEPT_GATES * times:
            width = 0
        arrays["h"] = _memory.array([batch, timesteps, units], dtype)
        arrays["c"] = _memory.array([timesteps, batch, units if lstm else 0], dtype)
        arrays["gates"] = _memory.array([timesteps, batch, width], dtype)
        problem = self._problem(arrays)
        shares = _shares(batch)
        _in_threads(
            lambda i: library().kbptt_forward(problem, dtype == np.float64, *shares[i]), len(shares)
        )
        return [arrays["h"], arrays["c"], arrays["gates"]]

    def _backward(self, arrays: dict[str, np.ndarray], wanted: tuple[str, ...]) -> list[np.ndarray]:
        """The gradients of the `wanted` arrays, Σ_b ‖∂L/∂h_t‖₂, and the weighted penalty."""
        batch, timesteps, _ = arrays["x"].shape
        dtype = arrays["x"].dtype
        options = self.current()
        windows, overlapping = self._windows(options, timesteps, "dh" in arrays)
        # Windows that overlap add up, so that one thread has all those of a sample.
        shares = _shares(batch, 1) if overlapping else _shares(len(windows["ends"]) * batch)
        first = windows["starts"][0]
        made = {"dx": _memory.array(arrays["x"].shape, dtype)}
        made["dx"][:, :first] = 0
        if self.options.record:
            made["norms"] = _memory.array([batch, timesteps], np.dtype(np.float32))
            made["norms"][:, :first] = 0
        for name in set(wanted) - {"x"}:
            # Threads sum up on their own.
            made[f"d_{name}"] = np.zeros([len(shares), *arrays[name].shape], dtype)
        made["penalty_value"] = np.zeros([len(shares)])
        problem = self._problem(arrays | made | windows)
        problem.clip = math.inf if options.clip is None else options.clip
        problem.overlapping = overlapping
        _in_threads(
            lambda i: library().kbptt_backward(problem, dtype == np.float64, i, *shares[i]),
            len(shares),
        )
        results = [made["dx"] if n == "x" else made[f"d_{n}"].sum(axis=0) for n in wanted]
        norms = made.get("norms", np.zeros([0, timesteps])).sum(axis=0, dtype=np.float64)
        penalty = made["penalty_value"].sum() * arrays.get("penalty_weight", 0)
        return [*results, norms.astype(np.float32), np.asarray(penalty, dtype)]

    @staticmethod
    def _windows(
        options: Options, timesteps: int, sequences: bool
    ) -> tuple[dict[str, np.ndarray], bool]:
        """Where windows start and end, from where on losses enter; and whether they overlap."""
        blocks = Blocks.of(timesteps, options.length, options.stride, options.align)
        ends = np.arange(1, blocks.count + 1) * blocks.stride - blocks.front
        starts, entries = ends - blocks.length, ends - blocks.stride
        windows = {"starts": starts, "entries": entries, "ends": ends}
        windows = {name: np.clip(v, 0, timesteps).astype(np.int64) for name, v in windows.items()}
        if not sequences:
            # Only the final state has a gradient: nothing flows outside the last window.
            windows = {name: v[-1:] for name, v in windows.items()}
        return windows, sequences and blocks.overlapping

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


def _numpy_function(function: Callable, arrays: dict[str, tf.Tensor], kinds: list) -> list:
    """Calls `function` with a dictionary of NumPy arrays, from a graph as well."""
    names = tuple(arrays)
    return tf.numpy_function(
        lambda *values: function(dict(zip(names, values, strict=True))),
        [*arrays.values()],
        kinds,
        stateful=False,
        name=UNSAVABLE,
    )


_memory = Buffers()


@functools.cache
def _threads() -> int:
    """As many as TensorFlow gives to one operation."""
    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    if chosen:
        return chosen
    # macOS and Windows do not know of affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(_threads() - 1, 1), thread_name_prefix="kbptt")


def _shares(rows: int, least: int = ROWS_OF_A_THREAD) -> list[tuple[int, int]]:
    """The first and last row of each thread, which gets so many at least."""
    threads = max(min(_threads(), rows // least), 1)
    ends = [rows * i // threads for i in range(threads + 1)]
    return list(itertools.pairwise(ends))


def _in_threads(work: Callable[[int], int], shares: int) -> None:
    others = [_pool().submit(work, i) for i in range(1, shares)]
    failed = [work(0), *(other.result() for other in others)]
    if any(failed):
        raise MemoryError("No memory for the scratch space of the recurrent loop.")
