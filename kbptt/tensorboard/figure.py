"""Matplotlib figures without pyplot."""

import io
import warnings
from typing import Any

import matplotlib.figure
from matplotlib.backends.backend_agg import FigureCanvasAgg


class Figure(matplotlib.figure.Figure):
    """A figure that any notebook shows. Without pyplot, no global state keeps it alive."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        """The image that IPython and Jupyter display."""
        return to_png(self)[0]


def to_png(figure: matplotlib.figure.Figure) -> tuple[bytes, int, int]:
    """The figure as `(png, width, height)`."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Characters without a glyph in a layer's name are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(buffer, format="png", dpi=100)
    width, height = (round(100 * size) for size in figure.get_size_inches())
    return buffer.getvalue(), width, height
