"""Validates what a trial returned, in the worker and again when a ledger is read.

Both use the same check, so whatever is stored can be reported. A row of a ledger that fails it
(written by an older version or by hand) is set aside and does not stop the report.
"""

import dataclasses
import itertools
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from kbptt.ablation import arrays
from kbptt.ablation.files import check_names
from kbptt.ablation.rows import Trial, canonical, check_depth, dump
from kbptt.ablation.text import shown

MODES = ("max", "min")


def check(result: Any) -> dict[str, Any]:
    """Returns the result of a trial with Python's own number types, or raises `ValueError`.

    Args:
        result: What a trial function returned: a dict with

            * `status`: String, "diverged" for a run that failed, "ok" for any other;
            * `score`: Real number or NaN; None only if the run diverged;
            * `metric`, `mode`: Name of the score; "max" or "min", which is better;
            * optionally: `baseline`, `perfect`, `success_threshold`, `best_epoch`,
              `validation_score` (numbers), `curve` (lists of numbers by name), `test` and `cost`
              (numbers by name), `clipping` and `gradient` as `kbptt.ablation.trial.run` returns
              them, `environment` (a dict), `files` (bytes by relative path), and anything else that
              JSON can hold.

    Returns:
        A new dict with the same content. `baseline`, `perfect` and `success_threshold` that are NaN
        or infinite become None.

    Raises:
        ValueError: naming the part, what was expected and what was received.
    """
    result = dict(_mapping("result", result))
    for name in ("status", "metric", "mode", "score"):
        if name not in result:
            raise _wrong("result", f"a dict with the key {name!r}", result)
    _expect("status", "a string such as 'ok' or 'diverged'", result["status"], _is_text)
    _expect("metric", "a string", result["metric"], _is_text)
    _expect("mode", "'max' or 'min'", result["mode"], lambda mode: mode in MODES)
    result["score"] = _score(result["score"], result["status"])
    for name, part in _PARTS.items():
        if result.get(name) is not None:
            result[name] = part(name, result[name])
    files = result.pop("files", None)
    check_depth(dump(result))
    return result if files is None else {**result, "files": check_names(files)}


def readable(trial: Trial) -> Trial:
    """The trial of a ledger; in the state "unreadable", with the reason, if it is invalid."""
    try:
        _check_config(trial.config)
    except ValueError as error:
        reason = trial.error if trial.state == "unreadable" else str(error)
        return dataclasses.replace(trial, config={}, state="unreadable", result=None, error=reason)
    try:
        result = check(trial.result) if trial.state == "done" else None
    except ValueError as error:
        return dataclasses.replace(trial, state="unreadable", result=None, error=str(error))
    return dataclasses.replace(trial, result=result)


def _check_config(config: Any) -> None:
    """Refuses a configuration that no plan writes, and that has no label."""
    config = _mapping("config", config)
    for section in ("task", "method", "model", "optimizer", "training"):
        _mapping(f"config.{section}", config.get(section))
    for section in ("task", "method"):
        _expect(f"config.{section}.name", "a string", config[section].get("name"), _is_text)
    _mapping("config.task.options", config["task"].get("options"))
    _mapping("config.model.layer", config["model"].get("layer"))
    definition = _mapping("config.method.definition", config["method"].get("definition"))
    for section in ("layer", "optimizer"):
        _mapping(f"config.method.definition.{section}", definition.get(section))
    if "tuned" in config or "stage" in config:
        _mapping("config.tuned", config.get("tuned"))
    _expect("config.seed", "an integer", config.get("seed"), lambda seed: type(seed) is int)
    canonical(config)


def _score(value: Any, status: str) -> float | None:
    if value is None and status == "diverged":
        return None
    number = _number("score", value) if value is not None else None
    if number is None or math.isinf(number):
        raise _wrong("score", "a real number, finite or NaN (None if the run diverged)", value)
    return float(number)


def _scale(name: str, value: Any) -> float | None:
    number = _number(name, value)
    return number if math.isfinite(number) else None


def _number(name: str, value: Any) -> float | int:
    """Converts a real number of any type to int or float."""
    if type(value) is float:
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except Exception as error:  # an integer beyond float's range; a user's `__float__`
            raise _wrong(name, "a number within the range of a float", value) from error
        return int(value) if isinstance(value, numbers.Integral) else number
    raise _wrong(name, "a real number (`float(…)` of an array with one element)", value)


def _number_or_none(name: str, value: Any) -> float | int | None:
    return None if value is None else _number(name, value)


def _numbers(name: str, values: Any) -> list[float | int]:
    """A list of numbers; None, which some programs write for NaN, becomes NaN."""
    if not isinstance(values, list | tuple):
        raise _wrong(name, "a list of numbers", values)
    if all(type(value) is float for value in values):
        return list(values)
    return [
        math.nan if value is None else _number(f"{name}[{i}]", value)
        for i, value in enumerate(values)
    ]


def _profile(name: str, values: Any) -> list[float | int]:
    _expect(name, "a list of numbers that is not empty", values, bool)
    return _numbers(name, values)


def _record(name: str, value: Any) -> dict[str, Any]:
    """Norms by training step and bin of timesteps: `steps`, `timesteps` and `norms`, encoded."""
    value = dict(_mapping(name, value))
    steps = _numbers(f"{name}.steps", value.get("steps"))
    rising = all(a < b for a, b in itertools.pairwise(steps))
    _expect(f"{name}.steps", "rising finite numbers", steps, lambda s: rising and _all_finite(s))
    timesteps = value.get("timesteps")
    _expect(
        f"{name}.timesteps",
        "a positive integer",
        timesteps,
        lambda t: type(t) is int and 0 < t < 2**53,
    )
    try:
        norms = arrays.decode(value["norms"])
    except Exception as error:
        raise _wrong(f"{name}.norms", "an encoded array", value.get("norms")) from error
    if norms.ndim != 2 or len(norms) != len(steps) or not 0 < norms.shape[1] <= timesteps:
        raise _wrong(
            f"{name}.norms",
            f"an array of {len(steps)} rows and at most {timesteps} columns",
            norms.shape,
        )
    return value


def _each(part: Callable[[str, Any], Any]) -> Callable[[str, Any], dict[str, Any]]:
    """A check of dicts whose values must all pass `part`."""

    def check_all(name: str, values: Any) -> dict[str, Any]:
        return {
            key: part(f"{name}[{shown(key)}]", value)
            for key, value in _mapping(name, values).items()
        }

    return check_all


def _layer(name: str, value: Any) -> dict[str, Any]:
    """The gradient of a layer; figures leave out missing parts."""
    value = dict(_mapping(name, value))
    for key, part in _LAYER.items():
        if key in value:
            value[key] = part(f"{name}.{key}", value[key])
    return value


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(name, "a dict", value)
    for key in value:
        if not isinstance(key, str):
            raise _wrong(name, "a dict with strings as keys", key)
    return value


def _expect(name: str, expected: str, value: Any, valid: Callable[[Any], bool]) -> None:
    try:
        if valid(value):
            return
    except Exception as error:  # comparing an array, or a user's object
        raise _wrong(name, expected, value) from error
    raise _wrong(name, expected, value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _all_finite(values: list[float | int]) -> bool:
    return all(map(math.isfinite, values))


def _wrong(name: str, expected: str, value: Any) -> ValueError:
    return ValueError(
        f"`{name}` of a trial: expected {expected}. "
        f"Received: {shown(value)} (of type {type(value).__name__})."
    )


_LAYER: dict[str, Callable[[str, Any], Any]] = {
    "start": _profile,
    "end": _profile,
    "statistics_start": _each(_number_or_none),
    "statistics_end": _each(_number_or_none),
    "record": _record,
}
_PARTS: dict[str, Callable[[str, Any], Any]] = {
    "baseline": _scale,
    "perfect": _scale,
    "success_threshold": _scale,
    "best_epoch": _number,
    "validation_score": _number,
    "curve": _each(_numbers),
    "test": _each(_number_or_none),
    "cost": _each(_number_or_none),
    "clipping": _each(_each(_number_or_none)),
    "gradient": _each(_layer),
    "environment": _mapping,
}
