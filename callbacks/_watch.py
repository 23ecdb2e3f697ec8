"""Looks at the batch of a step before the step takes it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kbptt.callbacks._step import StepWrapper


class Watch(StepWrapper):
    """Calls functions around the steps that are wanted; all others run as they are.

    The batch is taken from the iterator and handed on in an iterator of its own, of the same kind,
    so that the compiled step is the same and contains nothing of this.

    Args:
        model: The model.
        before: Called with the batch, the last one of several `steps_per_execution`, before the
            step.
        after: Called with the number of steps taken after them.

    Attributes:
        wanted: Whether to look at the step that is about to begin.
        possible: Whether batches can be looked at: not if they are shared out to replicas.
    """

    TWICE = (
        "Two GradientFlow callbacks with `health` in one fit. One covers all layers of the model."
    )
    outermost = True

    def __init__(
        self,
        model: keras.Model,
        before: Callable[[Any], None],
        after: Callable[[int], None],
    ) -> None:
        self.model = model
        self.before = before
        self.after = after
        self.wanted = False
        self.possible = model.distribute_strategy.num_replicas_in_sync == 1

    def run(self, function: Callable[[Any], Any], iterator: Any) -> Any:
        wanted, self.wanted = self.wanted and self.possible, False
        if not wanted or not isinstance(iterator, tf.data.Iterator):
            return function(iterator)
        batches = [next(iterator)]
        while len(batches) < self.model.steps_per_execution:
            batch = next(iterator, None)
            if batch is None:
                break
            batches.append(batch)
        self.before(batches[-1])
        logs = function(iter(_dataset(batches, iterator.element_spec)))
        self.after(len(batches))
        return logs


def _dataset(batches: Sequence[Any], spec: Any) -> tf.data.Dataset:
    """The batches as a dataset with this specification, whose sizes may be unknown."""
    dataset = functools.reduce(
        tf.data.Dataset.concatenate, map(tf.data.Dataset.from_tensors, batches)
    )
    # Without it the step would be traced again for the sizes of these batches.
    variant = tf.data.experimental.to_variant(dataset)
    options = tf.data.Options()  # those for many elements take longer than these few
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.threading.max_intra_op_parallelism = 1
    return tf.data.experimental.from_variant(variant, spec).with_options(options)
