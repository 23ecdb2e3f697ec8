"""Heatmaps for the *Gradient flow* tab: of a run, or of a group of runs, as one frame of bytes."""

import concurrent.futures
import json
import os
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from werkzeug import exceptions, wrappers

from kbptt.tensorboard import combine, grid, web
from kbptt.tensorboard.series import Series, pieces

_MAX_CELLS = 1_000_000  # of a run
_HOW = ("mean", "max", "min")

# NumPy releases Python's lock in its loops.
_threads = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "gradient_flow_grid")


class Asked(NamedTuple):
    """The part of the profiles that is asked for, and into how many cells to reduce it."""

    rows: int
    columns: int
    how: str
    first_step: int | None
    last_step: int | None
    request: wrappers.Request

    @classmethod
    def of(cls, request: wrappers.Request) -> "Asked":
        rows = web.integer(request, "rows", 200, 1, _MAX_CELLS)
        columns = web.integer(request, "cols", 200, 1, _MAX_CELLS)
        if rows * columns > _MAX_CELLS:
            raise exceptions.BadRequest(f"More than {_MAX_CELLS} cells were requested.")
        how = request.values.get("reduce", "mean")
        if how not in _HOW:
            raise exceptions.BadRequest(
                f"The argument 'reduce' must be one of {', '.join(_HOW)}. Received: {how[:100]!r}."
            )
        web.part(request, 1)  # refuses what is no number before anything is read
        first, last = web.integer(request, "s0", None), web.integer(request, "s1", None)
        return cls(rows, columns, how, first, last, request)


class _Reduced(NamedTuple):
    placed: combine.Placed
    timesteps: int
    cuts: list[list[Any]]
    counts: dict[str, int]


def frame(members: Sequence[tuple[str, Series | exceptions.HTTPException]], asked: Asked) -> bytes:
    """The grid of these runs: `(run, its profiles or why there are none)`, at least one."""
    found = [(run, series) for run, series in members if isinstance(series, Series)]
    reduced = list(_threads.map(lambda member: _reduce(member[1], asked), found))
    shown = [one for one in reduced if one is not None]
    runs = [run for (run, _), one in zip(found, reduced, strict=True) if one is not None]
    header: dict[str, Any] = {
        "runs": runs,
        "failed": [
            {"run": run, **web.reason(series)}
            for run, series in members
            if isinstance(series, exceptions.HTTPException)
        ],
        "sampled": any(series.sampled for _, series in found),
        "rows": 0,
        "cols": 0,
    }
    values = np.empty((0, 0), np.float32)
    if shown:
        header |= _header(shown, asked.how)
        values = header.pop("values")
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 4)
    return struct.pack("<I", len(encoded)) + encoded + values.astype("<f4").tobytes()


def _header(shown: list[_Reduced], how: str) -> dict[str, Any]:
    placed = combine.combine([one.placed for one in shown], how)
    values = placed.values
    timesteps = max(one.timesteps for one in shown)
    finite = values[np.isfinite(values) & (values != grid.MISSING)]
    same = all(
        one.cuts == shown[0].cuts
        and one.timesteps == timesteps
        and np.array_equal(one.placed.steps, placed.steps)
        for one in shown
    )
    return {
        "values": values,
        "rows": values.shape[0],
        "cols": values.shape[1],
        "first_steps": placed.first.tolist(),
        "last_steps": placed.last.tolist(),
        "step_edges": placed.steps.tolist(),
        "timestep_edges": (placed.columns + timesteps).tolist(),
        "timesteps": timesteps,
        "missing": float(grid.MISSING),
        "min": float(finite.min()) if finite.size else None,
        "max": float(finite.max()) if finite.size else None,
        # Where runs of a group are cut at different timesteps, no line is right.
        "cuts": shown[0].cuts if same else [],
        **{name: sum(one.counts[name] for one in shown) for name in shown[0].counts},
    }


def _reduce(series: Series, asked: Asked) -> _Reduced | None:
    """A run's grid, or None if it has no profile in this part."""
    steps, timesteps = series.steps, series.norms.shape[1]
    first, last = web.part(asked.request, timesteps)
    chosen = _between(steps, asked.first_step, asked.last_step)
    part = series.norms.part(chosen, first, last)
    if not part.size:
        return None
    cells = grid.reduce(part, asked.rows, asked.columns, asked.how)
    recorded = steps[chosen]
    starts = recorded[cells.row_edges[:-1]]
    counts = grid.count(part)._asdict()
    return _Reduced(
        combine.Placed(
            cells.values,
            grid.step_edges(recorded)[cells.row_edges],
            cells.column_edges + first - timesteps,
            starts,
            recorded[cells.row_edges[1:] - 1],
        ),
        timesteps,
        pieces(series, starts),
        {"records": part.shape[0], **counts, "damaged": series.damaged},
    )


def _between(steps: np.ndarray, first: int | None, last: int | None) -> slice:
    start = 0 if first is None else int(np.searchsorted(steps, first, "left"))
    stop = len(steps) if last is None else int(np.searchsorted(steps, last, "right"))
    return slice(start, stop)
