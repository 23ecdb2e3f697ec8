"""The API reference: public names, the docstrings as Markdown, signatures as they are written.

`public` puts on a page every public name of a package, those of its stub `__init__.pyi`, or of a
module: a table of them, then autodoc's description of each. Docstrings are Markdown with the
sections of Keras (`Args:`, `Returns:`, …), which become field lists.
"""

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.utils import new_document
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SECTIONS = {
    "Args": "Arguments",
    "Call arguments": "Call arguments",
    "Attributes": "Attributes",
    "Returns": "Returns",
    "Raises": "Raises",
    "Warns": "Warns",
    "Example": "Example",
    "Examples": "Example",
    "Reference": "Reference",
}
LISTED = {"Args", "Call arguments", "Attributes", "Raises", "Warns"}
# What Keras calls: documented there, and by the class as a whole.
PLUMBING = re.compile(
    r"build|call|compute_\w+|from_config|get_config|on_(train|test|predict|epoch|batch)\w*"
    r"|set_model|set_params|inner_loop|reset_state|mro"
)


def public_names(module: ModuleType) -> list[str]:
    """The names on the page of a module: what its stub exports, else what it defines."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and (inspect.isclass(value) or inspect.isfunction(value))
            and value.__module__ == module.__name__
        ]
    else:
        names = sorted(names, key=str.lower)
    parent = importlib.import_module(module.__name__.rpartition(".")[0] or module.__name__)
    return [
        name for name in names if not _is_elsewhere(getattr(module, name), name, parent, module)
    ]


def _is_elsewhere(value: Any, name: str, parent: ModuleType, module: ModuleType) -> bool:
    """Whether a name is a module, or stands on the page of the package above."""
    if inspect.ismodule(value):
        return True
    above = parent is not module and name in getattr(parent, "__all__", ())
    return above and getattr(parent, name) is value


def public_class(cls: type) -> str | None:
    """The public name of a class: the shortest path that leads to it, if there is one."""
    parts = cls.__module__.split(".")
    for depth in range(1, len(parts) + 1):
        path = ".".join(parts[:depth])
        if cls.__name__ in getattr(importlib.import_module(path), "__all__", ()):
            return f"{path}.{cls.__name__}"
    return None


def members(cls: type) -> list[str]:
    """Methods and properties to show: kbptt's own, documented, and not called by Keras alone.

    What a public base class has is described there.
    """
    found = []
    for name in dir(cls):
        owner = next((one for one in cls.__mro__ if name in vars(one)), object)
        value = vars(owner).get(name)
        if name.startswith("_") or PLUMBING.fullmatch(name) or inspect.isclass(value):
            continue
        if not owner.__module__.startswith("kbptt") or (owner is not cls and public_class(owner)):
            continue
        function = getattr(value, "fget", getattr(value, "__func__", value))
        if inspect.isfunction(function) and function.__doc__:
            found.append(name)
    return found


def _docstring(value: Any) -> list[str]:
    return (inspect.getdoc(value) or "").split("\n")


def public_bases(cls: type) -> list[str]:
    """The base classes that a reader can look up here or in Keras, as references."""
    found = []
    for base in cls.__bases__:
        if base.__module__.startswith("kbptt"):
            public = public_class(base)
            found += [f":py:class:`{public}`"] if public else public_bases(base)
        elif base.__module__.startswith("keras"):
            found.append(f"``keras.{base.__module__.split('.')[2]}.{base.__name__}``")
    return found


def first_sentence(value: Any) -> str:
    """The summary in a table: the docstring's first line."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return ""
    return _docstring(value)[0].replace("|", "\\|")


class Public(SphinxDirective):
    """Describes the public names of a package or module: all, or those in the content."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        path = self.arguments[0]
        module = importlib.import_module(path)
        names = list(self.content) or public_names(module)
        table = ["| | |", "|---|---|"] if names else []
        about = [] if hasattr(module, "__path__") else as_markdown(_docstring(module))
        blocks = [] if self.content else [f".. py:module:: {path}", ""]
        for name in names:
            value = getattr(module, name)
            table.append(f"| `{path}.{name}` | {first_sentence(value)} |")
            blocks += [*self._described(f"{path}.{name}", value), ""]
        lines = [*about, "", *table, "", "```{eval-rst}", *blocks, "```"]
        return self.parse_text_to_nodes("\n".join(lines))

    def _described(self, path: str, value: Any) -> list[str]:
        if inspect.isclass(value):
            lines = [f".. autoclass:: {path}"]
            if shown := members(value):
                lines.append(f"   :members: {', '.join(shown)}")
            if public_bases(value):
                lines.append("   :show-inheritance:")
            return lines
        if inspect.isroutine(value):
            return [f".. autofunction:: {path}"]
        return [f".. autodata:: {path}", "   :no-value:"]


class Markdown(SphinxDirective):
    """Markdown inside of the reStructuredText that autodoc writes."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        document = new_document(self.content.source(0), self.state.document.settings)
        of_pages = self.env.myst_config
        # A dollar in a docstring is a dollar.
        self.env.myst_config = of_pages.copy(enable_extensions={"deflist", "fieldlist"})
        try:
            MystParser().parse("\n".join(self.content), document)
        finally:
            self.env.myst_config = of_pages
        return document.children


def as_markdown(lines: list[str]) -> list[str]:
    """A docstring in the style of Keras as Markdown with field lists."""
    written: list[str] = []
    section, body = None, []
    for line in [*lines, None]:
        heading = None if line is None else re.match(r"(\w[\w ]*):(?:\s+(.*))?$", line)
        begins = heading is not None and heading[1] in SECTIONS
        ends = line is None or begins or (section and line.strip() and not line.startswith(" "))
        if section and ends and not _continues(section, body, line, begins):
            written += _field(section, body)
            section = None
        if begins:
            section, body = heading[1], [heading[2]] if heading[2] else []
        elif line is not None:
            (body if section else written).append(line)
    return _fenced(written)


def _continues(section: str, body: list[str], line: str | None, begins: bool) -> bool:
    """Examples and references go on without indentation, until there is a new section."""
    return section in {"Example", "Examples", "Reference"} and line is not None and not begins


def _field(section: str, body: list[str]) -> list[str]:
    body = textwrap.dedent("\n".join(body)).strip("\n").split("\n")
    if section in LISTED:
        body = _definitions(body)
    body = _fenced(body)
    return ["", f":{SECTIONS[section]}:", *("  " + line if line else "" for line in body), ""]


def _definitions(body: list[str]) -> list[str]:
    """`name: meaning` as a definition list."""
    written: list[str] = []
    for line in body:
        entry = re.match(r"(\*{0,2}[\w.]+(?:, [\w.]+)*):\s+(.*)$", line)
        if entry:
            written += ["", f"`{entry[1]}`", f": {entry[2]}"]
        else:
            written.append("  " + line.strip() if line.strip() else "")
    return written


def _fenced(lines: list[str]) -> list[str]:
    """Sessions of the interpreter in fences; `::` before an indented block is no Markdown."""
    written: list[str] = []
    inside = False
    for line in lines:
        if not inside and line.lstrip().startswith(">>> "):
            written.append("```pycon")
            inside = True
        elif inside and not line.strip():
            written.append("```")
            inside = False
        written.append(re.sub(r"::$", ":", line) if not inside else line)
    return [*written, "```"] if inside else written


def docstring(app, what, name, obj, options, lines: list[str]) -> None:
    if lines:
        text = as_markdown(lines)
        lines[:] = [".. markdown::", "", *("   " + line for line in text), ""]


def bases(app, name, obj, options, listed: list[Any]) -> None:
    listed[:] = dict.fromkeys(public_bases(obj))


def signature(app, what, name, obj, options, args, returned):
    """The arguments as they are written in the source: aliases of types keep their names."""
    function = obj.__init__ if inspect.isclass(obj) else obj
    function = inspect.unwrap(getattr(function, "__func__", function))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (TypeError, OSError, SyntaxError):
        return args, returned
    if not isinstance(tree, ast.FunctionDef):
        return args, returned
    if inspect.isclass(obj) and not function.__module__.startswith("kbptt"):
        return args, returned
    arguments = tree.args
    if inspect.isclass(obj) or what == "method":
        first = arguments.posonlyargs or arguments.args
        if first and first[0].arg in {"self", "cls"}:
            del first[0]
    returns = ast.unparse(tree.returns) if tree.returns and not inspect.isclass(obj) else None
    return f"({ast.unparse(arguments)})", returns


class Types(SphinxDirective):
    """The aliases of types in the modules of the content, as they are defined."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        found: dict[str, str] = {}
        for module in self.content:
            path = Path(importlib.import_module(module).__file__)
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
                    self.env.note_dependency(str(path))
                    found.setdefault(ast.unparse(node.target), ast.unparse(node.value))
        lines = ["```{eval-rst}"]
        for name, value in sorted(found.items()):
            if not name.startswith("_"):
                lines += [f".. py:type:: {name}", f"   :canonical: {value}", ""]
        return self.parse_text_to_nodes("\n".join([*lines, "```"]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public", Public)
    app.add_directive("types", Types)
    app.add_directive("markdown", Markdown)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-bases", bases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
