"""The command that repeats an ablation, from the configuration in its ledger."""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from kbptt.ablation.early import TRIAL
from kbptt.ablation.options import show
from kbptt.ablation.values import scalar

# What `Grid.configuration` holds. With anything else the command would not be the whole of it.
_KNOWN = {"tasks", "methods", "seeds", "design", "settings", "axes", "imports", "trial", "files"}
_KNOWN |= {"tuning", "script"}
_TIMES = {"h": 3600, "m": 60, "s": 1}
_SIZES = {"GiB": 2**30, "GB": 10**9, "MiB": 2**20, "MB": 10**6, "B": 1}


def compare_command(
    configuration: Mapping[str, Any],
    methods: Sequence[str],
    logdir: str | os.PathLike[str],
    reference: str | None = None,
    limits: Mapping[str, Any] | None = None,
) -> str | None:
    """`kbptt compare …` with every option that it takes, quoted for a shell.

    Args:
        configuration: From `Grid.configuration`.
        methods: The methods in the order of the grid, which JSON with sorted keys does not keep.
        logdir: The log directory.
        reference: Label of the arm to compare with. Defaults to the baseline.
        limits: `trial_timeout`, `memory_limit`, `retries` and `health`, those that are not the
            defaults.

    Returns:
        The command; None if the configuration is not that of a grid (a damaged ledger).
    """
    if not {"tasks", "seeds"} <= set(configuration) <= _KNOWN:
        return None
    try:
        words = _words(configuration, methods) + _limits(limits or {})
    except (AttributeError, KeyError, TypeError, ValueError):  # a ledger may hold anything
        return None
    words += ["--reference", reference] if reference else []
    return shlex.join([*words, "--logdir", os.fspath(logdir)])


def report_command(
    logdir: str | os.PathLike[str], csv: str | os.PathLike[str], reference: str | None = None
) -> str:
    """`kbptt report …` on the scores in a CSV file, quoted for a shell."""
    words = ["kbptt", "report", os.fspath(logdir), "--csv", os.fspath(csv)]
    return shlex.join([*words, *(["--reference", reference] if reference else [])])


def _words(configuration: Mapping[str, Any], methods: Sequence[str]) -> list[str]:
    """The command without what is about one run."""
    design, trial = configuration.get("design", "grid"), configuration.get("trial", TRIAL)
    seeds = configuration["seeds"]
    counted = seeds == list(range(len(seeds)))
    listed = str(len(seeds)) if counted else ",".join(map(str, seeds))
    # A number alone is a count; with a comma it is a list of one seed.
    listed += "," if len(seeds) == 1 and not counted else ""
    script, tuning = configuration.get("script"), configuration.get("tuning")
    words = ["kbptt", "compare", *(_script(script) if script else [])]
    own = [script["name"]] if script else None  # that of all trials, where none was given
    if configuration["tasks"] != own:
        words += ["--tasks", ",".join(configuration["tasks"])]
    if list(methods) != own:
        words += ["--methods", ",".join(_named(design, list(methods)))]
    if design != "grid":
        words += ["--design", design]
    words += ["--seeds", listed]
    chosen = {name: [value] for name, value in configuration.get("settings", {}).items()}
    if script:
        words += ["--threads", str(chosen.pop("threads")[0])]
    for name, values in {**chosen, **configuration.get("axes", {})}.items():
        words += ["--set", f"{name}={','.join(_typed(name, value) for value in values)}"]
    words += _tuning(tuning) if tuning else []
    for module in configuration.get("imports", []):
        words += ["--import", module]
    if trial != TRIAL and not script:
        words += ["--trial", trial]
    return words


def _limits(limits: Mapping[str, Any]) -> list[str]:
    """The arguments of the limits of a trial."""
    words = []
    if "trial_timeout" in limits:
        words += ["--trial-timeout", _sized(limits["trial_timeout"], _TIMES)]
    if "memory_limit" in limits:
        size = limits["memory_limit"]
        words += ["--memory-limit", size if size == "auto" else _sized(size, _SIZES)]
    if "retries" in limits:
        words += ["--retries", f"{limits['retries']:d}"]
    if limits.get("health"):
        words += ["--health"]
    return words


def _sized(amount: float, units: Mapping[str, int]) -> str:
    """An amount in the first unit of which it is a multiple."""
    for unit, size in units.items():
        if amount % size == 0:
            return f"{int(amount // size)}{unit}"
    return f"{amount!r}{list(units)[-1]}"


def _script(script: Mapping[str, Any]) -> list[str]:
    """The arguments of a script of the user's own, besides its options."""
    function = f":{script['function']}" if script["function"] else ""
    words = ["--script", f"{script['path']}{function}"]
    for name in ("metric", "mode"):
        words += [f"--{name}", script[name]] if script[name] else []
    return words


def _tuning(tuning: Mapping[str, Any]) -> list[str]:
    """The arguments of a tuning."""
    words = []
    for name, given in tuning["space"].items():
        if isinstance(given, list):
            typed = ",".join(_typed(name, value) for value in given)
        else:
            kind = int if given["integer"] else float
            bounds = {end: kind(given[end]) for end in ("low", "high")}
            typed = json.dumps({**bounds, "log": given["log"]})
        words += ["--tune", f"{name}={typed}"]
    words += ["--trials", str(tuning["trials"]), "--tuning-seeds", str(len(tuning["seeds"]))]
    return [*words, "--sampler", tuning["sampler"]]


def _named(design: str, methods: list[str]) -> list[str]:
    """The methods as they were named, from those that a design made of them."""
    if design == "add-one-in":
        return [name for name in methods if name != "baseline"]
    if design == "leave-one-out":  # all of them combined, then all but each
        combined, *rest = (name.split("+") for name in methods)
        return ["+".join(part for part in combined if part not in names) for names in rest]
    return methods


def _typed(name: str, value: Any) -> str:
    """A value as it is typed in `NAME=VALUE`."""
    if value is None:
        return "full" if name == "truncation" else show(value)
    if (
        isinstance(value, str)
        and re.fullmatch(r"[^\s,'\"\[\]{}]+", value)
        and scalar(value) == value
    ):
        return value
    return json.dumps(value, ensure_ascii=False)
