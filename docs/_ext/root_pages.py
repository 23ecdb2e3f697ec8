"""Pages of the repository's root, such as CHANGELOG.md, as pages of the site.

A page of the site includes one with `{include} ../NAME.md`. Its links are relative to the root;
here they become links of the site.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

INCLUDE = re.compile(r"```\{include\} \.\./(\w+\.md)\n```")
HERE = re.compile(r"\]\(docs/")
ROOT = re.compile(r"\]\(([A-Z]+\.md)(#[^)]*)?\)")


def include(app: Sphinx, docname: str, source: list[str]) -> None:
    def text(match: re.Match[str]) -> str:
        path = Path(app.srcdir).parent / match[1]
        app.env.note_dependency(str(path))
        moved = HERE.sub("](", path.read_text(encoding="utf-8"))
        return ROOT.sub(lambda link: f"]({link[1].lower()}{link[2] or ''})", moved)

    source[0] = INCLUDE.sub(text, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", include)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
