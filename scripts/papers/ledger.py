"""The results so far, one line of JSON for each trial: what a killed run continues from."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from papers.part import Parameters


class Trial(NamedTuple):
    """A training run: of a part, with these parameters and this seed."""

    part: str
    seed: int
    digest: str  # of the parameters


def digest(parameters: Parameters) -> str:
    """Names the parameters of a trial: with others, it is a different trial."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]


class Ledger:
    """A file of results that only ever grows.

    A line is written in one piece and flushed to the disk before the next trial starts. What a
    killed process leaves of its last line is no JSON and does not count.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[Trial, dict[str, Any]]:
        """All results, with the seconds that each took; of two results of a trial the later."""
        found = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            trial = Trial(entry["part"], entry["seed"], entry["parameters"])
            found[trial] = entry["result"] | {"seconds": entry["seconds"]}
        return found

    def append(self, trial: Trial, setting: str, result: Mapping[str, Any]) -> None:
        """Adds a result with its "seconds". The name of the setting is for who reads the file."""
        values = dict(result)
        entry = {"part": trial.part, "setting": setting, "seed": trial.seed}
        entry |= {"parameters": trial.digest, "seconds": values.pop("seconds"), "result": values}
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, f"{chr(10) * torn}{json.dumps(entry)}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)
