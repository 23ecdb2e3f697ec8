"""One clear sentence where an optional dependency is missing."""

import subprocess
import sys

import pytest

from kbptt._extras import EXTRAS, MissingExtra, optional_imports


def run_without(modules, code):
    """Runs `code` in a process in which `modules` cannot be imported."""
    hide = (
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {list(modules)!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", hide + code], capture_output=True, text=True, timeout=300
    )


ALL = [module for modules in EXTRAS.values() for module in modules]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_error_names_the_extra(extra):
    for module in EXTRAS[extra]:
        sentence = rf"needs '{module}', which is not installed.*pip install 'kbptt\[{extra}\]'"
        with pytest.raises(MissingExtra, match=sentence), optional_imports():
            raise ModuleNotFoundError(name=f"{module}.submodule")


def test_other_missing_modules_keep_their_error():
    with pytest.raises(ModuleNotFoundError) as raised, optional_imports():
        import kbptt.missing  # noqa: F401
    assert raised.type is ModuleNotFoundError
