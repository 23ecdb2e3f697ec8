"""What a pass of the compiled loops went through: states of all timesteps, and the gates."""

import numpy as np
import tensorflow as tf

from kbptt.cells.base import Cell, Tensors, Weights, flatten_time
from kbptt.engine.gradient import Context, Observation


def of_results(
    cell: Cell,
    x: tf.Tensor,
    start: Tensors,
    weights: Weights,
    context: Context,
    h: np.ndarray,
    c: np.ndarray,
) -> Observation:
    """The `Observation` of a batch-major loop that has kept all its states.

    The gates come from one call of the cell on all timesteps at once, each with the states before
    it: no second walk through time.

    Args:
        cell: The cell.
        x, start, weights, context: What the loop was given.
        h: ``(batch, timesteps, units)``.
        c: ``(timesteps, batch, units)``, of a cell that has one.
    """
    outputs = tf.constant(h)
    states = (tf.transpose(outputs, [1, 0, 2]), tf.constant(c))[: len(start)]
    final = tuple(s[-1] for s in states)
    previous = tuple(tf.concat([b[None], s[:-1]], 0) for b, s in zip(start, states, strict=True))
    if (resets := context.resets) is not None:
        at = tf.transpose(resets.at)[:, :, None]
        pairs = zip(previous, resets.states, strict=True)
        previous = tuple(tf.where(at, restart[None], before) for before, restart in pairs)
    projected, left = cell.project(x, weights, context.dropout.x_masks)
    projected = tf.transpose(projected, [1, 0, 2])
    masks = context.dropout.h_masks
    if masks is not None:
        left = left._replace(h_masks=tf.tile(masks, [1, projected.shape[0], 1]))
    _, residuals = cell.forward(flatten_time(projected), tuple(map(flatten_time, previous)), left)
    gates = {
        name: tf.reshape(gate, states[0].shape)
        for name, gate in cell.named_gates(residuals).items()
    }
    return Observation(outputs, final, states, gates)
