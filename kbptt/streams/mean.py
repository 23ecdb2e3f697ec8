"""Losses and metrics of a window as means over the timesteps that belong to a sequence.

Keras divides the sum of a window's losses by the number of all its timesteps, and averages the
windows of an epoch with equal weights, those that are half empty too. A mask on the predictions
is what makes Keras count right.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from kbptt import _keras


class RealSteps:
    """Counts the timesteps of a model's steps whose sample weight is not 0.

    Args:
        model: A compiled model.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._seen: dict[Any, tuple[tf.Tensor, tf.Tensor]] = {}  # for each replica

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """A scope in which the model's loss is a mean over the real steps."""
        attributes, before = vars(self.model), vars(self.model).get("compute_loss")
        attributes["compute_loss"] = self._compute_loss
        try:
            yield
        finally:
            attributes.pop("compute_loss")
            if before is not None:
                attributes["compute_loss"] = before

    def wrap(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`step`, whose mean of the loss over an epoch is one over the real steps too."""

        def counted(data: Any) -> Any:
            tracker = _loss_tracker(self.model)
            before = None if tracker is None else (tracker.total + 0, tracker.count + 0)
            logs = step(data)
            loss, steps = self._seen.pop(_keras.replica(), (None, None))
            if before is None or loss is None:
                return logs
            total, count = before
            tracker.total.assign(total + tf.cast(loss * steps, tracker.dtype))
            tracker.count.assign(count + tf.cast(steps, tracker.dtype))
            return {**logs, "loss": tracker.result()} if "loss" in logs else logs

        return counted
