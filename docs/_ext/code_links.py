"""Names in code become links: public objects to the API reference, programs to their source.

Markdown pages and docstrings name objects as `kbptt.callbacks.GradientFlow` or `GradientFlow`; no
page has to write the link. A name that begins with `kbptt.` and does not exist is a warning, which
`make docs` treats as an error.
"""

import importlib
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

logger = logging.getLogger(__name__)
CODE = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)(?:\(.*\))?")
PROGRAM = re.compile(r"(?:python )?(scripts/\w+\.py)\b.*")
# The clips are callbacks and parts of optimizers, of one name: most pages are about callbacks.
PREFERRED = ("kbptt.callbacks.", "kbptt.", "kbptt.optimizers.")


class Missing(Exception):
    """There is no such object."""


def find(path: str) -> Any:
    """The object of a dotted path, imported as far as it is modules."""
    parts = path.split(".")
    found = importlib.import_module(parts[0])
    for place, part in enumerate(parts[1:], 2):
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(parts[:place]))
            except ImportError:
                if isinstance(found, type):
                    return None  # an attribute of instances
                raise Missing(path) from None
    return found


class Names:
    """Where the documented objects are: by full name, by last name, and by identity."""

    def __init__(self, objects: dict[str, Any]) -> None:
        self.places = {name: (entry.docname, entry.node_id) for name, entry in objects.items()}
        self.kinds = {name: entry.objtype for name, entry in objects.items()}
        self.short: dict[str, list[str]] = {}
        self.objects: dict[int, str] = {}
        for name, entry in objects.items():
            if entry.aliased:
                continue
            self.short.setdefault(name.rpartition(".")[2], []).append(name)
            if entry.objtype in {"class", "exception", "function"}:
                self.objects.setdefault(id(find(name)), name)

    def full(self, text: str) -> str | None:
        """The documented name of a text that begins with `kbptt.`."""
        if text in self.places:
            return text
        found = find(text)
        return None if found is None else self.objects.get(id(found))

    def bare(self, text: str, docname: str) -> str | None:
        """The documented name of a class, a method of a class, or a function of the same page."""
        head, _, rest = text.partition(".")
        found = self.short.get(head, [])
        here = [name for name in found if self.places[name][0] == docname]
        if not rest and here and "_" in text and self.kinds[here[0]] == "function":
            return here[0]
        classes = [name for name in found if self.kinds[name] in {"class", "exception"}]
        chosen = [name for name in classes if name in here] or classes
        for package in PREFERRED:
            chosen = [n for n in chosen if n == package + head] or chosen
        if len(chosen) != 1:
            return None
        return (
            f"{chosen[0]}.{rest}"
            if rest and f"{chosen[0]}.{rest}" in self.places
            else (None if rest else chosen[0])
        )


def names_of(app: Sphinx) -> Names:
    objects = app.env.domains.python_domain.objects
    known = getattr(app, "_kbptt_names", None)
    if known is None:
        known = app._kbptt_names = Names(objects)
    return known


def is_linked_already(node: nodes.Node) -> bool:
    parents = (nodes.reference, nodes.term, nodes.title, addnodes.desc_signature)
    while node is not None:
        if isinstance(node, parents):
            return True
        node = node.parent
    return False


def section_of(node: nodes.Node) -> nodes.Node | None:
    while node is not None and not isinstance(node, nodes.section | addnodes.desc):
        node = node.parent
    return node


def link(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    names = names_of(app)
    programs = app.env.get_doctree("programs").nameids if "programs" in app.env.all_docs else {}
    seen = set()
    for literal in list(doctree.findall(nodes.literal)):
        if is_linked_already(literal):
            continue
        text = literal.astext()
        program = PROGRAM.fullmatch(text)
        if program:
            anchor = programs.get(program[1])
            place = ("programs", anchor) if anchor and docname != "programs" else None
            target = program[1]
        else:
            target, place = _object(names, text, docname, literal)
        key = (id(section_of(literal)), target)
        # Once in each section: more would be a page of links.
        if place is None or key in seen:
            continue
        seen.add(key)
        wrapped = make_refnode(app.builder, docname, *place, [literal.deepcopy()], target)
        literal.replace_self(wrapped)


def _object(names: Names, text: str, docname: str, node: nodes.Node) -> tuple[Any, Any]:
    code = CODE.fullmatch(text)
    if not code:
        return None, None
    try:
        own = code[1].startswith("kbptt.")
        target = names.full(code[1]) if own else names.bare(code[1], docname)
    except Missing:
        logger.warning("`%s` does not exist", code[1], location=node, type="kbptt")
        return None, None
    return target, names.places.get(target)


def type_link(app: Sphinx, env, node: addnodes.pending_xref, content: nodes.Element):
    """Types in signatures that are defined in one module and public in another."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("kbptt."):
        return None
    try:
        found = names_of(app).full(target)
    except Missing:
        return None
    if found is None:
        return content  # the type of an attribute, which is not public itself
    place = names_of(app).places[found]
    return make_refnode(app.builder, node["refdoc"], *place, [content], found)


def check(app: Sphinx, env: Any) -> None:
    """Warns of public names that are on no page."""
    names = names_of(app)
    for package in env.domains.python_domain.modules:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", ()):
            path = f"{package}.{name}"
            if path not in names.places and id(getattr(module, name)) not in names.objects:
                logger.warning("%s is public and on no page", path, type="kbptt")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("env-check-consistency", check)
    app.connect("missing-reference", type_link)
    app.connect("doctree-resolved", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
