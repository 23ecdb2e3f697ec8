"""Requests to the *Gradient flow* tab: checked arguments, and answers as WSGI applications."""

import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tensorboard.backend import http_util
from werkzeug import exceptions, wrappers

MAX_RUNS = 1000  # in one request

METHODS = ("GET", "HEAD", "POST")

_Default = TypeVar("_Default", bound=int | None)


class Unreadable(exceptions.UnprocessableEntity):
    """The event files of a run cannot be shown: 422, with the reason."""


def one(request: wrappers.Request, name: str) -> str:
    """The required argument `name`."""
    return several(request, name)[0]


def several(request: wrappers.Request, name: str) -> list[str]:
    """The values of the required argument `name`: at most `MAX_RUNS`."""
    found = request.values.getlist(name)
    if not found:
        raise exceptions.BadRequest(f"The argument {name!r} is missing.")
    if len(found) > MAX_RUNS:
        raise exceptions.BadRequest(
            f"The argument {name!r} was given {len(found)} times. At most {MAX_RUNS} are allowed."
        )
    return found


def of_runs(request: wrappers.Request, name: str) -> list[tuple[str, str]]:
    """Each `run` with its argument `name`, which may be given once for all."""
    runs, values = several(request, "run"), several(request, name)
    if len(values) not in (1, len(runs)):
        raise exceptions.BadRequest(
            f"The argument {name!r} must be given once, or once for each of the {len(runs)} runs. "
            f"Received: {len(values)} of them."
        )
    return list(zip(runs, values * len(runs) if len(values) == 1 else values, strict=True))


def integer(
    request: wrappers.Request,
    name: str,
    default: _Default,
    lowest: int = -(2**62),
    highest: int = 2**62,
) -> int | _Default:
    """The argument `name`, an integer between two bounds."""
    text = request.values.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not lowest <= value <= highest:
        raise exceptions.BadRequest(
            f"The argument {name!r} must be a whole number between {lowest} and {highest}. "
            f"Received: {text[:100]!r}."
        )
    return value


def sample(request: wrappers.Request) -> bool:
    """Whether some of the records will do for now: the argument `sample`, 1 or 0."""
    return bool(integer(request, "sample", 0, 0, 1))


def part(request: wrappers.Request, timesteps: int) -> tuple[int, int]:
    """First timestep of the requested part, and the one after the last.

    Requested by timesteps (`t0`, `t1`) or by lags (`l0`, `l1`), which match across runs of
    different lengths.
    """
    first = integer(request, "t0", timesteps - integer(request, "l1", timesteps, 0), 0)
    last = integer(request, "t1", timesteps - integer(request, "l0", 0, 0), 0)
    last = min(max(last, 0), timesteps)
    return min(max(first, 0), last), last


def reason(error: exceptions.HTTPException) -> dict[str, str]:
    """Why there is nothing to show of a run: `unreadable`, or `missing` if nothing was written."""
    kind = "unreadable" if isinstance(error, Unreadable) else "missing"
    return {kind: error.description or ""}


def answer(route: Callable) -> Callable:
    """The WSGI application of a route that returns JSON, bytes or a response."""

    @wrappers.Request.application
    def application(request):
        try:
            # POST only because many runs are too long for an address.
            if request.method not in METHODS:
                raise exceptions.MethodNotAllowed(METHODS)
            content = route(request)
        except exceptions.HTTPException as error:
            return http_util.Respond(request, error.description, "text/plain", code=error.code)
        if isinstance(content, bytes):
            return http_util.Respond(request, content, "application/octet-stream")
        if isinstance(content, wrappers.Response):
            return content
        return http_util.Respond(request, content, "application/json")

    return application


def serve(file: Path) -> Callable:
    """The WSGI application that serves a file of the page."""

    def static(request):
        kind = mimetypes.types_map.get(file.suffix, "text/plain")
        kind = "text/javascript" if file.suffix == ".js" else kind
        return http_util.Respond(request, file.read_bytes(), kind)

    return static
