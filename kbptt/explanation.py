"""What a layer will run for inputs of some shape, and why."""

import dataclasses
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import tree

from kbptt.cells import Cell
from kbptt.engine import CPULoop, plan, settings
from kbptt.engine.blocks import divide
from kbptt.layers.any_cell import CellLayer


@dataclasses.dataclass(frozen=True)
class Explanation:
    """How a layer runs. Printing it shows one line per recurrent loop and per choice about it.

    Attributes:
        loops: For each recurrent loop (of a stack of cells, of both directions) the choices by
            name, each in words. ``"loop"`` begins with ``"C++"``, ``"TensorFlow"`` or
            ``"automatic differentiation"``; ``"why"`` explains why it is not C++.
    """

    loops: dict[str, dict[str, str]]

    def __str__(self) -> str:
        lines = []
        for title, choices in self.loops.items():
            lines += [title, *(f"  {name:<9} {text}" for name, text in choices.items())]
        return "\n".join(lines)

    __repr__ = __str__


class Passes(NamedTuple):
    """What of a layer runs.

    Attributes:
        backward: Whether it is trained.
        sequences: Whether there is a loss at every timestep.
    """

    backward: bool
    sequences: bool


def explain(layer: Any, shape: tuple[int, int, int], *, training: bool = True) -> Explanation:
    """Explains which loops a layer will run, on how many threads, with how much memory, and why.

    This describes a training script that calls `model.fit` on this machine, with the current
    `kbptt.engine.settings`. Models compiled as a whole by XLA (`jit_compile=True`) and exported
    models use the TensorFlow loops.

    Args:
        layer: A layer of kbptt, or a `keras.layers.Bidirectional` of one. Built for the shape if
            necessary.
        shape: Of its inputs: ``(batch, timesteps, features)``.
        training: Boolean. Whether the layer is trained; otherwise only its outputs are computed.

    Returns:
        An `Explanation`; print it.

    Raises:
        ValueError: If the layer is not one of kbptt's, or the shape does not have three sizes.
    """
    sizes = tuple(shape)
    if len(sizes) != 3 or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError(
            "`shape` expected (batch, timesteps, features), three positive integers. "
            f"Received {shape!r}."
        )
    if isinstance(layer, keras.layers.Bidirectional):
        layers = [layer.forward_layer, layer.backward_layer]
    else:
        layers = [layer]
    loops = {}
    for rnn in layers:
        if not isinstance(rnn, CellLayer):
            raise ValueError(
                "`layer` expected a recurrent layer of kbptt, or a `keras.layers.Bidirectional` of "
                f"one. Received {layer!r}. `kbptt.convert` converts Keras layers."
            )
        if not rnn.built:
            rnn.build(sizes)
        loops |= _explain(rnn, sizes, training)
    return Explanation(loops)


def _explain(layer, shape, training) -> dict[str, dict[str, str]]:
    batch, timesteps, features = shape
    loops = {}
    parts = layer.parts(training)
    for number, part in enumerate(parts, 1):
        units = tree.flatten(part.cell.state_size)[0]
        place = f", cell {number} of {len(parts)}" if len(parts) > 1 else ""
        title = (
            f"{type(layer).__name__} '{layer.name}'{place}: batch {batch}, {timesteps} timesteps, "
            f"{features} features, {units} units, {part.dtype.name}"
        )
        if part.why is None:
            loop = CPULoop(part.recurrence, part.options)
            sequences = layer.return_sequences or number < len(parts)
            passes = Passes(training, sequences)
            sizes = (batch, timesteps, features, units)
            loops[title] = _of_cpu_loop(loop, sizes, part.dtype, passes)
        else:
            loops[title] = _of_others(part.recurrence, part.why)
        if part.options.diagonal and len(parts) == 1:
            size = batch * layer.influence_size() * part.dtype.size
            loops[title]["gradient"] = f"SnAp-1; {_mib(size)} of influence where states are carried"
        features = units
    return loops


def _of_others(recurrence: Cell | None, why: str) -> dict[str, str]:
    if settings().differentiable:
        return {"loop": "automatic differentiation by TensorFlow", "why": why}
    what = "any cell" if recurrence is None else recurrence.name
    by = ", compiled by XLA" if settings().jit else ""
    return {"loop": f"TensorFlow, the loop for {what}{by}", "why": why}


def _of_cpu_loop(
    loop: CPULoop, shape: tuple[int, int, int, int], dtype: tf.DType, passes: Passes
) -> dict[str, str]:
    batch, timesteps, _, units = shape
    names = " and ".join(loop.cell.activations)
    windows = divide(timesteps, loop.options)
    forward = loop.share(batch, units)
    choices = {
        "loop": f"C++, {loop.instruction_set}, {names}",
        "forward": f"{batch} rows: {_threads(loop, forward, batch, units)}; "
        f"groups of {loop.group(shape, dtype)}",
    }
    if not passes.backward:
        return choices
    count = windows.count if passes.sequences else 1
    rows = batch if windows.overlapping else batch * count
    backward = loop.share(rows, units)
    choices["backward"] = (
        f"{_windows(windows.count, count)} of {windows.length} timesteps, {rows} rows: "
        f"{_threads(loop, backward, rows, units)}; "
        f"groups of {loop.group(shape, dtype, count, windows.overlapping)}"
    )
    size = batch * timesteps * loop.gates_width(units) * dtype.size
    keeps_gates = size <= loop.most_gates(windows)
    if not size:
        choices["gates"] = "stored: the backward pass needs only h"
    elif keeps_gates:
        choices["gates"] = f"stored, {_mib(size)} (up to {_mib(loop.most_gates(windows))})"
    elif loop.cell.normalization is not None:
        choices["gates"] = "recomputed: layer-normalised cells store none"
    else:
        choices["gates"] = f"recomputed: {_mib(size)} would exceed {_mib(loop.most_gates(windows))}"
    if len(loop.cell.states) > 1:
        some = None if keeps_gates else plan.slots(windows)
        count = timesteps if some is None else int(some.max())
        each = "each timestep" if some is None else f"{count} of {timesteps} timesteps"
        choices["c"] = f"stored at {each}, {_mib(count * batch * units * dtype.size)}"
    return choices


def _windows(count: int, used: int) -> str:
    if count == 1:
        return "1 window"
    return "the last window" if used == 1 else f"{count} windows"


def _threads(loop: CPULoop, sharing: plan.Sharing, rows: int, units: int) -> str:
    teams, members = sharing
    if teams * members == 1:
        if loop.threads == 1:
            return "1 thread"
        units_too = "" if loop.whole_rows else f" and {plan.UNITS_OF_A_MEMBER} units"
        return f"1 thread (two would have fewer than {plan.ROWS_OF_A_TEAM} rows{units_too} each)"
    if members == 1:
        return f"{teams} threads, each with {rows / teams:.4g} rows"
    why = f"fewer than {plan.ROWS_OF_A_TEAM} rows per thread"
    if units >= plan.WIDE:
        why = f"of {plan.WIDE} or more in total"
    if loop.run.members is not None:
        why = f"`members` is {loop.run.members}"
    if teams == 1:
        return f"{members} threads share every row, each with {units / members:.4g} units ({why})"
    return (
        f"{teams} teams, each with {rows / teams:.4g} rows, of {members} threads, each with "
        f"{units / members:.4g} units ({why})"
    )


def _mib(size: float) -> str:
    return f"{size / 2**20:.3g} MiB"
