"""What the optimizer of a `fit` has measured: the global norm, and how every clip acts."""

from typing import Any

from kbptt.analysis.evidence import NONFINITE_STEPS, Key
from kbptt.callbacks import gradient_transform
from kbptt.callbacks._observer import Observer
from kbptt.optimizers import Clipped
from kbptt.optimizers.wrapper import loss_scaler, unwrapped
from kbptt.tensorboard import layout


def optimizer_statistics(model: Any, observer: Observer) -> dict[str, float]:
    """Global norm before any clipping, and the statistics of each clip.

    With several clips, those of each below its name.
    """
    transforms = gradient_transform.active(model)
    statistics = observer.seen()
    for optimizer in unwrapped(model.optimizer):
        if isinstance(optimizer, Clipped):
            transforms += optimizer.transforms
    clipping = [transform for transform in transforms if not transform.observes_only]
    names = layout.unique_names(transform.name for transform in clipping)
    for name, transform in zip(names, clipping, strict=True):
        prefix = f"{name}/" if len(clipping) > 1 else ""
        for key, value in transform.statistics().items():
            if key != "norm_before":
                statistics[prefix + key] = value
    if NONFINITE_STEPS in statistics and loss_scaler(model.optimizer) is None:
        # Looking for its scale, a LossScaleOptimizer skips steps on purpose.
        skipped = max((t.statistics()["skipped"] for t in clipping), default=0.0)
        statistics[NONFINITE_STEPS] += skipped
    return statistics


def in_group(group: str, statistics: dict[str, float]) -> dict[Key, float]:
    """Statistics by (group, name)."""
    return {(group, name): value for name, value in statistics.items()}
