"""Names and arguments of Keras's and kbptt's classes, read from their source.

Importing Keras takes seconds; an unknown name in a command should not. What cannot be read this way
is left to the check in `kbptt.ablation.building`, where the class itself is at hand.
"""

import ast
import functools
import importlib.machinery
import pathlib
from collections.abc import Iterator
from typing import Any

# Helpers in Keras's packages of initializers, activations and the like.
_HELPERS = {"deserialize", "get", "serialize"}

# Classes of any other package are mixins without arguments: of TensorFlow, of Python.
_READ = ("keras", "kbptt")


class Unreadable(Exception):
    """The source is not where it is expected, or not as it is expected."""


@functools.cache
def public_names(module: str) -> tuple[str, ...]:
    """Names that a package of Keras imports for its users, in the order of its source.

    Raises:
        Unreadable: If there is no such package.
    """
    imports = (node for node in _tree(module).body if isinstance(node, ast.ImportFrom))
    names = (alias.asname or alias.name for node in imports for alias in node.names)
    return tuple(dict.fromkeys(name for name in names if name not in _HELPERS))


@functools.cache
def keys(module: str, table: str) -> tuple[str, ...]:
    """The keys of a dict of names in a module of kbptt, such as `NAMES`.

    Raises:
        Unreadable: If there is no such dict.
    """
    for node in _tree(module).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Dict):
            continue
        if ast.unparse(node.targets[0]) == table:
            return tuple(ast.literal_eval(key) for key in node.value.keys if key is not None)
    raise Unreadable(f"{module}.{table}")


@functools.cache
def arguments(module: str, name: str) -> dict[str, Any]:
    """Arguments of a class and its bases, with the default of the most derived.

    Args:
        module: Where the class is defined, or imported.
        name: The name of the class there.

    Returns:
        Dict from the argument's name to its default; `...` for one that is computed or missing.

    Raises:
        Unreadable: If the class or one of its bases is not found.
    """
    if module.partition(".")[0] not in _READ:
        return {}
    tree = _tree(module)
    for node in _statements(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            found: dict[str, Any] = {}
            for base in reversed(node.bases):
                found |= _of_base(module, tree, base)
            return found | _own(node)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return arguments(str(node.module), alias.name)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            for_users = node.value.orelse if isinstance(node.value, ast.IfExp) else node.value
            return _of_base(module, tree, for_users)  # if not TYPE_CHECKING
    raise Unreadable(f"{module}.{name}")


def _of_base(module: str, tree: ast.Module, base: ast.expr) -> dict[str, Any]:
    written = ast.unparse(base)
    if written == "object":
        return {}
    package, _, name = written.rpartition(".")
    if not package:
        return arguments(module, name)
    root, _, rest = package.partition(".")
    return arguments(".".join(filter(None, (_imported_as(tree, root), rest))), name)


def _imported_as(tree: ast.Module, name: str) -> str:
    """The module that a name in a tree stands for."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    package = getattr(node, "module", None)
                    return f"{package}.{alias.name}" if package else alias.name
    raise Unreadable(name)


def _own(node: ast.ClassDef) -> dict[str, Any]:
    """The arguments of `__init__`, if the class defines it."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            given = part.args
            positional = [*given.posonlyargs, *given.args][1:]
            missing: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
            defaults = [*missing, *given.defaults, *given.kw_defaults]
            names = (a.arg for a in (*positional, *given.kwonlyargs))
            return {name: _value(d) for name, d in zip(names, defaults, strict=True)}
    return {}


def _value(default: ast.expr | None) -> Any:
    if default is None:
        return ...
    try:
        return ast.literal_eval(default)
    except ValueError:
        return ...


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements of a module and of its branches: a base may depend on the backend."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.If):
            waiting += [*node.body, *node.orelse]
        else:
            yield node


@functools.cache
def _tree(module: str) -> ast.Module:
    """The syntax tree of a module, which is not imported."""
    package, *parts = module.split(".")
    # Not `importlib.util.find_spec`, which kbptt takes for the beginning of Keras's import.
    spec = importlib.machinery.PathFinder.find_spec(package)
    if spec is None or spec.origin is None:
        raise Unreadable(module)
    path = pathlib.Path(spec.origin).parent.joinpath(*parts)
    try:
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise Unreadable(module) from error
