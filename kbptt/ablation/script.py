"""A user's training script as a trial: how it gets its options, and where its score comes from.

The script runs as `python SCRIPT --OPTION VALUE … --seed SEED` in a process of its own, or one of
its functions is called. Its last line of JSON on standard output, or what the function returns,
holds the metrics. It need not know kbptt; one that does can ask for `kbptt.ablation.current()`.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kbptt.ablation import environment
from kbptt.ablation.errors import TrialError
from kbptt.ablation.supervision import Limits, how_it_ended, kill, start, watch
from kbptt.ablation.text import one_line

VARIABLE = "KBPTT_TRIAL"  # of the environment: the trial as JSON
LOG_DIR = "KBPTT_LOG_DIR"
OUTPUT = 2**20  # bytes of the end of each output that are kept
TAIL = 600  # characters of it in the sentence of a failure
# What libraries read the number of their threads from.
THREADS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
# Parts of a metric's name, and which direction is better.
SMALLER = "loss error err mse mae rmse nll perplexity ppl bits nats bpc wer cer regret cost"
LARGER = "accuracy acc auc f1 precision recall score reward return r2 bleu skill"
_DECLARED = ("baseline", "perfect", "success_threshold", "best_epoch")


@dataclasses.dataclass(frozen=True)
class Current:
    """The trial that runs a script, returned by `kbptt.ablation.current`.

    Attributes:
        options: The options of the trial by name, with their original types.
        seed: The seed, or `None` outside a comparison.
        method: The method, or `None` if there is none.
        task: The task, or `None` if there is none.
        log_dir: The directory for TensorBoard files, which are copied to the study's log directory,
            or `None` outside a comparison.
    """

    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    method: str | None = None
    task: str | None = None
    log_dir: str | None = None


def current() -> Current:
    """Returns the trial of `kbptt compare --script` that runs this script; otherwise an empty one.

    Example:

    ```python
    trial = kbptt.ablation.current()
    flow = kbptt.callbacks.GradientFlow(trial.log_dir or "runs/first")
    ```
    """
    return Current(**json.loads(os.environ.get(VARIABLE, "{}")))


def direction(metric: str) -> str | None:
    """ "max" or "min", by the words in a metric's name; None if they do not tell."""
    words = re.split(r"[^a-z0-9]+", metric.lower())
    found = {
        mode
        for mode, known in (("min", SMALLER), ("max", LARGER))
        if set(words) & set(known.split())
    }
    return found.pop() if len(found) == 1 else None


def digest(content: bytes) -> str:
    """SHA-256 of a script, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read(script: Mapping[str, Any]) -> str:
    """The source of a script, which must be the one that the study was planned with.

    Args:
        script: `config["script"]` of a trial.

    Raises:
        TrialError: if it is missing or different.
    """
    path = script["path"]
    try:
        content = pathlib.Path(path).expanduser().read_bytes()
    except OSError as error:
        raise TrialError(
            f"Cannot read the script {path!r} in {os.getcwd()!r} on this machine: "
            f"{error.strerror}. The workers of a cluster need it under the same name.",
            final=True,
        ) from None
    if digest(content) != script["digest"]:
        raise TrialError(
            f"{path} is not the script with which the study was planned: it has changed, or this "
            "machine has a different one.",
            final=True,
        )
    return content.decode("utf-8", "replace")


def run(config: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Runs the script of a trial and returns the result of the trial.

    Raises:
        TrialError: when it ended with an error or without a score, or broke a limit; with the last
            lines that it wrote.
    """
    script, started = config["script"], time.perf_counter()
    source = read(script)
    with tempfile.TemporaryDirectory(prefix="kbptt-script-") as scratch:
        logs = pathlib.Path(scratch, "logs")
        logs.mkdir()
        paths = {name: pathlib.Path(scratch, f"{name}.txt") for name in ("stdout", "stderr")}
        trial = {name: script[name] for name in ("options", "method", "task")}
        trial |= {"seed": config["seed"], "log_dir": str(logs)}
        with open(paths["stdout"], "wb") as stdout, open(paths["stderr"], "wb") as stderr:
            process = start(
                *_arguments(script, trial, source),
                environment=_environment(trial, config["training"]["threads"]),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
            try:
                watch(process, limits, lambda seconds: _has_ended(process, seconds))
            except TrialError as error:
                raise _with_output(error, paths) from None
            finally:
                kill(process)  # and what it left running
        if process.returncode:
            # The script refused its arguments, as it would again.
            misused = process.returncode == 2 and "usage:" in _end(paths["stderr"]).lower()
            error = TrialError(f"{script['path']} {how_it_ended(process)}.", final=misused)
            raise _with_output(error, paths)
        try:
            found = last_object(_end(paths["stdout"]))
            result = result_of(found, script["metric"], script["mode"])
        except TrialError as error:
            raise _with_output(error, paths) from None
        files = {p.relative_to(logs).as_posix(): p.read_bytes() for p in _files(logs)}
        files |= {p.name: end.encode() for p in paths.values() if (end := _end(p))}
    return {
        **result,
        "cost": {"seconds": time.perf_counter() - started},
        "environment": {**environment.machine(), "threads": config["training"]["threads"]},
        "files": files,
    }


def last_object(output: str) -> dict[str, Any]:
    """The last line of an output that is a JSON object.

    Raises:
        TrialError: if none is.
    """
    for line in reversed(output.splitlines()):
        if line.strip().startswith("{"):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                return found
    raise TrialError(
        "The script reported no metrics. Expected a JSON object as a line of its output, such as "
        'print(json.dumps({"val_accuracy": 0.9})), or a function that returns one.',
        final=True,
    )


def result_of(found: Mapping[str, Any], metric: str | None, mode: str | None) -> dict[str, Any]:
    """The result of a trial from the metrics that a script reported.

    Args:
        found: Numbers by name. A list is a curve by epoch, whose last number counts; under
            `"curve"` are more curves. `baseline`, `perfect`, `success_threshold` and `best_epoch`
            are those of a result.
        metric: The name of the score; default: `"score"` if reported, else the first number.
        mode: "max", "min" or None, by the name.
    """
    curves = {name: list(value) for name, value in found.items() if _is_curve(value)}
    numbers = {n: v for n, v in found.items() if _is_number(v) and n not in _DECLARED}
    numbers |= {name: values[-1] for name, values in curves.items()}
    named = [name for name in found if name in numbers]  # in the order of the script
    if metric is None:
        metric = "score" if "score" in named else next(iter(named), None)
    if metric is None or not named:
        raise TrialError("The script reported no number.", final=True)
    if metric not in numbers:
        raise TrialError(
            f"The script did not report the metric {metric!r}, but {', '.join(named)}.", final=True
        )
    mode = mode or direction(metric)
    if mode is None:
        raise TrialError(
            f"It is not clear whether a larger {metric!r} is better. Add --mode max or --mode min.",
            final=True,
        )
    score = float(numbers[metric])
    sound = math.isfinite(score) and found.get("status", "ok") != "diverged"
    if metric in curves:
        curves["validation"] = curves[metric]  # what the report draws
    more = found.get("curve")
    return {
        **{name: found[name] for name in _DECLARED if _is_number(found.get(name))},
        "status": "ok" if sound else "diverged",
        "metric": metric,
        "mode": mode,
        "score": score if sound else None,
        "curve": {**curves, **(more if isinstance(more, Mapping) else {})},
        "test": {name: float(value) for name, value in numbers.items()},
    }


def flag(name: str, source: str) -> str | None:
    """An option as a script spells it: with "_" or "-"; None if its source has neither."""
    for spelled in dict.fromkeys((name, name.replace("_", "-"), name.replace("-", "_"))):
        if re.search(rf"--{re.escape(spelled)}(?![\w-])", source):
            return f"--{spelled}"
    return None


def _arguments(script: Mapping[str, Any], trial: Mapping[str, Any], source: str) -> list[str]:
    """The arguments of `kbptt.ablation.child`."""
    path = str(pathlib.Path(script["path"]).expanduser())
    if script["function"]:
        others = {name: trial[name] for name in ("seed", "method", "task", "log_dir")}
        given = {"options": trial["options"], "others": others}
        return [f"{path}::{script['function']}", json.dumps(given)]
    given = dict(sorted(trial["options"].items()))
    given |= {name: trial[name] for name in ("method", "task", "seed")}
    arguments = [path]
    for name, value in given.items():
        arguments += typed(flag(name, source) or f"--{name}", value)
    for name in ("log_dir", "logdir"):
        if name not in given and (spelled := flag(name, source)):
            arguments += [spelled, trial["log_dir"]]
    return arguments


def typed(option: str, value: Any) -> list[str]:
    """An option as arguments: `true` is the option alone, `false` and `none` leave it out."""
    if value is None or value is False:
        return []
    if value is True:
        return [option]
    values = value if isinstance(value, list) else [value]
    return [option, *(v if isinstance(v, str) else json.dumps(v) for v in values)]


def _environment(trial: Mapping[str, Any], threads: int) -> dict[str, str]:
    return {
        **os.environ,
        **dict.fromkeys(THREADS, str(threads)),
        "PYTHONUNBUFFERED": "1",  # the last lines of a script that is killed
        VARIABLE: json.dumps(trial),
        LOG_DIR: trial["log_dir"],
    }


def _has_ended(process: "subprocess.Popen[Any]", seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _with_output(error: TrialError, paths: Mapping[str, pathlib.Path]) -> TrialError:
    """The error with the last lines of what the script wrote, the very last one first."""
    for name in ("stderr", "stdout"):
        lines = [one_line(line) for line in _end(paths[name]).splitlines() if line.strip("^~ ")]
        if lines:
            *before, last = (line[:TAIL] for line in lines)
            message = f"{error} The last line of its {name}: {last}"
            if before:
                message += f" … after: {_shortened(' ↵ '.join(before))}"
            return TrialError(message, error.disk_full, error.final)
    return error


def _shortened(text: str) -> str:
    """The end of an output; of a long traceback the beginning too, where the script's line is."""
    if len(text) <= TAIL:
        return text
    first = text.rfind("Traceback (most recent call last)")
    if 0 <= first < len(text) - TAIL:
        return f"{text[first : first + TAIL // 2]} … {text[-TAIL // 2 :]}"
    return f"…{text[-TAIL:]}"


def _end(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - OUTPUT))
        return file.read().decode("utf-8", "replace")


def _files(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_curve(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(map(_is_number, value))
