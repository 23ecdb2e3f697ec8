"""From the gradients that an optimizer's `apply` gets to the true ones, and back.

Here is all that knows of replicas, loss scales, accumulation and sparse gradients.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


class TrueGradients:
    """True gradients out of what `apply` gets, and back.

    True means: summed over replicas, without the optimizer's static loss scale, the mean over the
    accumulated batches, in at least float32, and each row of a sparse gradient only once.
    """

    def __init__(self, gradients: list, weights: list, optimizer: keras.optimizers.Optimizer):
        self.loss_scale = getattr(optimizer, "loss_scale_factor", None) or 1.0
        self.accumulated_batches = getattr(optimizer, "gradient_accumulation_steps", None)
        gradients = _sum_over_replicas(gradients)
        if self.accumulated_batches:
            gradients = [_dense(g, w) for g, w in zip(gradients, weights, strict=True)]
        self.templates = [_without_duplicates(gradient) for gradient in gradients]
        self.values = [self._unscaled(template) for template in self.templates]
        self.is_update = None
        if self.accumulated_batches:
            # Keras offers no public way to its accumulators and to the count of batches.
            steps, count = self.accumulated_batches, optimizer._iterations
            self.is_update = tf.equal((tf.convert_to_tensor(count) + 1) % steps, 0)
            self.accumulators = [
                optimizer._accumulated_gradients[optimizer._get_variable_index(weight)]
                for weight in weights
            ]
            self.values = [
                (value + tf.cast(tf.convert_to_tensor(sum_so_far), value.dtype)) / steps
                for value, sum_so_far in zip(self.values, self.accumulators, strict=True)
            ]

    def _unscaled(self, gradient: Any) -> tf.Tensor:
        values = _values(gradient)
        values = values if values.dtype == tf.float64 else tf.cast(values, tf.float32)
        return values / self.loss_scale if self.loss_scale != 1.0 else values

    def leaving(self, values: list) -> list:
        """The gradients for `apply` which make the optimizer use `values`."""
        # The optimizer divides by the loss scale and sums over replicas once more.
        factor = self.loss_scale / tf.distribute.get_strategy().num_replicas_in_sync
        gradients = []
        for value, template in zip(values, self.templates, strict=True):
            if self.accumulated_batches:
                # With the accumulators emptied, Keras's mean on an update step is `value`.
                scaled = value * (factor * self.accumulated_batches)
                arrived = _values(template)
                scaled = tf.where(self.is_update, tf.cast(scaled, arrived.dtype), arrived)
            else:
                scaled = value * factor if factor != 1.0 else value
            gradients.append(_like(scaled, template))
        return gradients

    def resets(self) -> list[tuple]:
        """What empties the accumulators on an update step."""
        if not self.accumulated_batches:
            return []
        sums = [accumulator.value for accumulator in self.accumulators]
        return [(v, where(self.is_update, tf.zeros(v.shape, v.dtype), v)) for v in sums]


def if_finite(
    finite: tf.Tensor, gradients: list, updates: list, apply: Callable, skipped: list
) -> None:
    """Updates variables and optimizer if `finite`; else only counts one skipped step."""

    def decide(finite, take, count):
        def skip():
            for variable in skipped:
                count(variable, 1)

        tf.cond(finite, take, skip)

    if not _merges():

        def take():
            for variable, value in updates:
                variable.assign(value)
            apply(gradients)

        decide(finite, take, lambda variable, n: variable.assign_add(n))
        return

    def across(strategy, finite, gradients, values):
        def take():
            for (variable, _), value in zip(updates, values, strict=True):
                strategy.extended.update(variable, _set, args=(value,), group=False)
            strategy.extended.call_for_each_replica(apply, args=(gradients,))

        def count(variable, n):
            strategy.extended.update(variable, lambda v: v.assign_add(n), group=False)

        # A condition around a synchronization must stand outside the replicas. They all agree.
        decide(strategy.experimental_local_results(finite)[0], take, count)

    values = [value for _, value in updates]
    tf.distribute.get_replica_context().merge_call(across, args=(finite, gradients, values))


def assign(updates: list[tuple]) -> None:
    """Assigns (variable, value) pairs; under a strategy, the first replica's value to all."""
    if not _merges():
        for variable, value in updates:
            variable.assign(value)
        return

    def across(strategy, values):
        for (variable, _), value in zip(updates, values, strict=True):
            first = strategy.experimental_local_results(value)[0]
            strategy.extended.update(variable, _set, args=(first,), group=False)

    values = [value for _, value in updates]
    tf.distribute.get_replica_context().merge_call(across, args=(values,))


def _merges() -> bool:
    """Whether replicas run in threads that must meet before they update a variable."""
    no_merge = tf.__internal__.distribute.strategy_supports_no_merge_call
    return tf.distribute.has_strategy() and not no_merge()


def _sum_over_replicas(gradients: list) -> list:
    if not tf.distribute.has_strategy():
        return gradients
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)


def _without_duplicates(gradient: Any) -> Any:
    """A sparse gradient with the slices of equal index added up; a dense one as it is.

    Sorts instead of `tf.unique`: the shapes stay static, so it compiles under XLA. Places that
    become free hold zeros for an index that occurs anyway.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    order = tf.argsort(gradient.indices, stable=True)
    indices = tf.gather(gradient.indices, order)
    is_new = tf.concat([tf.zeros([1], tf.int32), tf.cast(indices[1:] != indices[:-1], tf.int32)], 0)
    segment = tf.cumsum(is_new[: tf.size(indices)])
    count = tf.size(indices)
    values = tf.math.unsorted_segment_sum(tf.gather(gradient.values, order), segment, count)
    first = tf.math.unsorted_segment_max(indices, segment, count)  # lowest integer where empty
    indices = tf.maximum(first, tf.reduce_min(indices))
    return tf.IndexedSlices(values, indices, gradient.dense_shape)


def _dense(gradient: Any, weight: keras.Variable) -> tf.Tensor:
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, weight.shape[0])


def _values(gradient: Any) -> tf.Tensor:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _like(values: tf.Tensor, template: Any) -> Any:
    if not isinstance(template, tf.IndexedSlices):
        return tf.cast(values, template.dtype)
    values = tf.cast(values, template.values.dtype)
    return tf.IndexedSlices(values, template.indices, template.dense_shape)


def where(condition: tf.Tensor | None, new: tf.Tensor, old: tf.Variable) -> tf.Tensor:
    new = tf.cast(new, old.dtype)
    return new if condition is None else tf.where(condition, new, tf.convert_to_tensor(old))


def _set(variable: tf.Variable, value: tf.Tensor) -> None:
    variable.assign(value)
