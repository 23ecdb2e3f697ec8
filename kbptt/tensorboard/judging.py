"""Verdicts and findings on the runs in the *Gradient flow* tab, from what TensorBoard has read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from werkzeug import exceptions, wrappers

from kbptt.analysis import findings as table, thresholds
from kbptt.analysis.evidence import (
    CLIP_RATE,
    NONFINITE_STEPS,
    OF_HEALTH,
    OPTIMIZER,
    Evidence,
    Last,
    of_run,
)
from kbptt.tensorboard import evidence, layout, web
from kbptt.tensorboard.series import Series
from kbptt.tensorboard.source import Source

_KINDS = (layout.PROFILE, layout.LAGS)


def findings(source: Source, request: wrappers.Request) -> dict[str, Any]:
    """What is wrong with each `run`, all of its layers and its optimizer.

    An argument `threshold`, `NAME=VALUE`, for each bound that differs from the default.

    Returns:
        `thresholds` by name; `rules`, for each the records that it needs; and `runs`, for each the
        findings, and which rules were judged.

    Raises:
        werkzeug.exceptions.BadRequest: If a bound is unknown, no number, or contradicts another.
    """
    bounds = asked_thresholds(request)
    runs, tags = web.several(request, "run"), source.tags(request)
    wanted = [
        (run, tag)
        for run in runs
        for tag, about in tags.get(run, {}).items()
        if about["kind"] in _KINDS
    ]
    series = dict(zip(wanted, source.series(request, wanted), strict=True))
    last = _last_scalars(source, request, runs, tags)
    answers = []
    for run in runs:
        recorded = _evidence(tags.get(run, {}), run, series, last.get(run, {}))
        found = table.find_faults(recorded, bounds)
        judged = table.judged(recorded, bounds)
        answers.append(
            {
                "run": run,
                "findings": [one._asdict() for one in found],
                "judged": [name for name, known in judged.items() if known],
            }
        )
    rules = {name: rule.needs for name, rule in table.RULES.items()}
    return {"thresholds": thresholds.as_dict(bounds), "rules": rules, "runs": answers}


def summary(source: Source, request: wrappers.Request) -> list[dict[str, Any]]:
    """The verdict on each `run` with its `tag`, and the numbers behind it.

    Raises:
        werkzeug.exceptions.BadRequest: As `findings`.
    """
    bounds = asked_thresholds(request)
    wanted = web.of_runs(request, "tag")
    layers = [known[0] if (known := layout.kind_of(tag)) else tag for _, tag in wanted]
    found = source.series(request, wanted)
    # By which the losses of every timestep are judged.
    needed = [
        (run, layout.lag_tag(layer))
        for (run, _), layer, one in zip(wanted, layers, found, strict=True)
        if isinstance(one, Series) and one.per_timestep and not one.kind.by_lag
    ]
    lags = dict(zip(needed, source.series(request, needed) if needed else [], strict=True))
    answers = []
    for (run, _), layer, one in zip(wanted, layers, found, strict=True):
        if isinstance(one, Series):
            answer = _summary(layer, one, lags.get((run, layout.lag_tag(layer))), bounds)
        else:
            answer = web.reason(one)
        answers.append({"run": run, **answer})
    return answers


def _summary(
    layer: str,
    series: Series,
    lags: Series | exceptions.HTTPException | None,
    bounds: thresholds.Thresholds,
) -> dict[str, Any]:
    if series.kind.by_lag:
        recorded = evidence.of_lags(layer, series)
    else:
        recorded = evidence.of_layer(layer, series, _last_lags(lags), {})
    found = series.overview(recorded, bounds)
    steps = _recorded(series)
    # By lag it is the last record that is judged.
    on = _recorded(lags) if found["by_lag"] and isinstance(lags, Series) else steps
    return {
        **found,
        "thresholds": thresholds.of_verdicts(bounds),
        "first_step": on[-found["averaged"]],
        "last_step": on[-1],
        "records": len(series.steps),
        "damaged": series.damaged,
        "window": series.window(steps[-1]),
    }


def _recorded(series: Series) -> list[int]:
    """The steps of the records that are not empty."""
    timed = zip(series.steps.tolist(), series.norms.vectors, strict=True)
    return [step for step, norms in timed if norms.size]


def _last_lags(series: Series | exceptions.HTTPException | None) -> np.ndarray | None:
    """The last gradients by lag, lag 0 first."""
    return series.norms.vectors[-1][::-1] if isinstance(series, Series) else None


def asked_thresholds(request: wrappers.Request) -> thresholds.Thresholds:
    """The bounds that the arguments `threshold` of a request give.

    Raises:
        werkzeug.exceptions.BadRequest: If one is unknown, no number, or contradicts another.
    """
    given = {}
    for text in request.values.getlist("threshold"):
        name, _, value = text.partition("=")
        try:
            given[name] = float(value)
        except ValueError:
            raise exceptions.BadRequest(
                f"The argument 'threshold' must be NAME=NUMBER. Received: {text[:100]!r}."
            ) from None
    try:
        return thresholds.get(given)
    except ValueError as error:
        raise exceptions.BadRequest(str(error)) from error


def _evidence(
    tags: dict[str, dict[str, Any]],
    run: str,
    series: dict[tuple[str, str], Series | exceptions.HTTPException],
    last: Last,
) -> Evidence:
    layers = []
    for tag, about in tags.items():
        found = series.get((run, tag))
        if about["kind"] != layout.PROFILE or not isinstance(found, Series):
            continue
        by_lag = _last_lags(series.get((run, layout.lag_tag(about["layer"]))))
        layers.append(evidence.of_layer(about["layer"], found, by_lag, last))
    return of_run(layers, last)


def _last_scalars(
    source: Source,
    request: wrappers.Request,
    runs: Sequence[str],
    tags: dict[str, dict[str, dict[str, Any]]],
) -> dict[str, dict[tuple[str, str], tuple[int, float]]]:
    """Step and value of the last of the scalars that rules read, by run and (group, name)."""
    layers = {run: {about["layer"] for about in tags.get(run, {}).values()} for run in runs}
    everywhere = sorted(set().union(*layers.values()))
    names = source.statistics(request, everywhere) if everywhere else []
    of_layers = [name for name in names if name.startswith(OF_HEALTH)]
    of_optimizer = [
        name.removeprefix(f"{OPTIMIZER}/")
        for name in names
        if name.startswith(f"{OPTIMIZER}/") and name.endswith((CLIP_RATE, NONFINITE_STEPS))
    ]
    wanted = [
        (run, group, name)
        for run in runs
        for group, name in (
            *((OPTIMIZER, name) for name in of_optimizer),
            *((layer, name) for layer in layers[run] for name in of_layers),
        )
    ]
    asked = [(run, layout.statistic_tag(group, name)) for run, group, name in wanted]
    last: dict[str, dict[tuple[str, str], tuple[int, float]]] = {}
    for (run, group, name), data in zip(wanted, source.scalars(request, asked), strict=True):
        if data and not isinstance(data, web.Unreadable):
            last.setdefault(run, {})[group, name] = data[-1]
    return last
