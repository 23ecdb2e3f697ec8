"""The directory of a training run: which run it holds, and files that are complete or absent."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kbptt._locks import try_lock
from kbptt.ablation.files import atomically

LOCK = ".run.lock"
CHECKPOINT = "checkpoint-{}.keras"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other processes from training in an existing directory.

    Raises:
        ValueError: if one does.
    """
    path = directory / LOCK
    while True:
        file = open(path, "a", encoding="utf-8")
        if not try_lock(file):
            file.close()
            raise ValueError(
                f"Another process is training in {directory}. Wait for it, stop it, or choose "
                "a different --logdir."
            )
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()  # the previous holder has just removed it
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def describe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what identifies a run: its options by name, without those of the display."""
    task, model, training = config["task"], config["model"], config["training"]
    optimizer = dict(config["optimizer"])
    name = optimizer.pop("name")
    found = {
        "task": task["name"],
        **{option: str(value) for option, value in task["options"].items()},
        **({"file_sha256": task["file"][:16]} if "file" in task else {}),
        **{option: value for option, value in model.items() if option != "layer"},
        **model["layer"],
        "seed": config["seed"],
        **optimizer,
        "clip": training.get("clip"),
        "batch_size": training["batch_size"],
        "stream": training.get("stream", False),
    }
    if training["checkpoint"] != "last":
        found["checkpoint"] = training["checkpoint"]
    if name != "adam":
        found["optimizer"] = name
    if config["method"]["name"] != "baseline":
        found["method"] = config["method"]["name"]
    return found


def check_configuration(path: Path, config: Mapping[str, Any], resume: bool) -> bool:
    """Returns whether `path` already holds the run described by `config`.

    Raises:
        ValueError: if it holds a different one, or this one and `resume` is not set.
    """
    if not path.exists():
        return False
    if not resume:
        raise ValueError(
            f"{path.parent} already contains a run. Add --resume to continue it, or choose a "
            "different --logdir."
        )
    try:
        before = {"stream": False, **json.loads(path.read_text())}  # not there in older runs
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged. Choose a different --logdir.") from error
    differences = [
        f"{key} was {before.get(key)} and is now {config.get(key)}"
        for key in sorted({*before, *config})
        if before.get(key) != config.get(key)
    ]
    if differences:
        raise ValueError(
            f"The run in {path.parent} has a different configuration: {'; '.join(differences)}. "
            "Use the options that it was started with (--windows, if not on streams), or a "
            "different --logdir."
        )
    return True


def newest_checkpoint(directory: Path) -> tuple[int, Path | None]:
    """Returns the number of finished epochs and the file, or `(0, None)`."""
    before, after = CHECKPOINT.split("{}")
    paths = sorted(directory.glob(f"{before}*{after}"))
    if not paths:
        return 0, None
    return int(paths[-1].name.removeprefix(before).removesuffix(after)), paths[-1]


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write(temporary)` and renames: `path` is complete or absent, whatever happens."""
    try:
        with atomically(path) as temporary:
            write(temporary)
    except OSError as error:
        raise OSError(f"Cannot write {path}: {error.strerror or error}.") from error


def remove_events(directory: Path) -> None:
    """Removes the TensorBoard files of a run that starts again, so that its curves do too."""
    for folder in (directory, directory / "train", directory / "validation"):
        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
