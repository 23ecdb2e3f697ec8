from . import (
    grid as grid,
    heatmap as heatmap,
    history as history,
    launch as launch,
    layout as layout,
    plugin as plugin,
    reader as reader,
    writer as writer,
)
from .heatmap import heatmap_figure as heatmap_figure, profile_figure as profile_figure
from .launch import command as command
from .reader import read as read
from .writer import check_log_dir as check_log_dir
