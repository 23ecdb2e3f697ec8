"""From the gradients that an optimizer's `apply` receives to the true ones, and back.

The only module that handles replicas, loss scaling, accumulation and sparse gradients.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kbptt import _keras
from kbptt._tensorflow import replicas_merge
from kbptt.optimizers.wrapper import loss_scaler, unwrapped


class TrueGradients:
    """True gradients out of what `apply` receives, and back.

    True means: summed over replicas, without the loss scale, the mean over the accumulated batches,
    in at least float32, and with the slices of equal index of a sparse gradient added up.

    Attributes:
        values: The true gradients; of a sparse gradient, the rows that occur.
        is_update: Whether the optimizer updates weights in this step; None: it always does.
    """

    def __init__(
        self, gradients: list[Any], weights: list[Any], optimizer: keras.optimizers.Optimizer
    ):
        scaler, updating = loss_scaler(optimizer), unwrapped(optimizer)[-1]
        self.loss_scale: Any = updating.loss_scale_factor or 1.0
        if scaler is not None:
            self.loss_scale = tf.convert_to_tensor(scaler.dynamic_scale)
        self.accumulated_batches: Any = updating.gradient_accumulation_steps
        gradients = _sum_over_replicas(gradients)
        if self.accumulated_batches:
            gradients = [_dense(g, w) for g, w in zip(gradients, weights, strict=True)]
        self.carriers: list[_Sparse | _Dense] = [
            _Sparse(g) if isinstance(g, tf.IndexedSlices) else _Dense(g) for g in gradients
        ]
        self.values: list[Any] = [
            c.values / tf.cast(self.loss_scale, c.values.dtype) for c in self.carriers
        ]
        self.is_update: Any = None
        if self.accumulated_batches:
            steps, count = self.accumulated_batches, _keras.accumulated_batches(updating)
            self.is_update = tf.equal((tf.convert_to_tensor(count) + 1) % steps, 0)
            self.accumulators: list[Any] = [
                _keras.accumulated_gradient(updating, w) for w in weights
            ]
            self.values = [
                (value + tf.cast(tf.convert_to_tensor(sum_so_far), value.dtype)) / steps
                for value, sum_so_far in zip(self.values, self.accumulators, strict=True)
            ]

    def leaving(self, values: list[Any]) -> list[Any]:
        """The gradients for `apply` which make the optimizer use `values`."""
        # The optimizer divides by the loss scale and sums over replicas once more: the first
        # replica contributes everything, the others zeros.
        share = 1.0
        if tf.distribute.has_strategy():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            share = tf.cast(tf.equal(replica, 0), tf.float32)
        gradients = []
        for value, carrier in zip(values, self.carriers, strict=True):
            value = value * tf.cast(self.loss_scale, value.dtype)
            if self.accumulated_batches:
                # With the accumulators emptied, Keras's mean on an update step is `value`.
                value = tf.where(self.is_update, value * self.accumulated_batches, carrier.values)
            gradients.append(carrier.carry(value, share))
        return gradients

    def resets(self) -> list[tuple[tf.Variable, Any]]:
        """What empties the accumulators on an update step."""
        if not self.accumulated_batches:
            return []
        sums = [accumulator.value for accumulator in self.accumulators]
        return [(v, where(self.is_update, tf.zeros(v.shape, v.dtype), v)) for v in sums]


def if_finite(
    finite: tf.Tensor,
    gradients: list[Any],
    updates: list[tuple[tf.Variable, Any]],
    apply: Callable[[list[Any]], None],
    skipped: list[tf.Variable],
) -> None:
    """Updates variables and optimizer if `finite`; otherwise only counts a skipped step."""

    def decide(finite, take, count):
        def skip():
            for variable in skipped:
                count(variable, 1)

        tf.cond(finite, take, skip)

    if not replicas_merge():

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

        # A condition around a synchronization must be outside the replicas. They all agree.
        decide(strategy.experimental_local_results(finite)[0], take, count)

    values = [value for _, value in updates]
    tf.distribute.get_replica_context().merge_call(across, args=(finite, gradients, values))


def assign(updates: list[tuple[tf.Variable, Any]]) -> None:
    """Assigns (variable, value) pairs; under a strategy, the first replica's value to all."""
    if not replicas_merge():
        for variable, value in updates:
            variable.assign(value)
        return

    def across(strategy, values):
        for (variable, _), value in zip(updates, values, strict=True):
            first = strategy.experimental_local_results(value)[0]
            strategy.extended.update(variable, _set, args=(first,), group=False)

    values = [value for _, value in updates]
    tf.distribute.get_replica_context().merge_call(across, args=(values,))


def _sum_over_replicas(gradients: list[Any]) -> list[Any]:
    if not tf.distribute.has_strategy():
        return gradients
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)


class _Dense:
    """A dense gradient, in at least float32."""

    def __init__(self, gradient: tf.Tensor):
        self.dtype = gradient.dtype
        self.values = _at_least_float32(gradient)

    def carry(self, values: tf.Tensor, share: Any) -> tf.Tensor:
        return tf.cast(values * tf.cast(share, values.dtype), self.dtype)


class _Sparse:
    """A sparse gradient. Its `values` are the rows: the sums of the slices of equal index.

    Sorts instead of using `tf.unique`: the shapes stay static, so it compiles under XLA. There are
    as many rows as slices, the last ones zero where slices were added up.
    """

    def __init__(self, gradient: tf.IndexedSlices):
        self.gradient = gradient
        self.slices = _at_least_float32(gradient.values)
        count = tf.size(gradient.indices)
        order = tf.argsort(gradient.indices, stable=True)
        indices = tf.gather(gradient.indices, order)
        starts = tf.cast(indices[1:] != indices[:-1], tf.int32)
        row = tf.cumsum(tf.concat([tf.zeros([1], tf.int32), starts], 0)[:count])
        self.row_of_slice = tf.gather(row, tf.argsort(order))
        self.values = tf.math.unsorted_segment_sum(self.slices, self.row_of_slice, count)

    def carry(self, values: tf.Tensor, share: Any) -> tf.IndexedSlices:
        # Every slice takes the factor of its row. So an unchanged gradient keeps its slices as
        # they were: several optimizers of Keras square them one by one.
        zero = tf.equal(self.values, 0)
        ones = tf.ones_like(values)
        factor = tf.where(zero, ones, values / tf.where(zero, ones, self.values))
        slices = self.slices * tf.gather(factor, self.row_of_slice) * tf.cast(share, values.dtype)
        slices = tf.cast(slices, self.gradient.dtype)
        return tf.IndexedSlices(slices, self.gradient.indices, self.gradient.dense_shape)


def _at_least_float32(x: tf.Tensor) -> tf.Tensor:
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def _dense(gradient: Any, weight: keras.Variable) -> tf.Tensor:
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, weight.shape[0])


def where(condition: tf.Tensor | None, new: tf.Tensor, old: tf.Variable) -> tf.Tensor:
    new = tf.cast(new, old.dtype)
    return new if condition is None else tf.where(condition, new, tf.convert_to_tensor(old))


def _set(variable: tf.Variable, value: tf.Tensor) -> None:
    variable.assign(value)
