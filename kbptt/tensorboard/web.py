"""Requests to the *Gradient flow* tab: arguments, checked, and answers, as WSGI applications."""

import mimetypes
from collections.abc import Callable
from pathlib import Path

import werkzeug
from tensorboard.backend import http_util
from werkzeug import wrappers

MAX_RUNS = 50


class Unreadable(werkzeug.exceptions.UnprocessableEntity):
    """What a run's event files hold cannot be shown: 422, with a sentence that says why."""


def one(request: wrappers.Request, name: str) -> str:
    """The argument `name`, which has to be there."""
    value = request.args.get(name)
    if value is None:
        raise werkzeug.exceptions.BadRequest(f"The argument {name!r} is missing.")
    return value


def runs(request: wrappers.Request) -> list[str]:
    """The arguments `run`: at least one, and not more than `MAX_RUNS`."""
    found = request.args.getlist("run")
    if not found:
        raise werkzeug.exceptions.BadRequest("The argument 'run' is missing.")
    if len(found) > MAX_RUNS:
        raise werkzeug.exceptions.BadRequest(f"More than {MAX_RUNS} runs were asked for.")
    return found


def integer(
    request: wrappers.Request,
    name: str,
    default: int | None,
    lowest: int = -(2**62),
    highest: int = 2**62,
) -> int | None:
    """The argument `name` as a whole number between two bounds."""
    text = request.args.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not lowest <= value <= highest:
        raise werkzeug.exceptions.BadRequest(
            f"The argument {name!r} must be a whole number between {lowest} and {highest}. "
            f"Received: {text[:100]!r}."
        )
    return value


def answer(route: Callable) -> Callable:
    """Makes a WSGI application of a route that returns JSON, bytes or a response."""

    @wrappers.Request.application
    def application(request):
        try:
            if request.method not in ("GET", "HEAD"):
                raise werkzeug.exceptions.MethodNotAllowed(["GET", "HEAD"])
            content = route(request)
        except werkzeug.exceptions.HTTPException as error:
            return http_util.Respond(request, error.description, "text/plain", code=error.code)
        if isinstance(content, bytes):
            return http_util.Respond(request, content, "application/octet-stream")
        if isinstance(content, wrappers.Response):
            return content
        return http_util.Respond(request, content, "application/json")

    return application


def serve(file: Path) -> Callable:
    """Makes a WSGI application of a file that belongs to the page."""

    def static(request):
        kind = mimetypes.types_map.get(file.suffix, "text/plain")
        kind = "text/javascript" if file.suffix == ".js" else kind
        return http_util.Respond(request, file.read_bytes(), kind)

    return static
