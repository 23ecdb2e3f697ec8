"""The functions of `kbptt.optimizers.clipping`, under their first name."""

from kbptt.optimizers.clipping import (
    Tensor,
    adaptive_clip,
    all_finite,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    combine,
    global_norm,
    norms,
    percentile,
    replace_sorted,
    safe_norm,
    unit_axes,
    z_clip_threshold,
)

__all__ = [
    "Tensor",
    "adaptive_clip",
    "all_finite",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "combine",
    "global_norm",
    "norms",
    "percentile",
    "replace_sorted",
    "safe_norm",
    "unit_axes",
    "z_clip_threshold",
]
