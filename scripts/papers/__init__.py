"""The parts of `scripts/evidence.py`: one file for each published result, and what they share."""

import importlib
import typing

if typing.TYPE_CHECKING:
    from papers.part import Part

PARTS = (
    "time_machine",
    "aicher_copy",
    "temporal_order",
    "influence_balancing",
    "artbp_text",
    "irnn_adding",
    "copy_memory",
    "chrono",
    "flossing",
)


def load(name: str) -> "Part":
    """The module of a part; it imports TensorFlow."""
    return typing.cast("Part", importlib.import_module(f"papers.{name}"))
