"""What the source of a user's script tells before it runs: its functions and its options.

Mistakes in them would otherwise be found by every trial. Only what is certain is refused: options
that are made at run time, or elsewhere, are the script's own business.
"""

import ast
from collections.abc import Iterable, Iterator

from kbptt._checks import did_you_mean

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def check_function(tree: ast.Module, path: str, name: str) -> None:
    """Refuses a function that a script does not have.

    Raises:
        ValueError: with the nearest name.
    """
    found = list(_at_module_level(tree))
    names = {name for node in found for name in _bound(node)}
    if name not in names and not names & {"*", "__getattr__"}:
        known = [node.name for node in found if isinstance(node, _FUNCTIONS)]
        raise ValueError(
            f"The script {path!r} has no function {name!r}{did_you_mean(name, known)}. "
            f"Available: {', '.join(known) or 'none'}."
        )


def check_options(tree: ast.Module, path: str, function: str | None, names: Iterable[str]) -> None:
    """Refuses an option that a script, or one of its functions, does not have.

    Args:
        tree: The script.
        path: Its path.
        function: The function that is called, or None for the script itself.
        names: The options that it is to get.

    Raises:
        ValueError: with the nearest name.
    """
    known = _options(tree) if function is None else _parameters(tree, function)
    if known is None:
        return
    what = f"script {path!r}" if function is None else f"function {function!r} of {path!r}"
    for name in names:
        if not any(_is_spelled(name, one, function is None) for one in known):
            listed = ", ".join(f"--{one}" if function is None else one for one in known)
            raise ValueError(
                f"The {what} has no option {name!r}{did_you_mean(name, known)}. "
                f"Available: {listed or 'none'}."
            )


def _is_spelled(name: str, option: str, typed: bool) -> bool:
    """Whether a name is that of an option, as far as argparse is concerned."""
    if not typed:
        return name == option
    name, option = name.replace("-", "_"), option.replace("-", "_")
    return option.startswith(name) or name == f"no_{option}"  # it may be abbreviated


def _options(tree: ast.Module) -> list[str] | None:
    """The options that a script gives to argparse; None if it may have others."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    added = [call for call in calls if _called(call) == "add_argument"]
    parsers = {
        ast.unparse(call.func.value) for call in added if isinstance(call.func, ast.Attribute)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            if _called(node.value) == "ArgumentParser":
                parsers |= set(map(ast.unparse, node.targets))
    makers = [call for call in calls if _called(call) == "ArgumentParser"]
    elsewhere = any(ast.unparse(given) in parsers for call in calls for given in _given(call))
    more = any(keyword.arg in ("parents", None) for call in makers for keyword in call.keywords)
    partial = any(_called(call) == "parse_known_args" for call in calls)
    words = [
        given.value if isinstance(given, ast.Constant) else None
        for call in added
        for given in call.args
    ]
    if not added or not makers or elsewhere or more or partial or None in words:
        return None
    return [word.removeprefix("--") for word in map(str, words) if word.startswith("--")]


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _parameters(tree: ast.Module, name: str) -> list[str] | None:
    """The parameters of a function; None if it may have others."""
    bound = [node for node in _at_module_level(tree) if name in _bound(node)]
    if len(bound) != 1 or not isinstance(bound[0], _FUNCTIONS) or bound[0].decorator_list:
        return None
    given = bound[0].args
    if given.kwarg:
        return None
    return [argument.arg for argument in (*given.args, *given.kwonlyargs)]


def _at_module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes that are not within a function or a class."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def _bound(node: ast.AST) -> set[str]:
    """The names that a statement or an expression binds, or "*" for any."""
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return {node.id}
    if isinstance(node, ast.Call) and _called(node) in ("exec", "globals", "setattr"):
        return {"*"}
    return set()
