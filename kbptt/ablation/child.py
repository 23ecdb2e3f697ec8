"""A process that runs trials, or a user's script: what `kbptt.ablation.supervision` starts.

Started as `python -P child.py`, by its path, it needs nothing but the standard library until the
parent has sent its own `sys.path`. A script that does not use kbptt runs without it.
"""

import ctypes
import importlib.util
import inspect
import json
import multiprocessing.spawn
import os
import pathlib
import pickle
import runpy
import signal
import sys
import traceback
from typing import Any

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main() -> None:
    """Serves trials (no arguments), or runs `SCRIPT ARGUMENT…` or `SCRIPT::FUNCTION JSON`."""
    _end_with_parent(int(os.environ.pop("KBPTT_PARENT")))
    if len(sys.argv) == 1:
        serve()
        return
    path, _, function = sys.argv[1].partition("::")
    sys.path.insert(0, str(pathlib.Path(path).resolve().parent))  # as `python SCRIPT` does
    try:
        if function:
            _call(path, function, json.loads(sys.argv[2]))
        else:
            sys.argv = [path, *sys.argv[2:]]
            runpy.run_path(path, run_name="__main__")
    except Exception as error:
        traceback.print_exception(error.with_traceback(_from(path, error.__traceback__)))
        sys.exit(1)


def serve() -> None:
    """Calls the functions that arrive on standard input; answers on standard output.

    A request is a pickled `(function, arguments)`, an answer a pickled `(value, error)`, one of
    which is None. What the functions print goes to standard error.

    A pickle can run any code. Both pipes are anonymous, and their other ends are the parent's: what
    arrives is only ever from the process that started this one, as the same user.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when this process ends
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    multiprocessing.spawn.prepare(pickle.load(requests))
    while True:
        try:
            function, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = function(*arguments), None
        except BaseException as error:  # the parent raises it
            answer = None, error
        pickle.dump(answer, answers)
        answers.flush()


def _call(path: str, name: str, given: dict[str, Any]) -> None:
    """Calls a function of a script and prints what it returns as a line of JSON.

    Args:
        path: The script, which is imported: its part below `if __name__ == "__main__":` is not run.
        name: The function.
        given: Its keyword arguments: `options`, and `others`, of which it gets those it names.
    """
    sys.argv = [path]  # a parser of arguments at its top level gets none
    module = pathlib.Path(path).stem
    spec: Any = importlib.util.spec_from_file_location(module, path)
    sys.modules[module] = loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    function = getattr(loaded, name)
    parameters = inspect.signature(function).parameters.values()
    names = {p.name for p in parameters}
    every = any(p.kind is p.VAR_KEYWORD for p in parameters)
    others = {n: value for n, value in given["others"].items() if every or n in names}
    found = _plain(function(**others, **given["options"]))
    if found is not None:
        found = found if isinstance(found, dict) else {"score": found}
        print(f"\n{json.dumps(found)}", flush=True)


def _plain(value: Any) -> Any:
    """JSON types for what a function returns: arrays as lists, a History as its metrics."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(getattr(value, "history", None), dict):
        return _plain(value.history)
    for convert in ("tolist", "numpy"):
        if hasattr(value, convert):
            return _plain(getattr(value, convert)())
    return value


def _from(path: str, trace: Any) -> Any:
    """A traceback from the first frame of the script on; None if it has none."""
    own = os.path.abspath(path)  # as an import names the file, while `runpy` takes it as it is
    while trace is not None and os.path.abspath(trace.tb_frame.f_code.co_filename) != own:
        trace = trace.tb_next
    return trace


def _end_with_parent(parent: int) -> None:
    """Has the kernel (Linux's) kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)


if __name__ == "__main__":
    main()
