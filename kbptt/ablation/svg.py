"""Matplotlib's figures as SVG that is a part of an HTML page, in the colours of its style sheet.

Text stays text: it is drawn in the fonts of the page, can be searched and grows with it. What is
black in the figure has the colour of the page's text, and each colour of `PALETTE` is a variable
that the style sheet sets for a light and for a dark background.
"""

import html
import io
import re

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Each has a contrast of 3 to white, and its namesake in the dark style sheet to that background.
PALETTE = ("#33669a", "#d6455a", "#228833", "#9a7d0a", "#1b8fb8", "#aa3377", "#777777", "#000000")
PAPER = "#ffffff"

_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_NAMES = {color: f"var(--c{number}, {color})" for number, color in enumerate(PALETTE, 1)}
_NAMES |= {PALETTE[-1]: "currentColor", PAPER: "var(--paper, #fff)"}


def inline(figure: Figure, title: str) -> str:
    """The figure as an `svg` element; equal figures with equal titles give equal text.

    Args:
        figure: The figure.
        title: String. Its name for those who do not see it; it must be unique on the page, because
            the identifiers within the figure are made from it.
    """
    FigureCanvasAgg(figure)  # without pyplot, which would keep it alive
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.image_inline": True, "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", dpi=150, transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style type=.*?</style>", "", text, count=1, flags=re.DOTALL)
    # Names such as axes_1, the same in every figure; what is referred to is named by a hash.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda color: _NAMES.get(color[0], color[0]), text)
    label = html.escape(title, quote=True)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
