"""The parts that a report is made of, in whatever form it is written.

New content is a section among those of `Report.sections`; a new kind of section is a class here,
and a case in `markup.py` and in the template of the page.
"""

from typing import NamedTuple

from kbptt.ablation.tables import Table as Table


class Listing(NamedTuple):
    """Lines of text, one below the other."""

    title: str
    lines: list[str]

    kind = "listing"


class Drawing(NamedTuple):
    """A figure as SVG to put into a page; without one, the caption gives the reason."""

    title: str
    caption: str
    svg: str


class Drawings(NamedTuple):
    """Figures that stand beside each other where there is room."""

    figures: list[Drawing]

    kind = "drawings"


class Folded(NamedTuple):
    """Text for a machine or the curious, which a page shows when asked."""

    title: str
    text: str

    kind = "folded"


Section = Table | Listing | Drawings | Folded
