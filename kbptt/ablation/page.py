"""A report as one HTML file, and as part of a notebook."""

import base64
import functools
import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from typing import Any

from kbptt._extras import optional_imports
from kbptt.ablation.sections import Section
from kbptt.ablation.text import visible


def page(report: Any, sections: Sequence[Section]) -> str:
    """The self-contained page: style, script and figures are embedded, everything is escaped.

    Its content security policy admits no script but its own, whatever names and errors contain.
    """
    digest = hashlib.sha256(_file("report.js").encode()).digest()
    return _template("report.html").render(
        report=report,
        sections=sections,
        style=_file("report.css"),
        script=_file("report.js"),
        script_hash=f"sha256-{base64.b64encode(digest).decode()}",
    )


def fragment(report: Any, sections: Sequence[Section]) -> str:
    """The same without head and script, with styles that reach nothing but itself."""
    return _template("report_body.html").render(
        report=report, sections=sections, style=_file("report.css")
    )


@functools.cache
def _file(name: str) -> str:
    folder = importlib.resources.files("kbptt.ablation") / "templates"
    return (folder / name).read_text(encoding="utf-8")


@functools.cache
def _template(name: str) -> Any:
    with optional_imports():
        import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    return environment.get_template(name)


def _unbroken(text: str) -> str:
    """Text whose intervals stay on one line, but for numbers that would not fit on paper."""
    return re.sub(r"(?<=\d), (?=[^ ]{1,8}\])", ",\N{NO-BREAK SPACE}", text)


def _visible(value: Any) -> Any:
    """Text without control characters; what is marked as safe, such as a figure, stays."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
