"""Batches as a `tf.data.Dataset`: what is TensorFlow's own of a stream."""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

AHEAD = 2  # batches that are read while a step runs


def dataset(read: Callable[[], Iterator[Any]], example: Any) -> "tf.data.Dataset[Any]":
    """A dataset of the batches that `read` yields, anew for each iteration.

    Args:
        read: Returns an iterator of nested tuples of arrays.
        example: One of the batches: all have its shapes and dtypes.
    """
    signature = tf.nest.map_structure(lambda a: tf.TensorSpec(a.shape, a.dtype), example)
    options = tf.data.Options()
    # A generator cannot be divided into files: replicas divide each batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    batches = tf.data.Dataset.from_generator(read, output_signature=signature)
    return batches.prefetch(AHEAD).with_options(options)
