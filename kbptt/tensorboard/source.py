"""Reads profiles and scalars through TensorBoard's data provider, for the *Gradient flow* tab.

Event files are foreign data. What cannot be read costs its run alone, in whose place there is
`web.Unreadable`.
"""

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

import grpc
from tensorboard import errors, plugin_util
from tensorboard.data import provider
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from werkzeug import exceptions, wrappers
from werkzeug.test import create_environ

from kbptt.tensorboard import decode, guard, layout
from kbptt.tensorboard.series import Cache, Records, Series
from kbptt.tensorboard.web import Unreadable

# TensorBoard requires a number, and samples at random beyond it.
_EVERYTHING = 2**31 - 1
# Points of one scalar, and about how many of all that are asked for at once.
_MAX_SCALARS = 1000
_MAX_POINTS = 200_000
# Runs that are read before the page asks for them.
_WARMED = 500
# Records of a sample: as many as a heatmap has columns. All of a long run take a second to read.
_SAMPLE = 400
# The data server is gone or busy: not a fault of the run.
_NOT_THE_RUN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Key = tuple[str, str, str]  # experiment, run, tag
Found = dict[Key, Records | Unreadable]


class Source:
    """Profiles and scalars of runs.

    Args:
        data: TensorBoard's data provider.
    """

    def __init__(self, data: Any):
        # Any: to a type checker the methods of `provider.DataProvider` return nothing.
        self._data = data
        self._cache = Cache()
        self._samples = Cache(2**28)
        self._warmed = False

    @functools.cached_property
    def _guarded(self) -> Any:
        """The provider for whatever makes arrays."""
        # Not in __init__: an error there would end TensorBoard, and here it is shown in the tab.
        return guard.guard(self._data)

    def warm(self) -> None:
        """Starts to read what the page asks for first, in the background; once there are data."""
        if not self._warmed:
            self._warmed = True
            threading.Thread(target=self._warm, name="gradient_flow_warm", daemon=True).start()

    def _warm(self) -> None:
        request = wrappers.Request(create_environ())
        with contextlib.suppress(Exception):  # the page's own requests show what is wrong
            wanted = [
                (run, tag)
                for run, tags in self.tags(request).items()
                for tag, about in tags.items()
                if about["kind"] == layout.PROFILE and about["position"] == 0
            ]
            self.series(request, wanted[:_WARMED], sample=True)
            self._warmed = bool(wanted)

    def tags(self, request: wrappers.Request) -> dict[str, dict[str, dict[str, Any]]]:
        """`{run: {tag: {layer, kind, position, max_step, …}}}`.

        No tags for a run that cannot be read.
        """
        listed = self._list(self._data.list_tensors, request, layout.PLUGIN)
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for run, tags in listed.items():
            known = {tag: kind for tag in tags or () if (kind := layout.kind_of(tag))}
            if known or tags is None:
                found[run] = _described(tags or {}, known)
        return found

    def options(self, request: wrappers.Request) -> dict[str, dict[str, Any]]:
        """`{run: {option: value}}` of the runs and directories that have HParams."""
        listed = self._list(self._data.list_tensors, request, hparams_metadata.PLUGIN_NAME)
        found: dict[str, dict[str, Any]] = {}
        for run, tags in listed.items():
            series = (tags or {}).get(hparams_metadata.SESSION_START_INFO_TAG)
            if series is None:
                continue
            # Foreign content, as all in event files, can raise anything.
            with contextlib.suppress(Exception):
                start = hparams_metadata.parse_session_start_info_plugin_data(series.plugin_content)
                found[run] = {
                    str(name): getattr(value, value.WhichOneof("kind"))
                    for name, value in start.hparams.items()
                    if value.WhichOneof("kind") in ("string_value", "number_value", "bool_value")
                }
        return found

    def order(self, request: wrappers.Request) -> list[str]:
        """All runs in TensorBoard's own order, in which it gives them colours."""
        runs = self._data.list_runs(**_experiment(request))
        return [
            run.run_name
            for run in sorted(runs, key=lambda run: (run.start_time or math.inf, run.run_name))
        ]

    def series(
        self, request: wrappers.Request, wanted: Sequence[tuple[str, str]], sample: bool = False
    ) -> list[Series | exceptions.HTTPException]:
        """The profiles of each `(run, tag)`, with their windows, in that order.

        In place of one that does not exist there is a `NotFound`, and `Unreadable` where its event
        files are damaged.

        Args:
            sample: Boolean. Of runs that have not been read yet, `_SAMPLE` records at random with
                the last one. Defaults to False.
        """
        kinds = {tag: kind for _, tag in wanted if (kind := layout.kind_of(tag)) is not None}
        known = [(run, tag) for run, tag in dict.fromkeys(wanted) if tag in kinds]
        runs = {run for run, _ in known}
        lags = {tag: layout.lag_tag(layer) for tag, (layer, _) in kinds.items()}
        tags = {*lags, *lags.values()}
        listed = self._list(self._data.list_tensors, request, layout.PLUGIN, runs, tags)
        experiment = plugin_util.experiment_id(request.environ)
        versions = {
            # As text, since NaN times are never equal.
            (experiment, run, tag): f"{one.max_step} {one.max_wall_time}"
            for run, tag in known
            if (one := (listed.get(run) or {}).get(tag)) is not None
        }
        found = self._sampled(request, versions) if sample else self._whole(request, versions)
        truncations = [
            (run, layout.statistic_tag(kinds[tag][0], "truncation")) for run, tag in known
        ]
        series: dict[tuple[str, str], Series | exceptions.HTTPException] = {}
        for (run, tag), lengths in zip(known, self.scalars(request, truncations), strict=True):
            described = listed.get(run, {})
            if described is None:
                reason = f"Run {run!r}: its event files declare more data than they contain."
                series[run, tag] = Unreadable(reason)
                continue
            checked = _checked(run, tag, found.get((experiment, run, tag)), lengths)
            if isinstance(checked, exceptions.HTTPException):
                series[run, tag] = checked
                continue
            # The lag profiles of `AdaptiveTruncation` record whether its windows overlap.
            lag = described.get(lags[tag])
            overlap = lag is not None and "overlap" in layout.parse_content(lag.plugin_content)
            content = layout.parse_content(described[tag].plugin_content)
            series[run, tag] = Series(checked[0], kinds[tag][1], content, checked[1], overlap)
        return [
            series.get((run, tag)) or exceptions.NotFound(f"Run {run!r} has no profiles {tag!r}.")
            for run, tag in wanted
        ]

    def _whole(self, request: wrappers.Request, versions: dict[Key, str]) -> Found:
        return self._cache.get(versions, lambda keys: self._read(request, keys))

    def _sampled(self, request: wrappers.Request, versions: dict[Key, str]) -> Found:
        """All records of what has been read, a sample of the others."""
        known = self._cache.known(versions)
        others = {key: version for key, version in versions.items() if key not in known}
        samples = self._samples.get(others, lambda keys: self._read(request, keys, _SAMPLE))
        readable = {key: one for key, one in samples.items() if isinstance(one, Records)}
        self._cache.keep(versions, {key: one for key, one in readable.items() if not one.sampled})
        # A sample without any profile says nothing.
        empty = [key for key, one in readable.items() if one.sampled and not one.norms.size]
        return {**known, **samples, **self._whole(request, {key: versions[key] for key in empty})}

    def _read(self, request: wrappers.Request, keys: list[Key], most: int = _EVERYTHING) -> Found:
        """The records of some keys of the cache, in as few requests as the data server allows."""
        experiment = keys[0][0]
        runs, tags = ({key[at] for key in keys} for at in (1, 2))
        arguments = _of(request, layout.PLUGIN, runs, tags)
        found: Found = {}
        try:
            replies, most = read(self._tensors, arguments, most, split=len(keys) > 1)
        except Exception as error:
            if _not_the_run(error):
                raise
            if len(keys) > 1:
                half = len(keys) // 2
                halves = keys[:half], keys[half:]
                return self._read(request, halves[0], most) | self._read(request, halves[1], most)
            return {keys[0]: _unreadable(keys[0][1], keys[0][2], error)}
        for run, tag, steps, tensors in replies:
            key, kind = (experiment, run, tag), layout.kind_of(tag)
            if key in keys and kind is not None:
                try:
                    found[key] = records = decode.records(steps, tensors, kind[1].by_lag)
                    # Without its data server TensorBoard gives all that it has in memory.
                    records.sampled = len(steps) == most
                except Exception as error:
                    found[key] = _unreadable(run, tag, error)
        return found

    def _tensors(self, **arguments: Any) -> list[Any]:
        return list(guard.tensors(self._data, arguments))

    def statistics(self, request: wrappers.Request, layers: Sequence[str]) -> list[str]:
        """Names of the scalars of these layers and, with the group's name before, of no layer."""
        listed = self._list(self._data.list_scalars, request, scalar_metadata.PLUGIN_NAME)
        names = set()
        prefixes = {layout.statistic_tag(layer, ""): "" for layer in layers}
        prefixes |= {layout.statistic_tag(group, ""): f"{group}/" for group in layout.GLOBAL}
        for tag in {tag for tags in listed.values() for tag in tags or ()}:
            for prefix, shown in prefixes.items():
                if tag.startswith(prefix):
                    names.add(shown + tag.removeprefix(prefix))
        return sorted(names)

    def scalars(
        self, request: wrappers.Request, wanted: Sequence[tuple[str, str]]
    ) -> list[list[tuple[int, float]] | Unreadable]:
        """At most `_MAX_SCALARS` `(step, value)` of each `(run, tag)`, sorted."""
        if not wanted:
            return []
        try:
            found = self._read_scalars(request, wanted)
        except Exception as error:
            if _not_the_run(error):
                raise
            if len(wanted) == 1:
                return [_unreadable(*wanted[0], error)]
            half = len(wanted) // 2
            return self.scalars(request, wanted[:half]) + self.scalars(request, wanted[half:])
        return [found[run, tag] for run, tag in wanted]

    def _read_scalars(
        self, request: wrappers.Request, wanted: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], list[tuple[int, float]]]:
        runs, tags = ({pair[at] for pair in wanted} for at in (0, 1))
        arguments = _of(request, scalar_metadata.PLUGIN_NAME, runs, tags)
        points = max(_MAX_POINTS // len(wanted), 100)
        found = self._guarded.read_scalars(**arguments, downsample=min(points, _MAX_SCALARS))
        series = {}
        for run, tag in wanted:
            data = found.get(run, {}).get(tag) or ()
            # Of equal steps the last one.
            series[run, tag] = sorted({d.step: float(d.value) for d in data}.items())
        return series

    def _list(
        self,
        list_series: Callable,
        request: wrappers.Request,
        plugin: str,
        runs: Collection[str] | None = None,
        tags: Collection[str] | None = None,
    ) -> dict[str, dict[str, Any] | None]:
        """`{run: {tag: time series}}` of a plugin, None for a run that cannot be read."""
        experiment = _experiment(request)

        def of(runs: Collection[str] | None) -> dict[str, dict[str, Any]]:
            chosen = provider.RunTagFilter(runs=runs, tags=tags)
            return list_series(**experiment, plugin_name=plugin, run_tag_filter=chosen)

        try:
            return {**of(runs)}
        except Exception as error:
            if _not_the_run(error):
                raise
        # A single run that announces series without data makes this fail: ask for each run.
        found: dict[str, dict[str, Any] | None] = {}
        for run in runs or [run.run_name for run in self._data.list_runs(**experiment)]:
            try:
                found.update(of([run]))
            except Exception:
                found[run] = None
        return found


def _described(tags: dict[str, Any], known: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the page is told of each tag of a run."""
    fields = {tag: layout.parse_content(tags[tag].plugin_content) for tag in known}
    indices: dict[str, int | None] = {}
    for tag, (layer, _) in known.items():
        index = fields[tag].get("index")
        indices[layer] = indices.get(layer) if index is None else index
    positions = layout.positions(indices)
    return {
        tag: {
            **fields[tag],
            "layer": layer,  # not from the content, where it may be cut
            "kind": kind.name,
            "position": positions[layer],
            "max_step": tags[tag].max_step,
        }
        for tag, (layer, kind) in known.items()
    }


def _checked(
    run: str,
    tag: str,
    records: Records | Unreadable | None,
    lengths: list[tuple[int, float]] | Unreadable,
) -> tuple[Records, list[tuple[int, float]]] | exceptions.HTTPException:
    """What a run is shown from, or why it cannot be."""
    if isinstance(records, Unreadable):
        return records
    if isinstance(lengths, Unreadable):
        return lengths
    if records is None or not (records.norms.size or records.damaged):
        return exceptions.NotFound(f"Run {run!r} has no profiles {tag!r}.")
    if not records.norms.size:
        return Unreadable(
            f"Run {run!r}: none of the {records.damaged} records of {tag!r} is a vector of "
            "nonnegative norms."
        )
    return records, lengths


def read(
    read_tensors: Callable,
    arguments: dict[str, Any],
    records: int = _EVERYTHING,
    split: bool = False,
) -> tuple[Any, int]:
    """At most `records` or, if the reply is larger than TensorBoard allows, as many as fit.

    With `split` such a reply is an error: the caller has fewer runs to ask for.

    Returns:
        The reply, and how many records of each series it holds at most.
    """
    while True:
        try:
            return read_tensors(**arguments, downsample=records), records
        except grpc.RpcError as error:
            too_large = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            if not too_large or records < 2 or split:
                raise
            records = min(records, 8192) // 2


def _not_the_run(error: Exception) -> bool:
    """Whether the data server is gone or busy, or the request refused: no fault of a run."""
    if isinstance(error, grpc.RpcError):
        return error.code() in _NOT_THE_RUN
    return isinstance(error, exceptions.HTTPException | errors.PublicError)


def _unreadable(run: str, tag: str, error: Exception) -> Unreadable:
    reason = f"{type(error).__name__}: {error}"[:300]
    return Unreadable(f"Run {run!r}: {tag!r} cannot be read ({reason}).")


def _experiment(request: wrappers.Request) -> dict[str, Any]:
    return {
        "ctx": plugin_util.context(request.environ),
        "experiment_id": plugin_util.experiment_id(request.environ),
    }


def _of(
    request: wrappers.Request, plugin: str, runs: Collection[str], tags: Collection[str]
) -> dict[str, Any]:
    chosen = provider.RunTagFilter(runs=runs, tags=tags)
    return {**_experiment(request), "plugin_name": plugin, "run_tag_filter": chosen}
