"""The order in which a training sees its data."""

from typing import TYPE_CHECKING, Any

import numpy as np

from kbptt.tasks.base import derive_seed

if TYPE_CHECKING:
    import tensorflow as tf


def batches(
    data: tuple[np.ndarray, np.ndarray],
    batch_size: int,
    seed: int,
    epochs: int,
    first_epoch: int = 0,
) -> "tf.data.Dataset[Any]":
    """Returns the batches of a whole training, each epoch shuffled by seed and epoch only.

    A training that resumes at `first_epoch` sees the batches that it would have seen. For
    `model.fit(..., steps_per_epoch=ceil(samples / batch_size), shuffle=False)`.

    Args:
        data: The arrays `(x, y)`.
        batch_size: Integer. The last batch of an epoch may be smaller.
        seed: Non-negative integer, the seed of the run.
        epochs: Integer. Number of epochs in all.
        first_epoch: Integer, the epoch to start at. Defaults to `0`.
    """
    import tensorflow as tf

    x, y = map(tf.constant, data)
    key = derive_seed(seed, "order")

    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(len(x)), (key, epoch))
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    numbers = tf.data.Dataset.range(first_epoch, epochs, output_type=tf.int32)
    return numbers.flat_map(one_epoch).map(lambda i: (tf.gather(x, i), tf.gather(y, i))).prefetch(2)
