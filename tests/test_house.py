"""The rules of the house: files that can be read in one sitting, and imports without a circle."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILE, FUNCTION = 400, 80
SOURCES = {".py", ".c", ".cpp", ".h", ".hpp", ".js", ".css"}


def sources(*folders):
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SOURCES:
                yield path


def test_no_file_is_too_long():
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources("kbptt", "callbacks", "docs", "scripts", "tests")
    }
    assert {path for path, count in lines.items() if count > FILE} == set()


def test_no_function_is_too_long():
    found = set()
    for path in sources("kbptt", "callbacks", "docs", "scripts"):
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= FUNCTION:
                found.add(f"{path.relative_to(ROOT)}:{node.name}")
    assert found == set()


def modules():
    """Name and path of every module of kbptt."""
    found = {}
    for folder in ("kbptt", "callbacks"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = ("kbptt", *parts) if folder == "callbacks" else parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def lazy_names(path):
    """Name: submodule, of a package that imports its names when they are first used."""
    stub = path.with_suffix(".pyi")
    if path.name != "__init__.py" or not stub.exists():
        return {}
    imports = [n for n in ast.parse(stub.read_text()).body if isinstance(n, ast.ImportFrom)]
    return {alias.name: node.module for node in imports if node.module for alias in node.names}


def imports_when_loaded(tree):
    """Import statements that run when the module does: not in functions, nor for type checkers."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef):
            waiting += ast.iter_child_nodes(node)


def imported(node, files):
    """The modules of kbptt that an import statement needs complete."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in files)
        return
    assert node.level == 0, f"relative import: {ast.unparse(node)}"
    if node.module not in files:
        return
    lazy = lazy_names(files[node.module])
    for alias in node.names:
        module = f"{node.module}.{alias.name}"
        if module in files:
            yield module
        elif alias.name in lazy:
            yield f"{node.module}.{lazy[alias.name]}"
        else:
            yield node.module


def test_imports_have_no_circle():
    files = modules()
    graph = {
        name: {
            module
            for node in imports_when_loaded(ast.parse(path.read_text(encoding="utf-8")))
            for module in imported(node, files)
        }
        for name, path in files.items()
    }
    assert {"kbptt.layers.lstm", "kbptt.layers.gru"} <= graph["kbptt.layers"]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))
