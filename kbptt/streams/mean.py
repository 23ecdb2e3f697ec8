"""Losses and metrics of a window as means over the timesteps that belong to a sequence.

Keras divides the sum of a window's losses by the number of all its timesteps, and averages the
windows of an epoch with equal weights, those that are half empty too. A mask on the predictions
is what makes Keras count right.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from kbptt import _keras
from kbptt.streams.rows import Rows, replica


class RealSteps:
    """Counts the timesteps of a model's steps whose sample weight is not 0.

    Args:
        model: A compiled model.
        rows: The `Rows` of its steps.
    """

    def __init__(self, model: keras.Model, rows: Rows) -> None:
        self.model = model
        self.rows = rows
        self._seen: dict[Any, tuple[tf.Tensor, tf.Tensor]] = {}  # for each replica

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """A scope in which the model's loss is a mean over the real steps."""
        attributes: dict[str, Any] = self.model.__dict__
        before = attributes.get("compute_loss")
        attributes["compute_loss"] = self._around(self.model.compute_loss)
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
            seen = self._seen.pop(replica(), None)
            if tracker is None or before is None or seen is None:
                return logs
            total, count = before
            loss, steps = seen
            tracker.total.assign(total + tf.cast(loss * steps, tracker.dtype))
            tracker.count.assign(count + tf.cast(steps, tracker.dtype))
            return {**logs, "loss": tracker.result()} if "loss" in logs else logs

        return counted

    def _around(self, compute_loss: Callable[..., Any]) -> Callable[..., Any]:
        def over_real_steps(*args: Any, **kwargs: Any) -> Any:
            # Here, where a step is traced, and not before every step: it takes 0.1 ms.
            given = inspect.signature(compute_loss).bind(*args, **kwargs)
            weight, y_pred = (given.arguments.get(name) for name in ("sample_weight", "y_pred"))
            if weight is None or not tf.is_tensor(weight):
                return compute_loss(*args, **kwargs)
            outputs = tree.flatten(y_pred)
            masks = [_mask(output, weight) for output in outputs]
            count = tf.cast(tf.math.count_nonzero(masks[0][0]), outputs[0].dtype)
            replicas = tf.distribute.get_replica_context().num_replicas_in_sync
            if replicas > 1 and not any(own for _, own in masks):
                # Each replica averages over its own real steps, and Keras over replicas.
                everywhere = tf.cast(self.rows.real_steps(), count.dtype) / replicas
                factor = tf.math.divide_no_nan(count, everywhere)
                given.arguments["sample_weight"] = tf.cast(weight, factor.dtype) * factor
                count = everywhere
            loss = compute_loss(*given.args, **given.kwargs)
            if not _keras.is_symbolic():
                self._seen[replica()] = loss * replicas, tf.cast(count, loss.dtype)
            return loss

        return over_real_steps


def _mask(output: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, bool]:
    """Marks the real steps of a prediction, for Keras too; whether the model masks others."""
    mask = weight > 0
    own = _keras.get_keras_mask(output)
    masked = own is not None and own.shape.rank == mask.shape.rank
    if own is not None and masked:
        mask &= tf.cast(own, tf.bool)
    if output.shape.rank > mask.shape.rank or mask.shape.rank == 1:
        _keras.set_keras_mask(output, mask)
    return mask, masked


def _loss_tracker(model: keras.Model) -> Any:
    """The metric in which Keras averages the loss over an epoch, or None."""
    for metric in model.metrics:
        if metric.name == "loss" and isinstance(metric, keras.metrics.Mean):
            return metric
    return None
