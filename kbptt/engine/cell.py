"""The step of any cell: the same engine with automatic differentiation of one timestep.

Nothing is known of such a cell but its call. The forward pass keeps the states; the backward pass
calls the cell again on each timestep (all windows at once) for the vector-Jacobian product with
respect to the state; the gradients of the weights and inputs then come from one call over the
timesteps of the whole batch, with the cached ∂L/∂h_t.
"""

from collections.abc import Callable

import tensorflow as tf

from kbptt.engine.compiled import in_this_graph
from kbptt.engine.steps import Tensors, _rows


class CellStep:
    """A step around ``call(x, state, weights) -> (output, state)``.

    Args:
        call: Function of the inputs ``(rows, features)``, the flat states and the flat weights.
        output: Index of the state that is the same tensor as the output, or None. Without one the
            output is carried as a further state, last, that the cell does not read.
        hidden: Index of the state whose gradient norm is recorded.
    """

    def __init__(self, call: Callable, output: int | None, hidden: int, states: int) -> None:
        self.call = call
        self.states = states
        self.separate_output = output is None
        self.output = states if output is None else output
        self.hidden = hidden
        self.written = tuple(range(states + self.separate_output))

    def forward(self, x, state, weights):
        output, new = self.call(x, state[: self.states], weights)
        return (*new, output) if self.separate_output else tuple(new), ()

    def recover(self, start, stored, written):
        return written

    def backward(self, x, previous, state, stored, gradient, weights):
        previous = in_this_graph(previous)
        with tf.GradientTape() as tape:
            tape.watch(previous)
            new, _ = self.forward(x, previous, weights)
        return self._pull_back(tape, new, previous, gradient), gradient

    def weight_gradients(self, x, previous, stored, local, weights):
        flat = _rows(x)
        previous = tuple(map(_rows, previous))
        weights = in_this_graph(tuple(weights))
        with tf.GradientTape() as tape:
            tape.watch((flat, weights))
            new, _ = self.forward(flat, previous, weights)
        dx, *d_weights = self._pull_back(tape, new, (flat, *weights), tuple(map(_rows, local)))
        return tf.reshape(dx, tf.shape(x)), tuple(d_weights)

    def _pull_back(self, tape, new: Tensors, sources: Tensors, gradient: Tensors) -> Tensors:
        return tuple(
            tape.gradient(
                new, sources, gradient, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
        )
