"""The sections of a report as Markdown and as tables for LaTeX."""

import re
from collections.abc import Iterable, Sequence

from kbptt.ablation.sections import Listing, Section, Table
from kbptt.ablation.tables import CONTROLLED, MINUS, without
from kbptt.ablation.text import one_line

# Columns on the machine and the training, for which a page of paper has no room.
_NOT_ON_PAPER = ("#", "decay", "clipped", "ms/step", "memory")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "Δ": r"$\Delta$",
    "Ω": r"$\Omega$",
    CONTROLLED: r"\textdagger{}",
    MINUS: "$-$",
    **{character: "\\" + character for character in "&%$#_{}"},
}
# What would be read as an argument of the `\\` at the end of the line before.
_ARGUMENT = re.compile(r"^(?=[\[*])")


def markdown(sections: Iterable[Section]) -> list[str]:
    """The sections as parts of a Markdown document; figures and folded text are left out."""
    parts = []
    for section in sections:
        if not isinstance(section, Table | Listing):
            continue
        title = f"## {escaped(section.title)}\n\n"
        if isinstance(section, Table):
            rows = [section.header, ["---"] * len(section.header), *section.lines]
            parts += [title + "\n".join("| " + " | ".join(map(escaped, r)) + " |" for r in rows)]
            parts += [escaped(section.footnote)] if section.footnote else []
        else:
            parts.append(title + "\n".join(f"* {escaped(line)}" for line in section.lines))
    return parts


def escaped(text: str) -> str:
    """Text that Markdown shows literally."""
    text = one_line(str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return "".join("\\" + c if c in "\\`*_[]|#>" else c for c in text) if text != "---" else text


def latex(tables: Sequence[Table], caption: str) -> str:
    """The tables for a LaTeX document that uses the packages `booktabs` and `graphicx`.

    A table that is wider than a line of the document is scaled down to it.

    Args:
        tables: The tables; columns on machine and training are left out.
        caption: What the first table says, for its caption.
    """
    comment = (
        "% Needs \\usepackage[T1]{fontenc}, \\usepackage{booktabs} and \\usepackage{graphicx}.\n"
        "% A table wider than \\linewidth is scaled down to it. For larger type put it in table*\n"
        "% or sidewaystable (package rotating), or delete columns.\n"
    )
    parts = []
    for number, table in enumerate(tables):
        header, lines = without(table.header, table.lines, *_NOT_ON_PAPER)
        title = f"{table.title}. {caption}" if number == 0 else f"{table.title}."
        rows = [" & ".join(map(in_latex, row)) + r" \\" for row in (header, *lines)]
        parts.append(
            "\\begin{table}\n"
            f"  \\caption{{{in_latex(title)}}}\n"
            "  \\centering\n"
            "  \\small\n"
            "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
            f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}\n"
            f"    \\toprule\n    {rows[0]}\n    \\midrule\n"
            + "".join(f"    {row}\n" for row in rows[1:])
            + "    \\bottomrule\n  \\end{tabular}}\n"
            + (f"\n  {in_latex(table.footnote)}\n" if table.footnote else "")
            + "\\end{table}\n"
        )
    return comment + "\n".join(["", *parts])


def in_latex(text: str) -> str:
    """Text that LaTeX shows literally."""
    text = "".join(_LATEX.get(character, character) for character in one_line(str(text)))
    return _ARGUMENT.sub("{}", text)
