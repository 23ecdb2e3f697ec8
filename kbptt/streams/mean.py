"""Losses and metrics of a window as means over the timesteps that belong to a sequence.

Keras divides the sum of a window's losses by the number of all its timesteps, and averages the
windows of an epoch with equal weights, those that are half empty too. A mask on the predictions
is what makes Keras count right; metrics that read none get the real timesteps alone.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from kbptt import _keras
from kbptt._tensorflow import is_being_compiled
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
        """A scope in which losses and metrics of the model are means over the real steps."""
        model, attributes = self.model, self.model.__dict__
        own = {
            name: attributes[name]
            for name in ("compute_loss", "compute_metrics")
            if name in attributes
        }
        attributes["compute_loss"] = self._losses(model.compute_loss)
        if type(model).compute_metrics is keras.Model.compute_metrics:
            attributes["compute_metrics"] = self._metrics(model.compute_metrics)
        try:
            yield
        finally:
            for name in ("compute_loss", "compute_metrics"):
                attributes.pop(name, None)
            attributes.update(own)

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
            loss, steps = (tf.cast(value, tracker.dtype) for value in seen)
            tracker.total.assign(total + loss * steps)
            tracker.count.assign(count + steps)
            return {**logs, "loss": tracker.result()} if "loss" in logs else logs

        return counted

    # In place of the model's own ----------------------------------------------------------------

    def _losses(self, compute_loss: Callable[..., Any]) -> Callable[..., Any]:
        def over_real_steps(*args: Any, **kwargs: Any) -> Any:
            # Here, where a step is traced, and not before every step.
            given = inspect.signature(compute_loss).bind(*args, **kwargs)
            weight, masks = self._align(given.arguments)
            if weight is None:
                return compute_loss(*args, **kwargs)
            count = _number(masks[0][0])
            replicas = tf.distribute.get_replica_context().num_replicas_in_sync
            if replicas > 1 and not any(own for _, own in masks):
                # Each replica averages over its own real steps, and Keras over replicas.
                everywhere = tf.cast(self.rows.real_steps(), count.dtype) / replicas
                factor = tf.math.divide_no_nan(count, everywhere)
                given.arguments["sample_weight"] = tf.cast(weight, factor.dtype) * factor
                count = everywhere
            loss = compute_loss(*given.args, **given.kwargs)
            if not _keras.is_symbolic():
                self._seen[replica()] = loss * replicas, count
            return loss

        return over_real_steps

    def _metrics(self, compute_metrics: Callable[..., Any]) -> Callable[..., Any]:
        def of_real_steps(x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            given = {"y": y, "y_pred": y_pred, "sample_weight": sample_weight}
            weight, masks = self._align(given)
            # XLA knows no tensor whose size depends on a mask.
            if weight is not None and tf.is_tensor(given["y_pred"]) and not is_being_compiled():
                if not self._all_read_masks(given["y"], given["y_pred"]):
                    mask = masks[0][0]
                    given = {name: tf.boolean_mask(value, mask) for name, value in given.items()}
            return compute_metrics(x, **given)

        return of_real_steps

    def _all_read_masks(self, y: Any, y_pred: Any) -> bool:
        metrics = []
        for group in self.model.metrics:
            if hasattr(group, "metrics"):  # those that the model was compiled with
                if not group.built:
                    group.build(y, y_pred)
                metrics.extend(group.metrics)
        return all(isinstance(metric, keras.metrics.MeanMetricWrapper) for metric in metrics)

    def _align(self, given: dict[str, Any]) -> tuple[Any, list[tuple[tf.Tensor, bool]]]:
        """Gives targets and predictions of single numbers an axis, and predictions their masks.

        Keras takes the mean over the last axis, which would be that of time.

        Args:
            given: Arguments of `compute_loss` and the like, by name; changed.

        Returns:
            The sample weight, or None where there is nothing to count, and for each prediction the
            mask of its real steps, and whether the model itself has masked some.
        """
        weight: Any = given.get("sample_weight")
        y: Any = given.get("y")
        y_pred: Any = given.get("y_pred")
        if weight is None or not tf.is_tensor(weight):
            return None, []
        for output in tree.flatten(y_pred):
            self._check(output, weight)
        own = [_keras.get_keras_mask(output) for output in tree.flatten(y_pred)]
        if weight.shape.rank == 2:
            y_pred = tree.map_structure(lambda o: o[..., None] if o.shape.rank == 2 else o, y_pred)
            if tf.is_tensor(y_pred) and tf.is_tensor(y):
                single = y_pred.shape.rank == 3 and y_pred.shape[-1] == 1
                y = y[..., None] if single and y.shape.rank == 2 else y
        given.update(y=y, y_pred=y_pred)
        outputs = tree.flatten(y_pred)
        return weight, [_mask(o, m, weight) for o, m in zip(outputs, own, strict=True)]

    def _check(self, output: tf.Tensor, weight: tf.Tensor) -> None:
        """Raises `ValueError` for an output that is not one for each target."""
        shape, timesteps = tuple(output.shape), self.rows.timesteps
        by_step = len(shape) > 1 and shape[1] in (None, timesteps)
        if weight.shape.rank == 2 and not by_step:
            raise ValueError(
                "Streams with a target for each timestep expected outputs (batch, timesteps, …), "
                f"of {timesteps} timesteps. Received: {shape}. Set `return_sequences=True` in the "
                "last recurrent layer."
            )
        if weight.shape.rank == 1 and len(shape) > 2 and by_step:
            raise ValueError(
                "Streams with `target='last'` expected one output per sequence, (batch, …). "
                f"Received: {shape}. Set `return_sequences=False` in the last recurrent layer."
            )


def _number(mask: tf.Tensor) -> tf.Tensor:
    """How many are marked. Not in half precision, where large numbers are rounded."""
    dtype = tf.float64 if keras.config.floatx() == "float64" else tf.float32
    return tf.cast(tf.math.count_nonzero(mask), dtype)


def _mask(output: tf.Tensor, own: Any, weight: tf.Tensor) -> tuple[tf.Tensor, bool]:
    """Marks the real steps of a prediction, for Keras too; whether the model masks others."""
    mask = weight > 0
    masked = own is not None and own.shape.rank == mask.shape.rank
    if own is not None and masked:
        mask &= tf.cast(own, tf.bool)
    _keras.set_keras_mask(output, mask)
    return mask, masked


def _loss_tracker(model: keras.Model) -> Any:
    """The metric in which Keras averages the loss over an epoch, or None."""
    for metric in model.metrics:
        if metric.name == "loss" and isinstance(metric, keras.metrics.Mean):
            return metric
    return None
