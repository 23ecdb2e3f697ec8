"""What the compiled backward pass finds from the final states, for each sample by itself."""

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from kbptt.cells.base import Weights
from kbptt.engine.compiled import UNSAVABLE
from kbptt.engine.influence import Reached
from kbptt.engine.native.arrays import FINALS, RESTARTS, STATES
from kbptt.engine.numpy_op import numpy_op


def reach(loop: Any, wanted: tuple[str, ...], arrays: dict[str, tf.Tensor]) -> Reached:
    """`kbptt.engine.gradient.Loop.reach`, from 1 at all units of one state after the other.

    Args:
        loop: A `kbptt.engine.cpu.CPULoop` that keeps the gradients of rows apart.
        wanted: Names of the arrays to have gradients of, by those of `Problem`; x is the first.
        arrays: Those of the forward pass, and its residuals.
    """
    run = functools.partial(_run, loop, wanted, tuple(arrays))
    kinds = [arrays["x"].dtype] * (len(wanted) - 1)
    results = numpy_op(run, [*arrays.values()], kinds, [True] * len(kinds), UNSAVABLE)
    found = dict(zip(wanted[1:], results, strict=True))
    start = tuple(found[name] for name in STATES if name in found)
    return Reached(None, start, Weights(*(found.get(name) for name in Weights._fields)))


def _run(
    loop: Any,
    wanted: tuple[str, ...],
    names: tuple[str, ...],
    read: tuple[bool, ...],
    *values: np.ndarray,
) -> list[np.ndarray]:
    """For each of `wanted` but x an array ``(states, batch, …)``."""
    finals = FINALS[: len(loop.cell.states)]
    like = values[names.index("h_start")]
    read = (False,) + (True,) * (len(wanted) + 1)
    found = []
    for probe in finals:
        ends = [np.ones_like(like) if probe == name else np.zeros_like(like) for name in finals]
        results = loop.run_backward(wanted, (*names, *finals), read, *values, *ends)
        found.append(results[1 : len(wanted)])
    stacked = [np.stack(of_each) for of_each in zip(*found, strict=True)]
    # Of states every team has all samples, of which its own alone is not zero.
    return [
        s.sum(axis=1) if name in (*STATES, *RESTARTS) else s
        for name, s in zip(wanted[1:], stacked, strict=True)
    ]
