"""Rows of the ledger: how trials are written, and read again from whatever is stored."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from kbptt.ablation.text import one_line, shown

STATES = ("pending", "running", "done", "failed")
DEEPEST = 64  # levels of a stored value: Python's JSON functions recurse

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
UNREADABLE = "(unreadable)"  # what `Ledger.meta` returns for invalid JSON


@dataclasses.dataclass(frozen=True)
class Trial:
    """One trial: its configuration and what became of it.

    Its `state` is one of `STATES`, or "unreadable" if its row holds something that no run writes:
    then `error` describes it, and `config` is empty if it is the configuration.
    """

    key: str
    config: dict[str, Any]
    directory: str
    state: str = "pending"
    attempts: int = 0
    result: dict[str, Any] | None = None
    error: str | None = None

    @classmethod
    def planned(cls, config: dict[str, Any], directory: str) -> "Trial":
        """A trial that has not run, with its directory below the log directory."""
        return cls(trial_key(config), config, directory)

    def with_seed(self, seed: int) -> "Trial":
        """The same planned trial with a different seed; all but the seed is shared, not copied."""
        folder = self.directory.rpartition("/")[0]
        return self.planned({**self.config, "seed": seed}, f"{folder}/{seed}")


def dump(value: Any) -> str:
    """JSON with sorted keys; NaN and infinities are allowed, other non-JSON values refused."""
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"It holds what JSON cannot: {error}.") from error


def check_depth(text: str) -> None:
    """Refuses JSON nested so deeply that reading or showing it could fail."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    deepest = depth = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        depth += (bracket in "[{") - (bracket in "]}")
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        raise ValueError(f"It is nested {deepest} levels deep; {DEEPEST} are allowed.")


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; non-JSON values, NaN included, are refused."""
    return _CANONICAL.encode(value)


def trial_key(config: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a trial's configuration."""
    return key_of(canonical(config))


def key_of(text: str) -> str:
    """The key of the trial with this canonical JSON."""
    return hashlib.sha256(text.encode()).hexdigest()


def load(text: Any) -> Any:
    """Parses JSON from a ledger; `ValueError` for anything else."""
    if not isinstance(text, str):
        raise ValueError(f"Expected JSON. Received: {shown(text)}.")
    check_depth(text)
    return json.loads(text)


def is_below(directory: Any) -> bool:
    """Whether a trial's directory is a relative path below the log directory."""
    if not isinstance(directory, str) or "\0" in directory:
        return False
    path = pathlib.PurePosixPath(directory)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def read(
    key: Any, config: Any, directory: Any, state: Any, attempts: Any, result: Any, error: Any
) -> Trial:
    """Converts a row to a trial, "unreadable" if no run of kbptt can have written it."""
    error = error if error is None or isinstance(error, str) else shown(error)
    name, found, problems = shown(directory), {}, []
    if not isinstance(key, str):
        problems.append(f"its key is {shown(key)}")
    if is_below(directory):
        name = directory
    else:
        problems.append(f"its directory {shown(directory)} does not stay in the log directory")
    if state not in STATES:
        problems.append(f"its state is {shown(state)}")
    for what, text in (("configuration", config), ("result", result)):
        if what == "result" and state != "done":
            continue
        try:
            found[what] = load(text)
            if not isinstance(found[what], dict):
                problems.append(f"its {what} is {shown(found[what])}, no JSON object")
        except (ValueError, RecursionError) as problem:
            problems.append(f"its {what} is no JSON ({one_line(str(problem))})")
    if problems:
        config = found.get("configuration")
        config = config if isinstance(config, dict) else {}
        return Trial(
            str(key), config, name, "unreadable", error=f"Row of the ledger: {'; '.join(problems)}."
        )
    return Trial(key, found["configuration"], name, state, attempts, found.get("result"), error)
