"""TensorBoard's *Gradient flow* tab: the server side.

TensorBoard imports this module at its start, so it must import neither Keras nor TensorFlow.
"""

import json
import mimetypes
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import werkzeug
from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.data import provider
from tensorboard.plugins import base_plugin
from tensorboard.plugins.scalar import metadata as scalar_metadata
from werkzeug import wrappers

from kbptt.analysis import gradient_flow
from kbptt.tensorboard import grid, layout, reader
from kbptt.tensorboard.series import Cache, Series, fitted_line, pieces

STATIC = Path(__file__).parent / "static"

# TensorBoard wants a number, and thins out at random beyond it.
_EVERYTHING = 2**31 - 1
# Bounds of an answer's size, whatever was logged.
_MAX_CELLS = 1_000_000
_MAX_POINTS = 1000
_MAX_RUNS = 50


class GradientFlowLoader(base_plugin.TBLoader):
    """Entry point of the group `tensorboard_plugins`."""

    def fix_flags(self, flags: Any) -> None:
        # TensorBoard would keep 10 records per tag of a plugin it does not know; 0 keeps all.
        flags.samples_per_plugin.setdefault(layout.PLUGIN, 0)

    def load(self, context: base_plugin.TBContext) -> "GradientFlowPlugin":
        return GradientFlowPlugin(context)


class GradientFlowPlugin(base_plugin.TBPlugin):
    """Serves what `GradientFlow` and `AdaptiveTruncation` wrote.

    A series is one tensor per training step, norms by timestep or by lag. In here lag 0, like the
    last timestep, is the last column: what is said of profiles holds for both.
    """

    plugin_name = layout.PLUGIN

    def __init__(self, context: base_plugin.TBContext):
        self._data = context.data_provider
        self._cache = Cache()

    def get_plugin_apps(self) -> dict[str, Callable]:
        routes = {
            "/tags": self._tags,
            "/grid": self._grid,
            "/profiles": self._profiles,
            "/summary": self._summary,
            "/statistics": self._statistics,
            "/trends": self._trends,
            "/export": self._export,
        }
        for file in STATIC.iterdir():
            if file.suffix in (".js", ".css"):
                routes[f"/{file.name}"] = _serve(file)
        return {path: _answer(route) for path, route in routes.items()}

    def is_active(self) -> bool:
        return False  # TensorBoard itself sees that there are data of this plugin

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Gradient flow")

    # Routes.

    def _tags(self, request: wrappers.Request) -> dict[str, dict[str, dict[str, Any]]]:
        """`{run: {tag: {layer, by_lag, loss, window, …, max_step}}}`."""
        listed = self._data.list_tensors(**self._experiment(request), plugin_name=self.plugin_name)
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for run, tags in listed.items():
            for tag, series in tags.items():
                by_lag = layout.layer_of(tag, layout.LAGS)
                layer = by_lag or layout.layer_of(tag)
                if layer is not None:
                    # Content is foreign data: the layer's name comes from the tag.
                    found.setdefault(run, {})[tag] = {
                        **layout.parse_content(series.plugin_content),
                        "layer": layer,
                        "by_lag": by_lag is not None,
                        "max_step": series.max_step,
                    }
        return found

    def _grid(self, request: wrappers.Request) -> bytes:
        """Reduced log10 norms `(records, timesteps)` as float32 after a JSON header.

        Layout: uint32 length of the header, the header padded to a multiple of 4, the values.
        """
        series = self._one_series(request)
        steps, norms = series.steps, series.norms
        rows = _integer(request, "rows", 200, 1, _MAX_CELLS)
        columns = _integer(request, "cols", 200, 1, _MAX_CELLS)
        if rows * columns > _MAX_CELLS:
            raise werkzeug.exceptions.BadRequest(f"More than {_MAX_CELLS} cells were asked for.")
        how = request.args.get("reduce", "mean")
        if how not in ("mean", "max", "min"):
            raise werkzeug.exceptions.BadRequest(f"reduce={how} is none of mean, max, min.")
        timesteps = norms.shape[1]
        # A part is given by its timesteps or, which tells more of runs that differ in length, lags.
        first = _integer(request, "t0", timesteps - _integer(request, "l1", timesteps, 0), 0)
        last = _integer(request, "t1", timesteps - _integer(request, "l0", 0, 0), 0)
        chosen = _between(steps, _integer(request, "s0", None), _integer(request, "s1", None))
        part = norms[chosen, max(first, 0) : max(last, 0)]
        if not part.size:
            raise werkzeug.exceptions.NotFound("There is no profile in this range.")
        cells = grid.reduce(part, rows, columns, how)
        finite = np.isfinite(cells.values) & (cells.values != grid.MISSING)
        data = np.ma.getdata(part)[~np.ma.getmaskarray(part)]
        recorded = steps[chosen]
        header = {
            "rows": cells.values.shape[0],
            "cols": cells.values.shape[1],
            "first_steps": recorded[cells.row_edges[:-1]].tolist(),
            "last_steps": recorded[cells.row_edges[1:] - 1].tolist(),
            "step_edges": grid.step_edges(recorded)[cells.row_edges].tolist(),
            "timestep_edges": (cells.column_edges + max(first, 0)).tolist(),
            "timesteps": timesteps,
            "records": part.shape[0],
            "missing": float(grid.MISSING),
            "min": float(cells.values[finite].min()) if finite.any() else None,
            "max": float(cells.values[finite].max()) if finite.any() else None,
            "zero": int((data == 0).sum()),
            "nan": int(np.isnan(data).sum()),
            "inf": int(np.isinf(data).sum()),
            "cuts": pieces(series, recorded[cells.row_edges[:-1]]),
        }
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 4)
        return struct.pack("<I", len(encoded)) + encoded + cells.values.astype("<f4").tobytes()

    def _profiles(self, request: wrappers.Request) -> list[dict[str, Any]]:
        """For each `run` the last profile at or before `step`, or its first."""
        wanted = _integer(request, "step", None)
        return [self._profile(request, run, wanted) for run in _runs(request)]

    def _profile(self, request: wrappers.Request, run: str, wanted: int | None) -> dict[str, Any]:
        series = self._series(request, run)
        steps = series.steps
        last = len(steps) - 1
        at = last if wanted is None else max(int(np.searchsorted(steps, wanted, "right")) - 1, 0)
        norms = np.ma.compressed(series.norms[at])
        points = grid.reduce(norms[None], 1, _MAX_POINTS)
        step = int(steps[at])
        return {
            "run": run,
            "step": step,
            "timesteps": norms.size,
            # Each point stands for the timesteps from its edge to the next.
            "edges": points.column_edges.tolist(),
            "norms": (10.0 ** points.values[0].astype(np.float64)).tolist(),
            "fit": fitted_line(norms),
            "window": series.window(step),
            "cuts": series.cuts(step, norms.size),
            **gradient_flow.summarize(norms),
        }

    def _summary(self, request: wrappers.Request) -> dict[str, Any]:
        """The verdict on a run, and the numbers of its last profile."""
        series = self._one_series(request)
        steps, norms = series.steps, series.norms
        window = series.window(int(steps[-1]))
        # By lag nothing is cut: it is measured with full BPTT.
        word, reason = gradient_flow.verdict(norms, None if series.by_lag else window)
        return {
            "verdict": word,
            "reason": reason,
            "thresholds": {
                "vanishing": gradient_flow.VANISHING,
                "exploding": gradient_flow.EXPLODING,
            },
            "steps": _thinned(steps).tolist(),
            "last_step": int(steps[-1]),
            "records": len(steps),
            "window": window,
            **gradient_flow.summarize(np.ma.compressed(norms[-1])),
        }

    def _statistics(self, request: wrappers.Request) -> list[str]:
        """Names of the scalars of a layer and, with `optimizer/` before them, of the optimizer."""
        listed = self._data.list_scalars(
            **self._experiment(request), plugin_name=scalar_metadata.PLUGIN_NAME
        )
        tags = {tag for of_run in listed.values() for tag in of_run}
        optimizer = layout.statistic_tag("optimizer", "")
        of_layer = layout.statistic_tag(_one(request, "layer"), "")
        names = [tag.removeprefix(of_layer) for tag in tags if tag.startswith(of_layer)]
        names += [f"optimizer/{tag[len(optimizer) :]}" for tag in tags if tag.startswith(optimizer)]
        return sorted(names)

    def _trends(self, request: wrappers.Request) -> list[dict[str, Any]]:
        """For each `run` the scalar `name` of a layer, or of the optimizer, over training."""
        layer, name = _one(request, "layer"), _one(request, "name")
        group, _, key = name.rpartition("/") if name.startswith("optimizer/") else (layer, "", name)
        return [
            {"run": run, "steps": [d[0] for d in data], "values": [d[1] for d in data]}
            for run in _runs(request)
            for data in [self._scalars(request, run, layout.statistic_tag(group, key))]
        ]

    def _export(self, request: wrappers.Request) -> wrappers.Response:
        """All profiles of a run as CSV: one line per step, one column per timestep or lag."""
        if request.args.get("format", "csv") != "csv":
            raise werkzeug.exceptions.BadRequest("The only format is csv.")
        series = self._one_series(request)
        steps, norms, letter = series.steps, series.norms, "t"
        if series.by_lag:
            norms, letter = norms[:, ::-1], "lag"

        def lines() -> Iterator[str]:
            yield "step," + ",".join(f"{letter}{t}" for t in range(norms.shape[1])) + "\n"
            for step, row in zip(steps, norms, strict=True):
                missing = np.ma.getmaskarray(row)
                pairs = zip(np.ma.getdata(row), missing, strict=True)
                yield f"{step}," + ",".join("" if m else f"{v:.9g}" for v, m in pairs) + "\n"

        # Line by line: a long history takes hundreds of megabytes as text.
        name = f"{_one(request, 'run')}_{_one(request, 'tag').split('/', 1)[1]}"
        name = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("_.")
        disposition = f'attachment; filename="{name}.csv"'
        headers = {"Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"}
        return wrappers.Response(lines(), content_type="text/csv; charset=utf-8", headers=headers)

    # Data.

    def _experiment(self, request: wrappers.Request) -> dict[str, Any]:
        return {
            "ctx": plugin_util.context(request.environ),
            "experiment_id": plugin_util.experiment_id(request.environ),
        }

    def _one_series(self, request: wrappers.Request) -> Series:
        return self._series(request, _one(request, "run"))

    def _series(self, request: wrappers.Request, run: str) -> Series:
        tag = _one(request, "tag")
        by_lag = layout.layer_of(tag, layout.LAGS)
        layer = by_lag or layout.layer_of(tag)
        listed = None if layer is None else self._listed(request, run, tag)
        if listed is None:
            raise werkzeug.exceptions.NotFound(f"Run {run!r} has no profiles {tag!r}.")

        def load() -> reader.Profiles:
            data = _read(self._data.read_tensors, self._of(request, run, tag))
            data = data.get(run, {}).get(tag) or ()
            # Sorted, and of equal steps (a resumed run) the last one.
            vectors = {datum.step: datum.numpy for datum in data if datum.numpy.ndim == 1}
            return reader.stack({s: v[::-1] for s, v in vectors.items()} if by_lag else vectors)

        key = plugin_util.experiment_id(request.environ), run, tag
        version = listed.max_step, listed.max_wall_time
        steps, norms = self._cache.get(key, version, load)
        if not norms.size:
            raise werkzeug.exceptions.NotFound(f"Run {run!r} has no profiles {tag!r}.")
        # `AdaptiveTruncation` tells with the lag profiles whether its windows overlap.
        lags = listed if by_lag else self._listed(request, run, layout.lag_tag(layer))
        return Series(
            steps,
            norms,
            by_lag is not None,
            layout.parse_content(listed.plugin_content),
            self._scalars(request, run, layout.statistic_tag(layer, "truncation")),
            lags is not None and bool(layout.parse_content(lags.plugin_content).get("overlap")),
        )

    def _of(self, request: wrappers.Request, run: str, tag: str) -> dict[str, Any]:
        # One run and tag at a time: TensorBoard's data server caps a reply at 256 MiB.
        chosen = provider.RunTagFilter(runs=[run], tags=[tag])
        experiment = self._experiment(request)
        return {**experiment, "plugin_name": self.plugin_name, "run_tag_filter": chosen}

    def _listed(self, request: wrappers.Request, run: str, tag: str) -> Any:
        return self._data.list_tensors(**self._of(request, run, tag)).get(run, {}).get(tag)

    def _scalars(self, request: wrappers.Request, run: str, tag: str) -> list[tuple[int, float]]:
        """At most `_MAX_POINTS` `(step, value)`, sorted; none if there is no such scalar."""
        found = self._data.read_scalars(
            **self._experiment(request),
            plugin_name=scalar_metadata.PLUGIN_NAME,
            downsample=_MAX_POINTS,
            run_tag_filter=provider.RunTagFilter(runs=[run], tags=[tag]),
        )
        data = found.get(run, {}).get(tag) or ()
        # Of equal steps the last one.
        return sorted({datum.step: float(datum.value) for datum in data}.items())


def _thinned(values: np.ndarray) -> np.ndarray:
    at = np.linspace(0, len(values) - 1, min(len(values), _MAX_POINTS)).astype(int)
    return values[at]


def _read(read_tensors: Callable, arguments: dict[str, Any]) -> Any:
    """All records or, where a reply is larger than TensorBoard allows, as many as come through."""
    records = _EVERYTHING
    while True:
        try:
            return read_tensors(**arguments, downsample=records)
        except grpc.RpcError as error:
            too_large = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            if not too_large or records < 2:
                raise
            records = min(records, 8192) // 2


def _answer(route: Callable) -> Callable:
    """Makes a WSGI application of a route that returns JSON, bytes or a response."""

    @wrappers.Request.application
    def application(request):
        try:
            if request.method not in ("GET", "HEAD"):
                raise werkzeug.exceptions.MethodNotAllowed(["GET", "HEAD"])
            content = route(request)
        except werkzeug.exceptions.HTTPException as error:
            return http_util.Respond(request, error.description, "text/plain", code=error.code)
        if isinstance(content, bytes):
            return http_util.Respond(request, content, "application/octet-stream")
        if isinstance(content, wrappers.Response):
            return content
        return http_util.Respond(request, content, "application/json")

    return application


def _serve(file: Path) -> Callable:
    def static(request):
        kind = mimetypes.types_map.get(file.suffix, "text/plain")
        kind = "text/javascript" if file.suffix == ".js" else kind
        return http_util.Respond(request, file.read_bytes(), kind)

    return static


def _one(request: wrappers.Request, name: str) -> str:
    value = request.args.get(name)
    if value is None:
        raise werkzeug.exceptions.BadRequest(f"The argument {name!r} is missing.")
    return value


def _runs(request: wrappers.Request) -> list[str]:
    runs = request.args.getlist("run")
    if not runs:
        raise werkzeug.exceptions.BadRequest("The argument 'run' is missing.")
    if len(runs) > _MAX_RUNS:
        raise werkzeug.exceptions.BadRequest(f"More than {_MAX_RUNS} runs were asked for.")
    return runs


def _integer(
    request: wrappers.Request,
    name: str,
    default: int | None,
    lowest: int = -(2**62),
    highest: int = 2**62,
) -> int | None:
    text = request.args.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not lowest <= value <= highest:
        raise werkzeug.exceptions.BadRequest(
            f"The argument {name!r} must be a whole number between {lowest} and {highest}. "
            f"Received: {text!r}."
        )
    return value


def _between(steps: np.ndarray, first: int | None, last: int | None) -> slice:
    start = 0 if first is None else int(np.searchsorted(steps, first, "left"))
    stop = len(steps) if last is None else int(np.searchsorted(steps, last, "right"))
    return slice(start, stop)
