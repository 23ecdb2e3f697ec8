"""TensorBoard's *Gradient flow* tab: the server side.

TensorBoard imports this module at startup, so it must import neither Keras nor TensorFlow.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.plugins import base_plugin
from werkzeug import exceptions, wrappers

from kbptt.analysis import gradient_flow
from kbptt.tensorboard import grid, grids, judging, layout, web
from kbptt.tensorboard.series import Series, fitted_line
from kbptt.tensorboard.source import Source

STATIC = Path(__file__).parent / "static"

_MAX_POINTS = 1000  # of a profile or a list of steps


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
            "/runs": self._runs,
            "/grid": self._grid,
            "/profiles": self._profiles,
            "/summary": lambda request: judging.summary(self._source, request),
            "/findings": lambda request: judging.findings(self._source, request),
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
        # TensorBoard's page asks for this first, and then needs a second to load itself.
        self._source.warm()
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Gradient flow")

    # Routes.

    def _runs(self, request: wrappers.Request) -> dict[str, Any]:
        """What the tab can show, how TensorBoard orders the runs, and the options of each."""
        return {
            "kinds": [kind._asdict() for kind in layout.KINDS.values()],
            "order": self._source.order(request),
            "options": self._source.options(request),
        }

    def _grid(self, request: wrappers.Request) -> bytes:
        """Reduced log10 norms `(records, timesteps)`, a frame for each `group` of runs.

        Without `group` each run is its own. A frame is the uint32 length of a JSON header, the
        header padded to a multiple of 4, and the values as float32. With `sample=1` the grid may be
        `sampled`: of some of the records, where not all have been read.
        """
        asked = grids.Asked.of(request)
        wanted = web.of_runs(request, "tag")
        names = request.values.getlist("group") or [str(at) for at in range(len(wanted))]
        if len(names) != len(wanted):
            raise exceptions.BadRequest(
                f"The argument 'group' must be given once per run, {len(wanted)} times. "
                f"Received: {len(names)} of them."
            )
        groups: dict[str, list[tuple[str, Series | exceptions.HTTPException]]] = {}
        found = self._source.series(request, wanted, web.sample(request))
        for name, (run, _), series in zip(names, wanted, found, strict=True):
            groups.setdefault(name, []).append((run, series))
        return b"".join(grids.frame(members, asked) for members in groups.values())

    def _profiles(self, request: wrappers.Request) -> list[dict[str, Any]]:
        """For each `run` the last profile at or before `step`, or its first; `sample` as above."""
        wanted = web.integer(request, "step", None)
        points = web.integer(request, "points", _MAX_POINTS, 1, _MAX_POINTS)

        def profile(series: Series) -> dict[str, Any]:
            steps = series.steps
            last = len(steps) - 1
            at = last if wanted is None else int(np.searchsorted(steps, wanted, "right")) - 1
            norms, step = series.norms.vectors[max(at, 0)], int(steps[max(at, 0)])
            part = web.part(request, norms.size)
            found = _one_profile(series, step, norms, part, points)
            return {**found, "steps": _thinned(steps), "sampled": series.sampled}

        return self._of_each(request, profile, web.sample(request))

    def _statistics(self, request: wrappers.Request) -> list[str]:
        """Names of the scalars of each `layer` and of what belongs to no layer."""
        return self._source.statistics(request, web.several(request, "layer"))

    def _trends(self, request: wrappers.Request) -> list[dict[str, Any]]:
        """For each `run` and its `layer` the scalars `name` over training."""
        names, runs = web.several(request, "name"), web.of_runs(request, "layer")
        if len(names) * len(runs) > web.MAX_RUNS * 10:
            raise exceptions.BadRequest(f"More than {web.MAX_RUNS * 10} scalars were requested.")
        wanted = [(name, run, _statistic(layer, name)) for name in names for run, layer in runs]
        found = self._source.scalars(request, [(run, tag) for _, run, tag in wanted])
        answers = []
        for (name, run, _), data in zip(wanted, found, strict=True):
            answer: dict[str, Any] = {"run": run, "name": name}
            if isinstance(data, web.Unreadable):
                answer["unreadable"] = data.description
            else:
                answer["steps"] = [step for step, _ in data]
                answer["values"] = [value for _, value in data]
            answers.append(answer)
        return answers

    def _export(self, request: wrappers.Request) -> wrappers.Response:
        """All profiles of a run as CSV: one line per step, one column per timestep or lag."""
        if request.values.get("format", "csv") != "csv":
            raise exceptions.BadRequest("The only supported format is csv.")
        wanted = web.one(request, "run"), web.one(request, "tag")
        (series,) = self._source.series(request, [wanted])
        if isinstance(series, exceptions.HTTPException):
            raise series
        timesteps = series.norms.shape[1]
        letter = "lag" if series.kind.by_lag else "t"

        def lines() -> Iterator[str]:
            yield "step," + ",".join(f"{letter}{t}" for t in range(timesteps)) + "\n"
            for step, vector in zip(series.steps, series.norms.vectors, strict=True):
                written = [f"{norm:.9g}" for norm in vector]
                missing = [""] * (timesteps - len(written))
                row = written[::-1] + missing if series.kind.by_lag else missing + written
                yield f"{step},{','.join(row)}\n"

        # Streamed: a long history is hundreds of megabytes of text.
        name = f"{wanted[0]}_{wanted[1].split('/', 1)[1]}"
        name = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("_.")[-200:]
        disposition = f'attachment; filename="{name}.csv"'
        headers = {"Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"}
        return wrappers.Response(lines(), content_type="text/csv; charset=utf-8", headers=headers)

    def _of_each(
        self,
        request: wrappers.Request,
        content: Callable[[Series], dict[str, Any]],
        sample: bool = False,
    ) -> list[dict[str, Any]]:
        """The content of each `run`; a run without it does not affect the others."""
        wanted = web.of_runs(request, "tag")

        def of(run: str, series: Series | exceptions.HTTPException) -> dict[str, Any]:
            if isinstance(series, exceptions.HTTPException):
                return {"run": run, **web.reason(series)}
            return {"run": run, **content(series)}

        found = self._source.series(request, wanted, sample)
        return [of(run, series) for (run, _), series in zip(wanted, found, strict=True)]


def _one_profile(
    series: Series, step: int, norms: np.ndarray, part: tuple[int, int], points: int
) -> dict[str, Any]:
    window = series.judged_window(step, norms.size)
    inside = norms if window is None else norms[-window:]
    first, last = part
    cells = grid.reduce(norms[None, first:last], 1, points)
    return {
        "step": step,
        "timesteps": norms.size,
        # Each point covers the timesteps from its edge to the next.
        "edges": (cells.column_edges + first).tolist(),
        "norms": (10.0 ** cells.values[0].astype(np.float64)).tolist(),
        "fit": fitted_line(norms, window),
        "window": series.window(step),
        "cuts": series.cuts(step, norms.size),
        **gradient_flow.summarize(norms),
        "decay": gradient_flow.decay_per_step(inside),
        "half_life": gradient_flow.half_life(inside),
    }


def _statistic(layer: str, name: str) -> str:
    """The tag of a statistic as the page names it: of the layer, or `group/name`."""
    group, _, key = name.partition("/")
    if group in layout.GLOBAL and key:
        return layout.statistic_tag(group, key)
    return layout.statistic_tag(layer, name)


def _thinned(values: np.ndarray) -> list[int]:
    """At most `_MAX_POINTS` of the values, evenly spread, with the first and the last."""
    at = np.linspace(0, len(values) - 1, min(len(values), _MAX_POINTS)).astype(int)
    return values[at].tolist()
