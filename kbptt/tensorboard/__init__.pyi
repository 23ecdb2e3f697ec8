from . import (
    evidence as evidence,
    grid as grid,
    heatmap as heatmap,
    history as history,
    launch as launch,
    layout as layout,
    overview as overview,
    plugin as plugin,
    reader as reader,
    writer as writer,
)
from .evidence import read_evidence as read_evidence
from .heatmap import heatmap_figure as heatmap_figure, profile_figure as profile_figure
from .launch import command as command
from .reader import read as read
from .writer import check_log_dir as check_log_dir
