"""TensorBoard's *Gradient flow* tab: the server side.

TensorBoard imports this module at startup, so it must import neither Keras nor TensorFlow.
"""

import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.plugins import base_plugin
from werkzeug import exceptions, wrappers

from kbptt.analysis import gradient_flow, thresholds
from kbptt.tensorboard import grid, layout, web
from kbptt.tensorboard.series import Series, fitted_line, pieces
from kbptt.tensorboard.source import Source

STATIC = Path(__file__).parent / "static"

# Bounds of the size of an answer.
_MAX_CELLS = 1_000_000
_MAX_POINTS = 1000

THRESHOLDS = thresholds.of_verdicts()


class GradientFlowLoader(base_plugin.TBLoader):
    """Entry point of the group `tensorboard_plugins`."""

    def fix_flags(self, flags: Any) -> None:
        # By default TensorBoard keeps 10 records per tag of a plugin; 0 keeps all.
        flags.samples_per_plugin.setdefault(layout.PLUGIN, 0)

    def load(self, context: base_plugin.TBContext) -> "GradientFlowPlugin":
        return GradientFlowPlugin(context)


class GradientFlowPlugin(base_plugin.TBPlugin):
    """Serves the profiles that `GradientFlow` and `AdaptiveTruncation` wrote.

    A profile holds the norms of one training step, by timestep or by lag. Lag 0, like the last
    timestep, is the last column here, so both are handled alike.
    """

    plugin_name = layout.PLUGIN

    def __init__(self, context: base_plugin.TBContext):
        self._source = Source(context.data_provider)

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        routes = {
            "/tags": self._source.tags,
            "/grid": self._grid,
            "/profiles": self._profiles,
            "/summary": self._summary,
            "/statistics": self._statistics,
            "/trends": self._trends,
            "/export": self._export,
        }
        for file in STATIC.iterdir():
            if file.suffix in (".js", ".css"):
                routes[f"/{file.name}"] = web.serve(file)
        return {path: web.answer(route) for path, route in routes.items()}

    def is_active(self) -> bool:
        return False  # TensorBoard itself detects data of this plugin

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Gradient flow")

    # Routes.

    def _grid(self, request: wrappers.Request) -> bytes:
        """Reduced log10 norms `(records, timesteps)` as float32 after a JSON header.

        Layout: uint32 length of the header, the header padded to a multiple of 4, the values.
        """
        series = self._one_series(request)
        rows = web.integer(request, "rows", 200, 1, _MAX_CELLS)
        columns = web.integer(request, "cols", 200, 1, _MAX_CELLS)
        if rows * columns > _MAX_CELLS:
            raise exceptions.BadRequest(f"More than {_MAX_CELLS} cells were asked for.")
        how = request.args.get("reduce", "mean")
        if how not in ("mean", "max", "min"):
            raise exceptions.BadRequest(
                f"The argument 'reduce' must be mean, max or min. Received: {how[:100]!r}."
            )
        steps, timesteps = series.steps, series.norms.shape[1]
        first, last = _part(request, timesteps)
        chosen = _between(steps, web.integer(request, "s0", None), web.integer(request, "s1", None))
        part = series.norms.part(chosen, first, last)
        if not part.size:
            raise exceptions.NotFound("There is no profile in this range.")
        cells = grid.reduce(part, rows, columns, how)
        finite = np.isfinite(cells.values) & (cells.values != grid.MISSING)
        recorded = steps[chosen]
        header = {
            "rows": cells.values.shape[0],
            "cols": cells.values.shape[1],
            "first_steps": recorded[cells.row_edges[:-1]].tolist(),
            "last_steps": recorded[cells.row_edges[1:] - 1].tolist(),
            "step_edges": grid.step_edges(recorded)[cells.row_edges].tolist(),
            "timestep_edges": (cells.column_edges + first).tolist(),
            "timesteps": timesteps,
            "records": part.shape[0],
            "missing": float(grid.MISSING),
            "min": float(cells.values[finite].min()) if finite.any() else None,
            "max": float(cells.values[finite].max()) if finite.any() else None,
            "zero": sum(int((norms == 0).sum()) for norms in part.vectors),
            "nan": sum(int(np.isnan(norms).sum()) for norms in part.vectors),
            "inf": sum(int(np.isinf(norms).sum()) for norms in part.vectors),
            "damaged": series.damaged,
            "cuts": pieces(series, recorded[cells.row_edges[:-1]]),
        }
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 4)
        return struct.pack("<I", len(encoded)) + encoded + cells.values.astype("<f4").tobytes()

    def _profiles(self, request: wrappers.Request) -> list[dict[str, Any]]:
        """For each `run` the last profile at or before `step`, or its first."""
        wanted = web.integer(request, "step", None)
        return _of_each(request, lambda run: self._profile(request, run, wanted))

    def _profile(self, request: wrappers.Request, run: str, wanted: int | None) -> dict[str, Any]:
        series = self._series(request, run)
        steps = series.steps
        last = len(steps) - 1
        at = last if wanted is None else max(int(np.searchsorted(steps, wanted, "right")) - 1, 0)
        norms = series.norms.vectors[at]
        step = int(steps[at])
        window = series.judged_window(step, norms.size)
        inside = norms if window is None else norms[-window:]
        first, last = _part(request, norms.size)
        points = grid.reduce(norms[None, first:last], 1, _MAX_POINTS)
        return {
            "step": step,
            "timesteps": norms.size,
            # Each point covers the timesteps from its edge to the next.
            "edges": (points.column_edges + first).tolist(),
            "norms": (10.0 ** points.values[0].astype(np.float64)).tolist(),
            "fit": fitted_line(norms, window),
            "window": series.window(step),
            "cuts": series.cuts(step, norms.size),
            **gradient_flow.summarize(norms),
            "decay": gradient_flow.decay_per_step(inside),
            "half_life": gradient_flow.half_life(inside),
        }

    def _summary(self, request: wrappers.Request) -> dict[str, Any]:
        """The verdict on a run, and the numbers behind it."""
        series = self._one_series(request)
        found = series.overview()
        recorded = [
            step
            for step, norms in zip(series.steps.tolist(), series.norms.vectors, strict=True)
            if norms.size
        ]
        return {
            **found,
            "thresholds": THRESHOLDS,
            "first_step": recorded[-found["averaged"]],
            "last_step": recorded[-1],
            "steps": _thinned(series.steps).tolist(),
            "records": len(series.steps),
            "damaged": series.damaged,
            "window": series.window(recorded[-1]),
        }

    def _statistics(self, request: wrappers.Request) -> list[str]:
        """Names of the scalars of a `layer` and of the optimizer."""
        return self._source.statistics(request, web.one(request, "layer"))

    def _trends(self, request: wrappers.Request) -> list[dict[str, Any]]:
        """For each `run` the scalar `name` of a layer, or of the optimizer, over training."""
        layer, name = web.one(request, "layer"), web.one(request, "name")
        group, _, key = name.rpartition("/") if name.startswith("optimizer/") else (layer, "", name)
        tag = layout.statistic_tag(group, key)

        def trend(run: str) -> dict[str, Any]:
            data = self._source.scalars(request, run, tag)
            return {"steps": [step for step, _ in data], "values": [value for _, value in data]}

        return _of_each(request, trend)

    def _export(self, request: wrappers.Request) -> wrappers.Response:
        """All profiles of a run as CSV: one line per step, one column per timestep or lag."""
        if request.args.get("format", "csv") != "csv":
            raise exceptions.BadRequest("The only format is csv.")
        series = self._one_series(request)
        timesteps = series.norms.shape[1]
        letter = "lag" if series.by_lag else "t"

        def lines() -> Iterator[str]:
            yield "step," + ",".join(f"{letter}{t}" for t in range(timesteps)) + "\n"
            for step, vector in zip(series.steps, series.norms.vectors, strict=True):
                written = [f"{norm:.9g}" for norm in vector]
                missing = [""] * (timesteps - len(written))
                row = written[::-1] + missing if series.by_lag else missing + written
                yield f"{step},{','.join(row)}\n"

        # Streamed: a long history is hundreds of megabytes of text.
        name = f"{web.one(request, 'run')}_{web.one(request, 'tag').split('/', 1)[1]}"
        name = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("_.")[-200:]
        disposition = f'attachment; filename="{name}.csv"'
        headers = {"Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"}
        return wrappers.Response(lines(), content_type="text/csv; charset=utf-8", headers=headers)

    def _one_series(self, request: wrappers.Request) -> Series:
        return self._series(request, web.one(request, "run"))

    def _series(self, request: wrappers.Request, run: str) -> Series:
        return self._source.series(request, run, web.one(request, "tag"))


def _of_each(request: wrappers.Request, content: Callable[[str], dict]) -> list[dict[str, Any]]:
    """The content of each `run`; a run without it does not affect the others."""

    def of(run: str) -> dict[str, Any]:
        try:
            return {"run": run, **content(run)}
        except (web.Unreadable, exceptions.NotFound) as error:
            return {"run": run, "unreadable": error.description}

    return [of(run) for run in web.runs(request)]


def _part(request: wrappers.Request, timesteps: int) -> tuple[int, int]:
    """First timestep of the requested part, and the one after the last.

    Requested by timesteps or by lags, which match across runs of different lengths.
    """
    first = web.integer(request, "t0", timesteps - web.integer(request, "l1", timesteps, 0), 0)
    last = web.integer(request, "t1", timesteps - web.integer(request, "l0", 0, 0), 0)
    last = min(max(last, 0), timesteps)
    return min(max(first, 0), last), last


def _thinned(values: np.ndarray) -> np.ndarray:
    at = np.linspace(0, len(values) - 1, min(len(values), _MAX_POINTS)).astype(int)
    return values[at]


def _between(steps: np.ndarray, first: int | None, last: int | None) -> slice:
    start = 0 if first is None else int(np.searchsorted(steps, first, "left"))
    stop = len(steps) if last is None else int(np.searchsorted(steps, last, "right"))
    return slice(start, stop)
