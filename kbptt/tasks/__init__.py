"""Tasks to train recurrent networks on: synthetic ones with a known difficulty, and real data.

Importing this package imports neither Keras nor TensorFlow.
"""

from kbptt.tasks.base import Outputs, Task, TaskData, TaskStreams, derive_seed
from kbptt.tasks.model import build_model
from kbptt.tasks.order import batches
from kbptt.tasks.registry import get, names, options, register

# Importing a module registers its tasks.
from kbptt.tasks import csv_series, images, influence_balancing, synthetic, text  # isort: skip

__all__ = [
    "Outputs",
    "Task",
    "TaskData",
    "TaskStreams",
    "batches",
    "build_model",
    "csv_series",
    "derive_seed",
    "get",
    "images",
    "influence_balancing",
    "names",
    "options",
    "register",
    "synthetic",
    "text",
]
