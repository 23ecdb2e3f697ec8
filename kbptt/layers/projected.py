"""SimpleRNN, GRU and LSTM: input projection outside the loop, an elementwise step inside."""

from typing import Any

import tensorflow as tf
from keras import ops

from kbptt.engine import is_differentiable
from kbptt.layers.rnn import CellLayer


class ProjectedLayer(CellLayer):
    """Mixin of the layers whose inputs are projected by one product before the loop."""

    def _set_up(
        self, truncation: Any, gradient_clip: float | None, normalization: Any, regularizer: Any
    ) -> None:
        super()._set_up(truncation, gradient_clip)
        self.normalization = normalization
        self.gradient_regularizer = regularizer

    def inner_loop(self, sequences, initial_state, mask, training=False):
        step = self._projected_step()
        # Masks per gate (`implementation=1`, recurrent dropout) need the cell's own products.
        cell = self.cell
        per_gate = training and (
            cell.recurrent_dropout or (cell.dropout and getattr(cell, "implementation", 2) == 1)
        )
        if step is None or per_gate or is_differentiable():
            return super().inner_loop(sequences, initial_state, mask, training)
        x, mask, resets = self._prepare(sequences, mask)
        if training and self.dropout:
            x *= self.cell.get_dropout_mask(sequences[:, 0, :])
        features = x.shape[-1]
        kernel = ops.convert_to_tensor(self.cell.kernel, dtype=self.compute_dtype)
        projected = tf.matmul(tf.reshape(x, [-1, features]), kernel)
        bias = self._projection_bias()
        if bias is not None:
            projected += ops.cast(bias, projected.dtype)
        shape = tf.shape(x)
        projected = tf.reshape(projected, [shape[0], shape[1], kernel.shape[-1]])
        projected.set_shape([x.shape[0], x.shape[1], kernel.shape[-1]])
        weights = tuple(map(ops.convert_to_tensor, self._recurrent_weights()))
        engine = self._engine("projected", lambda: step)
        return self._run(engine, projected, initial_state, weights, mask, resets)
