"""Requests to the *Gradient flow* tab: checked arguments, and answers as WSGI applications."""

import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tensorboard.backend import http_util
from werkzeug import exceptions, wrappers

MAX_RUNS = 50

_Default = TypeVar("_Default", bound=int | None)


class Unreadable(exceptions.UnprocessableEntity):
    """The event files of a run cannot be shown: 422, with the reason."""


def one(request: wrappers.Request, name: str) -> str:
    """The required argument `name`."""
    value = request.args.get(name)
    if value is None:
        raise exceptions.BadRequest(f"The argument {name!r} is missing.")
    return value


def runs(request: wrappers.Request) -> list[str]:
    """The arguments `run`: one to `MAX_RUNS`."""
    found = request.args.getlist("run")
    if not found:
        raise exceptions.BadRequest("The argument 'run' is missing.")
    if len(found) > MAX_RUNS:
        raise exceptions.BadRequest(f"More than {MAX_RUNS} runs were asked for.")
    return found


def integer(
    request: wrappers.Request,
    name: str,
    default: _Default,
    lowest: int = -(2**62),
    highest: int = 2**62,
) -> int | _Default:
    """The argument `name`, an integer between two bounds."""
    text = request.args.get(name)
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


def answer(route: Callable) -> Callable:
    """The WSGI application of a route that returns JSON, bytes or a response."""

    @wrappers.Request.application
    def application(request):
        try:
            if request.method not in ("GET", "HEAD"):
                raise exceptions.MethodNotAllowed(["GET", "HEAD"])
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
