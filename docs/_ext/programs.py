"""The page of programs: each script with what its docstring begins with, and its source."""

import ast
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Programs(SphinxDirective):
    """The scripts named in the content, one a line."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.srcdir).parent / "scripts"
        lines = []
        for name in self.content:
            path = folder / name
            self.env.note_dependency(str(path))
            document = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            lines += [
                f"### scripts/{name}",
                "",
                document.split("\n\n")[0],
                "",
                "```{eval-rst}",
                ".. raw:: html",
                "",
                "   <details><summary>Source</summary>",
                "```",
                f"```{{literalinclude}} ../scripts/{name}",
                ":language: python",
                "```",
                "```{eval-rst}",
                ".. raw:: html",
                "",
                "   </details>",
                "```",
                "",
            ]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("programs", Programs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
