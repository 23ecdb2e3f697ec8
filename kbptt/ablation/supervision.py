"""Watches the process that a trial runs in, and ends it when the trial breaks a limit.

The worker's own process only watches. So it survives whatever a trial does to its process (end it,
fill the memory, stop it, hang with every signal blocked), and knows why that one ended. This holds
on any cluster, because nothing but the worker's machine takes part.
"""

import contextlib
import multiprocessing.spawn
import os
import pathlib
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kbptt._extras import optional_imports
from kbptt.ablation import child
from kbptt.ablation.errors import ProcessDied, TrialError
from kbptt.ablation.text import duration

with optional_imports():
    import psutil

# TensorFlow leaks about 10 to 20 MiB for every model that a process trains. A new process costs a
# few seconds, so one that is still small after this many trials is kept.
TRIALS_PER_PROCESS = 50
LARGE_PROCESS = 2**30  # bytes
LOOK_SECONDS = 0.2  # between two looks at the memory of a trial


class Limits(NamedTuple):
    """What a trial may take; `None` is no limit.

    Args:
        seconds: Number, while it runs: waiting for a worker does not count.
        memory: Integer, bytes of resident memory of its process and all that it starts.
    """

    seconds: float | None = None
    memory: int | None = None


def start(*arguments: str, environment: Mapping[str, str] = os.environ, **options: Any) -> Any:
    """Starts `kbptt.ablation.child`; it ends when this process does."""
    environment = {**environment, "KBPTT_PARENT": str(os.getpid())}
    command = [sys.executable, "-P", str(pathlib.Path(child.__file__)), *arguments]
    # A session of its own: Ctrl-C in the worker's terminal does not reach it, and what it leaves
    # behind can be found.
    return subprocess.Popen(command, env=environment, start_new_session=True, **options)


def watch(process: "subprocess.Popen[Any]", limits: Limits, ended: Callable[[float], bool]) -> None:
    """Waits until `ended`; a process that breaks a limit is killed, with all that it started.

    Args:
        process: From `start`.
        limits: The limits.
        ended: Function that waits at most that many seconds for the end, and tells if it came.

    Raises:
        TrialError: which limit it was; final, because the same trial would break it again.
    """
    started = time.monotonic()
    while True:
        left = LOOK_SECONDS
        if limits.seconds is not None:
            left = min(left, max(0.0, started + limits.seconds - time.monotonic()))
        if ended(left):
            return
        if limits.seconds is not None and time.monotonic() - started >= limits.seconds:
            kill(process)
            raise TrialError(
                f"It was still running at the time limit of {duration(limits.seconds)}.", final=True
            )
        if limits.memory is not None and (used := memory_of(process)) > limits.memory:
            from dask.utils import format_bytes  # all of Dask takes a while to load

            kill(process)
            sizes = f"{format_bytes(used)} of memory; the limit is {format_bytes(limits.memory)}"
            raise TrialError(f"It used {sizes}.", final=True)


def kill(process: "subprocess.Popen[Any]") -> None:
    """Kills a process and all that it started, also what is stopped or outlived it."""
    _kill_tree(process.pid)
    process.wait()


def kill_trials(worker: int) -> None:
    """Kills what a worker runs: it is free at once.

    Args:
        worker: The number of its process.
    """
    with contextlib.suppress(psutil.Error):
        for one in psutil.Process(worker).children():
            if str(pathlib.Path(child.__file__)) in one.cmdline():
                _kill_tree(one.pid)


def memory_of(process: "subprocess.Popen[Any]") -> int:
    """Resident bytes of a process and all that it started."""
    total = 0
    for one in _tree(process.pid):
        with contextlib.suppress(psutil.Error):
            total += one.memory_info().rss
    return total


def how_it_ended(process: "subprocess.Popen[Any]") -> str:
    """The end of a process, as the end of a sentence."""
    code = process.wait()
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"
    return f"was killed by signal {-code}"


def _kill_tree(pid: int) -> None:
    for one in _tree(pid):
        with contextlib.suppress(psutil.Error):
            one.kill()
    if hasattr(os, "killpg"):  # not on Windows
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


def _tree(pid: int) -> "list[psutil.Process]":
    try:
        root = psutil.Process(pid)
        return [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return []


class Server:
    """A process that runs one trial after the other."""

    def __init__(self) -> None:
        # The planning process has shown the tasks' warnings; others would not name their trial.
        quiet = {} if sys.warnoptions else {"PYTHONWARNINGS": "ignore"}
        # What it writes there is removed with it: a process that is killed cannot clean up.
        self._scratch = tempfile.TemporaryDirectory(prefix="kbptt-")
        self._process = start(
            environment={**os.environ, **quiet, "TMPDIR": self._scratch.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._calls = 0
        threading.Thread(target=self._read, daemon=True).start()
        # As for a process of multiprocessing, which a daemon (Dask's workers are) cannot start.
        preparation = multiprocessing.spawn.get_preparation_data("kbptt-trials")
        del preparation["authkey"]  # refuses to be pickled
        self._send(preparation)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def is_used_up(self) -> bool:
        """Whether the next trial had better have a new process."""
        if self._calls < TRIALS_PER_PROCESS:
            return not self.is_alive()
        return memory_of(self._process) >= LARGE_PROCESS

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], limits: Limits) -> Any:
        """Returns what the function returned there, or raises what it raised."""
        self._calls += 1
        answer: Any = None

        def ended(seconds: float) -> bool:
            nonlocal answer
            with contextlib.suppress(queue.Empty):
                answer = self._answers.get(timeout=seconds)
                return True
            # Its own processes may still hold the pipe.
            return not self.is_alive() and self._answers.empty()

        self._send((function, arguments))
        watch(self._process, limits, ended)
        if answer is None:
            raise ProcessDied(f"Its process {how_it_ended(self._process)}.")
        value, error = answer
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        kill(self._process)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(OSError):
            self._scratch.cleanup()

    def _send(self, value: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # `call` says how it died
            pickle.dump(value, self._process.stdin)
            self._process.stdin.flush()

    def _read(self) -> None:
        """Forwards the answers; None when there will be no more.

        A pickle can run any code. These come through an anonymous pipe whose other end only the
        process from `__init__` has (and what it forks): the user's own code, as the same user.
        """
        answer: Any = ()
        with self._process.stdout as pipe:
            while answer is not None:
                try:
                    answer = pickle.load(pipe)
                except Exception:  # the end, or an answer that was cut off
                    answer = None
                self._answers.put(answer)
