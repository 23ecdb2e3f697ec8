"""Tasks as parts of a configuration: read once for all the trials that have the same options."""

import functools
import json
from typing import Any, NamedTuple

from kbptt.ablation import options
from kbptt.tasks import registry


class PlannedTask(NamedTuple):
    """A task as part of a configuration, what it says of itself, and whether it has streams."""

    config: dict[str, Any]
    note: str | None
    has_streams: bool


@functools.lru_cache(maxsize=256)
def planned(name: str, given: str) -> PlannedTask:
    """A task by its name and its options (JSON), which are checked."""
    chosen = json.loads(given)
    task = registry.get(name, **chosen)
    digest = task.digest()
    config = {"name": name, "options": chosen} | ({} if digest is None else {"file": digest})
    return PlannedTask(config, task.describe(), task.has_streams)


def training(chosen: dict[str, Any], task: PlannedTask) -> dict[str, Any]:
    """The options of the training: whether on streams is decided, and what came later left out."""
    stream = chosen.get("stream")
    if stream == "auto":
        chosen = chosen | {"stream": task.has_streams}
    elif stream and not task.has_streams:
        raise ValueError(
            f"Task {task.config['name']!r} has no streams, since its sequences are not consecutive "
            "in time. Train it on windows (`--windows`, stream=false), or use stream=auto to train "
            "only the tasks that have streams on streams."
        )
    later = {n: v for (section, n), v in options.LATER.items() if section == "training"}
    return {n: v for n, v in chosen.items() if n not in later or v != later[n]}
