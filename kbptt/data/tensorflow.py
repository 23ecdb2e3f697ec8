"""Batches as a `tf.data.Dataset`: what is TensorFlow's own of a stream."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

AHEAD = 2  # batches that are read while a step runs


def dataset(
    rest: Callable[[], tuple[int, int]], read: Callable[[int], Any], example: Any
) -> "tf.data.Dataset[Any]":
    """A dataset of batches that have numbers, anew for each iteration.

    Args:
        rest: Called when an iteration starts for the numbers of the first batch and of the one
            after the last.
        read: Returns the batch of a number: nested tuples of arrays.
        example: One of the batches: all have its shapes and dtypes.
    """
    flat = tf.nest.flatten(example)

    def bounds(_: tf.Tensor) -> tf.data.Dataset:
        found = tf.numpy_function(lambda: np.array(rest(), np.int64), [], tf.int64)
        return tf.data.Dataset.range(found[0], found[1])

    def batch(number: tf.Tensor) -> Any:
        # Not a generator, which costs several calls of Python for each batch.
        arrays = tf.numpy_function(
            lambda n: tf.nest.flatten(read(int(n))), [number], [array.dtype for array in flat]
        )
        for tensor, array in zip(arrays, flat, strict=True):
            tensor.set_shape(array.shape)
        return tf.nest.pack_sequence_as(example, arrays)

    options = tf.data.Options()
    # There are no files to be shared out: replicas divide each batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    numbers = tf.data.Dataset.from_tensors(0).flat_map(bounds)
    return numbers.map(batch).prefetch(AHEAD).with_options(options)
