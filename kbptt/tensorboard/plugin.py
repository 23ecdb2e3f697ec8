"""TensorBoard's *Gradient flow* tab: the server side.

TensorBoard imports this module at its start, so it must import neither Keras nor TensorFlow.
"""

import io
import json
import mimetypes
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import werkzeug
from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.data import provider
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from kbptt.analysis import gradient_flow
from kbptt.tensorboard import grid, layout, reader

STATIC = Path(__file__).parent / "static"

# TensorBoard wants a number, and thins out at random beyond it.
_EVERYTHING = 2**31 - 1
_MAX_CELLS = 1_000_000
_MAX_SUMMARIES = 300


class GradientFlowLoader(base_plugin.TBLoader):
    """Entry point of the group `tensorboard_plugins`."""

    def fix_flags(self, flags: Any) -> None:
        # TensorBoard would keep 10 records per tag of a plugin it does not know; 0 keeps all.
        flags.samples_per_plugin.setdefault(layout.PLUGIN, 0)

    def load(self, context: base_plugin.TBContext) -> "GradientFlowPlugin":
        return GradientFlowPlugin(context)


class GradientFlowPlugin(base_plugin.TBPlugin):
    """Serves the gradient profiles that `kbptt.callbacks.GradientFlow` wrote."""

    plugin_name = layout.PLUGIN

    def __init__(self, context: base_plugin.TBContext):
        self._data = context.data_provider
        self._cache = _Cache()

    def get_plugin_apps(self) -> dict[str, Callable]:
        routes = {
            "/tags": self._tags,
            "/grid": self._grid,
            "/profiles": self._profiles,
            "/summary": self._summary,
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
        """`{run: {tag: {layer, loss, window, …, max_step}}}`."""
        listed = self._data.list_tensors(
            plugin_util.context(request.environ),
            experiment_id=plugin_util.experiment_id(request.environ),
            plugin_name=self.plugin_name,
        )
        return {
            run: {
                tag: {
                    # Content is foreign data: the layer's name comes from the tag.
                    **layout.parse_content(series.plugin_content),
                    "layer": layout.layer_of(tag),
                    "max_step": series.max_step,
                }
                for tag, series in tags.items()
                if layout.layer_of(tag) is not None
            }
            for run, tags in listed.items()
        }

    def _grid(self, request: wrappers.Request) -> bytes:
        """Reduced log10 norms `(records, timesteps)` as float32 after a JSON header.

        Layout: uint32 length of the header, the header padded to a multiple of 4, the values.
        """
        steps, norms = self._series(request, _one(request, "run"))
        rows = _integer(request, "rows", 200, 1, _MAX_CELLS)
        columns = _integer(request, "cols", 200, 1, _MAX_CELLS)
        if rows * columns > _MAX_CELLS:
            raise werkzeug.exceptions.BadRequest(f"More than {_MAX_CELLS} cells were asked for.")
        how = request.args.get("reduce", "mean")
        if how not in ("mean", "max", "min"):
            raise werkzeug.exceptions.BadRequest(f"reduce={how} is none of mean, max, min.")
        first = _integer(request, "t0", 0, 0)
        last = _integer(request, "t1", norms.shape[1], 0)
        chosen = _between(steps, _integer(request, "s0", None), _integer(request, "s1", None))
        part = norms[chosen, first:last]
        if not part.size:
            raise werkzeug.exceptions.NotFound("There is no profile in this range.")
        cells = grid.reduce(part, rows, columns, how)
        finite = np.isfinite(cells.values) & (cells.values != grid.MISSING)
        data = np.ma.getdata(part)[~np.ma.getmaskarray(part)]
        header = {
            "rows": cells.values.shape[0],
            "cols": cells.values.shape[1],
            "step_edges": grid.step_edges(steps[chosen])[cells.row_edges].tolist(),
            "timestep_edges": (cells.column_edges + first).tolist(),
            "timesteps": norms.shape[1],
            "records": part.shape[0],
            "missing": float(grid.MISSING),
            "min": float(cells.values[finite].min()) if finite.any() else None,
            "max": float(cells.values[finite].max()) if finite.any() else None,
            "zero": int((data == 0).sum()),
            "nan": int(np.isnan(data).sum()),
            "inf": int(np.isinf(data).sum()),
        }
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 4)
        return struct.pack("<I", len(encoded)) + encoded + cells.values.astype("<f4").tobytes()

    def _profiles(self, request: wrappers.Request) -> list[dict[str, Any]]:
        """For each `run` the last profile at or before `step`, or its first."""
        wanted = _integer(request, "step", None)
        runs = request.args.getlist("run")
        if not runs:
            raise werkzeug.exceptions.BadRequest("The argument 'run' is missing.")
        profiles = []
        for run in runs:
            steps, norms = self._series(request, run)
            last = len(steps) - 1
            at = (
                last if wanted is None else max(int(np.searchsorted(steps, wanted, "right")) - 1, 0)
            )
            norms = np.ma.compressed(norms[at])
            profiles.append(
                {
                    "run": run,
                    "step": int(steps[at]),
                    "norms": norms.tolist(),
                    **gradient_flow.summarize(norms),
                }
            )
        return profiles

    def _summary(self, request: wrappers.Request) -> dict[str, Any]:
        """Statistics of the run's profiles over training, and the verdict."""
        run, tag = _one(request, "run"), _one(request, "tag")
        steps, norms = self._series(request, run)
        window = self._tags(request)[run][tag].get("window")
        window = window if isinstance(window, int) and window > 0 else None
        word, reason = gradient_flow.verdict(norms, window)
        thinned = np.unique(np.linspace(0, len(steps) - 1, _MAX_SUMMARIES).astype(int))
        table = [gradient_flow.summarize(np.ma.compressed(norms[row])) for row in thinned]
        return {
            "verdict": word,
            "reason": reason,
            "thresholds": {
                "vanishing": gradient_flow.VANISHING,
                "exploding": gradient_flow.EXPLODING,
            },
            "steps": steps[thinned].tolist(),
            "first_step": int(steps[0]),
            "last_step": int(steps[-1]),
            "records": len(steps),
            **{key: [line[key] for line in table] for key in table[0]},
        }

    def _export(self, request: wrappers.Request) -> str:
        """All profiles of a run as CSV: one line per step, one column per timestep."""
        if request.args.get("format", "csv") != "csv":
            raise werkzeug.exceptions.BadRequest("The only format is csv.")
        steps, norms = self._series(request, _one(request, "run"))
        text = io.StringIO()
        text.write("step," + ",".join(f"t{t}" for t in range(norms.shape[1])) + "\n")
        missing = np.ma.getmaskarray(norms)
        for step, row, empty in zip(steps, np.ma.getdata(norms), missing, strict=True):
            cells = ("" if e else f"{v:.9g}" for v, e in zip(row, empty, strict=True))
            text.write(f"{step},{','.join(cells)}\n")
        return text.getvalue()

    # Data.

    def _series(self, request: wrappers.Request, run: str) -> reader.Profiles:
        tag = _one(request, "tag")
        context = plugin_util.context(request.environ)
        experiment = plugin_util.experiment_id(request.environ)

        def load() -> reader.Profiles | None:
            # One run and tag at a time: TensorBoard's data server caps a reply at 256 MiB.
            found = self._data.read_tensors(
                context,
                experiment_id=experiment,
                plugin_name=self.plugin_name,
                downsample=_EVERYTHING,
                run_tag_filter=provider.RunTagFilter(runs=[run], tags=[tag]),
            )
            data = found.get(run, {}).get(tag)
            # Sorted, and of equal steps (a resumed run) the last one.
            profiles = {datum.step: datum.numpy for datum in data or () if datum.numpy.ndim == 1}
            return reader.stack(profiles) if any(len(p) for p in profiles.values()) else None

        series = self._cache.get((experiment, run, tag), load)
        if series is None:
            raise werkzeug.exceptions.NotFound(f"Run {run!r} has no profiles {tag!r}.")
        return series


class _Cache:
    """The series used last, for some seconds: moving a slider must not read all data each time."""

    def __init__(self, size: int = 12, seconds: float = 5.0):
        self._size, self._seconds = size, seconds
        self._entries: dict[Any, tuple[float, Any]] = {}
        self._lock = threading.Lock()  # TensorBoard answers every request in a thread of its own

    def get(self, key: Any, load: Callable[[], Any]) -> Any:
        with self._lock:
            oldest = time.monotonic() - self._seconds
            self._entries = {k: e for k, e in self._entries.items() if e[0] > oldest}
            if key in self._entries:
                return self._entries[key][1]
        value = load()
        with self._lock:
            self._entries[key] = time.monotonic(), value
            while len(self._entries) > self._size:
                del self._entries[next(iter(self._entries))]
        return value


def _answer(route: Callable) -> Callable:
    """Makes a WSGI application of a route that returns JSON, bytes, text or a response."""

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
        if isinstance(content, str):
            attachment = [("Content-Disposition", 'attachment; filename="gradient_flow.csv"')]
            return http_util.Respond(request, content, "text/csv", headers=attachment)
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
