"""What a Dask worker does: it has a process of its own run one trial at a time."""

import threading
from collections.abc import Callable
from typing import Any

from kbptt.ablation import outcome, script, trial
from kbptt.ablation.errors import TrialError
from kbptt.ablation.supervision import Limits, Server

_one_at_a_time = threading.Lock()
_server: Server | None = None


def execute(config: dict[str, Any], limits: Limits, health: bool = False) -> dict[str, Any]:
    """Runs a trial within its limits; one of kbptt's own logs the health of its network or not.

    Raises:
        TrialError: when the trial crashed, broke a limit, or returned something that is no result.
        ProcessDied: when its process ended before it returned.
    """
    with _one_at_a_time:
        if "script" not in config:
            return _serve(trial.execute, (config, health), limits)
        try:
            return outcome.check(script.run(config, limits))
        except TrialError:
            raise
        except Exception as error:
            failure = TrialError.describing(error)
        raise failure


def check(config: dict[str, Any], limits: Limits) -> int | None:
    """Builds what a trial would train, to find mistakes before anything is trained.

    Returns:
        The number of parameters of the model; None for a user's script or trial function.

    Raises:
        ValueError: for an option, a method or a task that cannot be built.
        TrialError: for anything else that went wrong.
    """
    with _one_at_a_time:
        if "script" in config:
            script.read(config["script"])
            return None
        return _serve(trial.check, (config,), limits)


def _serve(function: Callable[..., Any], arguments: tuple[Any, ...], limits: Limits) -> Any:
    """Calls a function in the process for trials, which is started where there is none."""
    global _server
    if _server is None:
        _server = Server()
    try:
        return _server.call(function, arguments, limits)
    finally:
        if _server.is_used_up():
            close()


def close() -> None:
    """Ends the process for trials, if there is one."""
    global _server
    if _server is not None:
        _server.close()
        _server = None
