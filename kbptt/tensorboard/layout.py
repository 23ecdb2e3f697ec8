"""Names and metadata of kbptt's records in TensorBoard, shared by writer, reader and plugin."""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

from kbptt import _checks
from kbptt.truncation import windows

PLUGIN = "gradient_flow"
PROFILE = "dL_dh"
LAGS = "dL_dh_by_lag"
# Norms of a layer's states by timestep.
STATES = {"h": "h_norm", "c": "c_norm"}
STATISTICS = "gradient_flow_stats"


class Kind(NamedTuple):
    """A kind of tensor: one vector of nonnegative numbers per layer and recorded step.

    Attributes:
        name: Last component of the tag `gradient_flow/<layer>/<name>`.
        label: In the tab's picker.
        symbol: What one number is: on axes and beside values.
        title: Above the heatmaps.
        by_lag: Boolean. Whether the vector runs over lags, lag 0 first, instead of timesteps.
        gradient: Boolean. Whether it is a gradient on its way back, on which there is a verdict.
    """

    name: str
    label: str
    symbol: str
    title: str
    by_lag: bool = False
    gradient: bool = True


# What the tab can show, in the order of its picker. A further kind is one more entry.
KINDS = {
    kind.name: kind
    for kind in (
        Kind(PROFILE, "Gradient", "‖∂L/∂hₜ‖", "‖∂L/∂hₜ‖ of every timestep t over training"),
        Kind(
            LAGS,
            "Gradient by lag",
            "mean ‖∂Lₛ/∂hₛ₋ₖ‖",
            "‖∂Lₛ/∂hₛ₋ₖ‖: how strongly a loss reaches the state k steps earlier",
            by_lag=True,
        ),
        Kind(
            STATES["h"], "State h", "‖hₜ‖", "‖hₜ‖ of every timestep t over training", gradient=False
        ),
        Kind(
            STATES["c"], "State c", "‖cₜ‖", "‖cₜ‖ of every timestep t over training", gradient=False
        ),
    )
}

# Groups of statistics that belong to no layer.
GLOBAL = ("optimizer", "variables")

# TensorFlow's writer repeats the metadata with every record, so it stays small.
MAX_CONTENT_BYTES = 150


class Division(NamedTuple):
    """How a truncation divides time: a `kbptt.truncation.windows.Division` without Keras."""

    length: int | None = None
    stride: int | None = None
    align: str = "end"


def tensor_tag(layer: str, kind: str) -> str:
    """Tag of a tensor of this kind: `PROFILE`, `LAGS` or one of `STATES`."""
    return f"{PLUGIN}/{layer}/{kind}"


def profile_tag(layer: str) -> str:
    """Tag of the tensor that holds the norms of every timestep."""
    return tensor_tag(layer, PROFILE)


def lag_tag(layer: str) -> str:
    """Tag of the tensor that holds the norms of every lag."""
    return tensor_tag(layer, LAGS)


def kind_of(tag: str) -> tuple[str, Kind] | None:
    """The layer and the kind of a tensor's tag, or None for other tags."""
    match = re.fullmatch(f"{PLUGIN}/(.+)/([^/]+)", tag)
    return (match[1], KINDS[match[2]]) if match and match[2] in KINDS else None


def positions(indices: dict[str, int | None]) -> dict[str, int]:
    """The position of each layer among those of its run: 0 for the first.

    Args:
        indices: By layer, the `index` of its content. Where one is unknown (event files of older
            versions, other writers), the layers are in the order of their names, `lstm_2` before
            `lstm_10`.
    """

    def natural(name: str) -> list[tuple[int, Any]]:
        parts = re.findall(r"\d+|\D+", name)
        return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]

    known = all(index is not None for index in indices.values())
    order = sorted(indices, key=lambda name: (indices[name] if known else 0, natural(name)))
    return {name: position for position, name in enumerate(order)}


def statistic_tag(group: str, name: str) -> str:
    """Tag of a scalar; never a profile's, since a tag belongs to one plugin."""
    return f"{STATISTICS}/{group}/{name}"


def statistic_of(tag: str) -> tuple[str, str] | None:
    """Group and name of the tag of one of kbptt's scalars, or None for other tags."""
    prefix, _, rest = tag.partition("/")
    group, _, name = rest.partition("/")
    return (group, name) if prefix == STATISTICS and name else None


def safe_name(name: str) -> str:
    """A layer's name as one component of a tag: letters, digits, `-`, `_` and inner dots."""
    name = re.sub(r"[^\w.-]", "_", unicodedata.normalize("NFC", str(name)))
    return name.strip(".")[:64] or "layer"


def unique_names(names: Iterable[str], reserved: Iterable[str] = ()) -> list[str]:
    """Safe names in the given order; a repeated one gets `_2`, `_3`, …"""
    taken = set(reserved)
    unique = []
    for name in map(safe_name, names):
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        unique.append(candidate)
    return unique


def content(
    layer: str,
    loss: str,
    window: int | None,
    stride: int | None,
    align: str,
    overlap: bool = False,
    index: int | None = None,
) -> bytes:
    """Plugin content of a tensor's tag: constant per run, under `MAX_CONTENT_BYTES`.

    Args:
        layer: Safe name of the layer; cut if it does not fit.
        loss: `"all"` if every timestep has an output, `"last"` if only the last has.
        window: Length of the truncation windows, or None for full BPTT.
        stride: Timesteps between the ends of two windows, or None.
        align: `"end"` or `"start"`: the side from which windows are counted.
        overlap: Boolean. Whether the windows whose changing length the scalar `truncation` holds
            overlap, so that no timestep is a sharp cut. Defaults to False.
        index: Integer. Position of the layer among the recorded layers of its model, by which runs
            with other names of layers are compared. Defaults to None, unknown.
    """
    fields: dict[str, Any] = {"v": 1, "layer": layer, "loss": loss, "window": window}
    if stride is not None and stride != window:
        fields["stride"] = stride
    if align != "end":
        fields["align"] = align
    if overlap:
        fields["overlap"] = True
    if index is not None:
        fields["index"] = index
    while True:
        encoded = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        if len(encoded) < MAX_CONTENT_BYTES:
            return encoded
        fields["layer"] = fields["layer"][:-1]


def parse_content(encoded: bytes) -> dict[str, Any]:
    """The fields of `content` with a valid value; empty for foreign or damaged content."""
    if len(encoded) >= MAX_CONTENT_BYTES:  # foreign, and maybe deeply nested JSON
        return {}
    try:
        fields = json.loads(encoded)
    except ValueError:
        return {}
    if not isinstance(fields, dict):
        return {}
    return {name: fields[name] for name, valid in _FIELDS.items() if valid(fields.get(name, ...))}


def _is_length(value: Any) -> bool:
    return type(value) is int and value > 0


_FIELDS = {
    "v": _is_length,
    "layer": lambda value: isinstance(value, str),
    "loss": lambda value: value in ("all", "last"),
    "window": lambda value: value is None or _is_length(value),
    "stride": _is_length,
    "align": lambda value: value in ("end", "start"),
    "overlap": lambda value: value is True,
    "index": lambda value: type(value) is int and value >= 0,
}


def division(fields: dict[str, Any]) -> Division:
    """The truncation of the fields that `parse_content` returns."""
    length = fields.get("window")
    stride = length and min(fields.get("stride", length), length)
    return Division(length, stride, fields.get("align", "end"))


def window_edges(timesteps: int, window: int | None, align: str = "end") -> list[int]:
    """First timestep of every window but the first: where the gradient is cut."""
    _checks.one_of("align", align, ("end", "start"))
    if window is not None:
        _checks.positive_integer("window", window)
    return windows.of(timesteps, Division(window, align=align)).edges.tolist()
