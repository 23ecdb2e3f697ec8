"""Reads profiles and scalars through TensorBoard's data provider, for the *Gradient flow* tab.

Event files are foreign data. Data that cannot be read raise `web.Unreadable` for their run alone.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
from tensorboard import errors, plugin_util
from tensorboard.data import provider
from tensorboard.plugins.scalar import metadata as scalar_metadata
from werkzeug import exceptions, wrappers

from kbptt.tensorboard import guard, layout, reader
from kbptt.tensorboard.ragged import Ragged
from kbptt.tensorboard.series import Cache, Records, Series
from kbptt.tensorboard.web import Unreadable

# TensorBoard requires a number, and samples at random beyond it.
_EVERYTHING = 2**31 - 1
_MAX_SCALARS = 1000
# The data server is gone or busy: not a fault of the run.
_NOT_THE_RUN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Source:
    """Profiles and scalars of runs.

    Args:
        data: TensorBoard's data provider.
    """

    def __init__(self, data: provider.DataProvider):
        self._data = data
        self._cache = Cache()

    @functools.cached_property
    def _guarded(self) -> provider.DataProvider:
        """The provider for whatever makes arrays."""
        # Not in __init__: an error there would end TensorBoard, and here it is shown in the tab.
        return guard.guard(self._data)

    def tags(self, request: wrappers.Request) -> dict[str, dict[str, dict[str, Any]]]:
        """`{run: {tag: {layer, by_lag, max_step, …}}}`; no tags for a run that cannot be read."""
        listed = _list(self._data, self._data.list_tensors, request, layout.PLUGIN)
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for run, tags in listed.items():
            if tags is None:
                found[run] = {}
                continue
            for tag, series in tags.items():
                by_lag = layout.layer_of(tag, layout.LAGS)
                layer = by_lag or layout.layer_of(tag)
                if layer is not None:
                    found.setdefault(run, {})[tag] = {
                        **layout.parse_content(series.plugin_content),
                        "layer": layer,  # not from the content, where it may be cut
                        "by_lag": by_lag is not None,
                        "max_step": series.max_step,
                    }
        return found

    def series(self, request: wrappers.Request, run: str, tag: str) -> Series:
        """The profiles of a run, with their windows. Raises 404 if it has none, `Unreadable`."""
        by_lag = layout.layer_of(tag, layout.LAGS)
        layer = by_lag or layout.layer_of(tag)
        nothing = exceptions.NotFound(f"Run {run!r} has no profiles {tag!r}.")
        if layer is None:
            raise nothing
        with _reading(run, tag):
            listed = self._listed(request, run, tag)
            if listed is None:
                raise nothing
            key = plugin_util.experiment_id(request.environ), run, tag
            # As text, since NaN times are never equal.
            version = f"{listed.max_step} {listed.max_wall_time}"
            records = self._cache.get(
                key, version, lambda: self._read_records(request, run, tag, by_lag is not None)
            )
            # The lag profiles of `AdaptiveTruncation` record whether its windows overlap.
            lags = listed if by_lag else self._listed(request, run, layout.lag_tag(layer))
        if not records.norms.size:
            if records.damaged:
                raise Unreadable(
                    f"Run {run!r}: none of the {records.damaged} records of {tag!r} is a vector "
                    "of nonnegative norms."
                )
            raise nothing
        return Series(
            records,
            by_lag is not None,
            layout.parse_content(listed.plugin_content),
            self.scalars(request, run, layout.statistic_tag(layer, "truncation")),
            lags is not None and "overlap" in layout.parse_content(lags.plugin_content),
        )

    def _read_records(self, request: wrappers.Request, run: str, tag: str, by_lag: bool) -> Records:
        data = read(self._guarded.read_tensors, _of(request, layout.PLUGIN, run, tag))
        data = data.get(run, {}).get(tag) or ()
        # Of equal steps (a resumed run) the last one.
        found = {datum.step: reader.profile(datum.step, datum.numpy) for datum in data}
        profiles = {step: norms for step, norms in sorted(found.items()) if norms is not None}
        norms = Ragged([norms[::-1] if by_lag else norms for norms in profiles.values()])
        return Records(np.array(list(profiles), np.int64), norms, len(found) - len(profiles))

    def _listed(self, request: wrappers.Request, run: str, tag: str) -> Any:
        return (
            self._data.list_tensors(**_of(request, layout.PLUGIN, run, tag)).get(run, {}).get(tag)
        )

    def statistics(self, request: wrappers.Request, layer: str) -> list[str]:
        """Names of the scalars of a layer and, prefixed by `optimizer/`, of the optimizer."""
        listed = _list(self._data, self._data.list_scalars, request, scalar_metadata.PLUGIN_NAME)
        tags = {tag for of_run in listed.values() for tag in of_run or ()}
        optimizer = layout.statistic_tag("optimizer", "")
        of_layer = layout.statistic_tag(layer, "")
        names = [tag.removeprefix(of_layer) for tag in tags if tag.startswith(of_layer)]
        names += [f"optimizer/{tag[len(optimizer) :]}" for tag in tags if tag.startswith(optimizer)]
        return sorted(names)

    def scalars(self, request: wrappers.Request, run: str, tag: str) -> list[tuple[int, float]]:
        """At most `_MAX_SCALARS` `(step, value)`, sorted; none if there is no such scalar."""
        with _reading(run, tag):
            found = self._guarded.read_scalars(
                **_of(request, scalar_metadata.PLUGIN_NAME, run, tag), downsample=_MAX_SCALARS
            )
            data = found.get(run, {}).get(tag) or ()
            # Of equal steps the last one.
            return sorted({datum.step: float(datum.value) for datum in data}.items())


def read(read_tensors: Callable, arguments: dict[str, Any]) -> Any:
    """All records or, if the reply is larger than TensorBoard allows, as many as fit."""
    records = _EVERYTHING
    while True:
        try:
            return read_tensors(**arguments, downsample=records)
        except grpc.RpcError as error:
            too_large = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            if not too_large or records < 2:
                raise
            records = min(records, 8192) // 2


def _list(
    data: provider.DataProvider, list_series: Callable, request: wrappers.Request, plugin: str
) -> dict[str, dict[str, Any] | None]:
    """`{run: {tag: time series}}` of a plugin, None for a run that cannot be read."""
    experiment = _experiment(request)

    def of(runs: list[str] | None) -> dict[str, dict[str, Any]]:
        chosen = provider.RunTagFilter(runs=runs)
        return list_series(**experiment, plugin_name=plugin, run_tag_filter=chosen)

    with contextlib.suppress(Exception):
        return of(None)
    # A single run that announces series without data makes this fail: ask for each run.
    found: dict[str, dict[str, Any] | None] = {}
    for run in data.list_runs(**experiment):
        try:
            found.update(of([run.run_name]))
        except Exception:
            found[run.run_name] = None
    return found


@contextlib.contextmanager
def _reading(run: str, tag: str) -> Iterator[None]:
    """Turns any error that foreign data cause inside TensorBoard into `Unreadable`."""
    try:
        yield
    except (exceptions.HTTPException, errors.PublicError):
        raise
    except Exception as error:
        if isinstance(error, grpc.RpcError) and error.code() in _NOT_THE_RUN:
            raise
        reason = f"{type(error).__name__}: {error}"[:300]
        raise Unreadable(f"Run {run!r}: {tag!r} cannot be read ({reason}).") from error


def _experiment(request: wrappers.Request) -> dict[str, Any]:
    return {
        "ctx": plugin_util.context(request.environ),
        "experiment_id": plugin_util.experiment_id(request.environ),
    }


def _of(request: wrappers.Request, plugin: str, run: str, tag: str) -> dict[str, Any]:
    # One run and tag at a time: TensorBoard's data server limits a reply to 256 MiB.
    chosen = provider.RunTagFilter(runs=[run], tags=[tag])
    return {**_experiment(request), "plugin_name": plugin, "run_tag_filter": chosen}
