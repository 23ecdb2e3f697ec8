"""The step of any Keras cell: automatic differentiation of one timestep.

Nothing is known of such a cell but its call. The forward pass keeps the states; the backward pass
calls the cell again on each timestep (all windows at once) for the vector-Jacobian products with
respect to states, inputs and weights. Where timesteps are masked, or windows overlap or do not
divide the sequence, those calls are for the states alone, and the gradients of weights and inputs
then come from one call over the timesteps of the whole batch, with the cached ∂L/∂h_t.
"""

from collections.abc import Callable

import tensorflow as tf

from kbptt.cells.base import Tensors, flatten_time
from kbptt.engine.tensors import in_this_graph


class CellStep:
    """A `kbptt.cells.Step` around ``call(x, state, weights) -> (output, state)``.

    Args:
        call: Function of the inputs ``(rows, features)``, the flat states and the flat weights.
        output: Index of the state that is the same tensor as the output, or None. Without one the
            output is carried as a further state, last, that the cell does not read.
        hidden: Index of the state whose gradient norm is recorded.
        states: Number of states.
    """

    called_again = True

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

    def recover(self, start, residuals, written):
        return written

    def named_gates(self, residuals):
        return {}

    def vjp(self, x, previous, state, residuals, gradient, weights, back):
        previous = in_this_graph(previous)
        with tf.GradientTape() as tape:
            tape.watch(previous)
            new, _ = self.forward(x, previous, weights)
        return _differentiate(tape, new, previous, gradient), gradient

    def vjp_of_all(self, x, previous, gradient, weights):
        previous, x, weights = in_this_graph((previous, x, tuple(weights)))
        sources = (*previous, x, *weights)
        with tf.GradientTape() as tape:
            tape.watch(sources)
            new, _ = self.forward(x, previous, weights)
        found = _differentiate(tape, new, sources, gradient)
        states = len(previous)
        return found[:states], found[states], found[states + 1 :]

    def weight_gradients(self, x, previous, residuals, local, weights):
        flat = flatten_time(x)
        previous = tuple(map(flatten_time, previous))
        weights = in_this_graph(tuple(weights))
        with tf.GradientTape() as tape:
            tape.watch((flat, weights))
            new, _ = self.forward(flat, previous, weights)
        upstream = tuple(map(flatten_time, local))
        dx, *d_weights = _differentiate(tape, new, (flat, *weights), upstream)
        return tf.reshape(dx, tf.shape(x)), tuple(d_weights)


def _differentiate(tape, new: Tensors, sources: Tensors, upstream: Tensors) -> Tensors:
    zeros = tf.UnconnectedGradients.ZERO
    return tuple(tape.gradient(new, sources, upstream, unconnected_gradients=zeros))
