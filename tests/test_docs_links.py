"""Every page of the documentation is found by a reader who follows its links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def links(page: Path) -> set[Path]:
    """The pages that a page leads to."""
    found = re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return {(page.parent / link).resolve() for link in found}


@pytest.mark.parametrize("start", ["docs/README.md", "README.md"])
def test_every_page_is_reachable(start):
    seen, waiting = set(), [ROOT / start]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        waiting.extend(links(page) - seen)
    assert set((ROOT / "docs").glob("*.md")) <= seen


def test_the_table_of_contents_names_every_page():
    contents = ROOT / "docs" / "README.md"
    assert set((ROOT / "docs").glob("*.md")) - {contents} <= links(contents)
