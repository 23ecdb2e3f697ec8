"""Every page of the documentation is found by a reader, and no link of one leaves the site."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# For Git hosts, which show this page of a folder; not one of the site.
FRONT = DOCS / "README.md"
SUFFIXES = {".md", ".ipynb"}
PAGES = [p for p in sorted(DOCS.rglob("*")) if p.suffix in SUFFIXES and p != FRONT]
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def contents(page: Path) -> set[Path]:
    """The pages that the tables of contents of a page name."""
    entries = [line for block in TOCTREE.findall(text_of(page)) for line in block.splitlines()]
    found = set()
    for entry in entries:
        if entry and not entry.startswith(":"):
            pages = {path for path in page.parent.glob(f"{entry}.*") if path.suffix in SUFFIXES}
            assert pages, f"There is no page {entry}."
            found |= pages
    return found


def test_the_tables_of_contents_name_every_page():
    seen, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        waiting.extend(contents(page) - seen)
    assert seen == set(PAGES)


def test_the_page_for_git_hosts_links_every_page():
    """There the tables of contents are no links."""
    links = re.findall(r"\]\(([^)#:]+)\)", text_of(FRONT))
    linked = {(DOCS / link).resolve() for link in links}
    assert {page for page in PAGES if page.parent.name != "api"} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_relative_link_leaves_the_site(page):
    """It would lead nowhere on the site; code that is named is linked to its source there."""
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text_of(page)):
        place = (page.parent / target).resolve()
        assert place.is_relative_to(DOCS) and place.is_file(), target


def anchors(page: Path) -> set[str]:
    """What the headings of a page are linked as, on a Git host and on the site."""
    prose = re.sub(r"^(```|~~~).*?^\1", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [ROOT / "README.md", FRONT, *PAGES], ids=lambda page: page.name)
def test_the_anchors_of_links_exist(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", text_of(page)):
        place = (page.parent / target).resolve() if target else page
        assert anchor in anchors(place), f"{target}#{anchor}"


def test_the_readme_leads_to_the_pages():
    assert re.search(r"\]\(docs/(README|index)\.md\)", text_of(ROOT / "README.md"))
    assert "](index.md)" in text_of(FRONT)
