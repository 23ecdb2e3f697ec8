"""Every Python block of README and docs runs: each page from top to bottom, in one namespace."""

import re
from pathlib import Path

import keras
import pytest

from kbptt import methods
from kbptt.tasks import registry

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])


def python_blocks(page):
    """The ```python blocks as one program whose line numbers are those of the page."""
    lines, program, inside = page.read_text(encoding="utf-8").splitlines(), [], False
    for line in lines:
        if inside and line.strip() == "```":
            inside = False
        program.append(line if inside else "")
        if line.strip() == "```python":
            inside = True
    assert not inside, f"{page.name}: a block is not closed"
    return "\n".join(program)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page, tmp_path, monkeypatch):
    program = python_blocks(page)
    if not program.strip():
        pytest.skip("no Python on this page")
    monkeypatch.chdir(tmp_path)
    # What a page registers is forgotten after it.
    monkeypatch.setattr(methods, "_methods", dict(methods._methods))
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    keras.utils.set_random_seed(0)
    exec(compile(program, str(page), "exec"), {"__name__": "__docs__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
