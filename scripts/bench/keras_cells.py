"""Cells for `RNN(cell)`."""

import keras


class OwnCell(keras.layers.Layer):
    """A cell as users write them: a network with one update gate."""

    def __init__(self, units, **arguments):
        super().__init__(**arguments)
        self.units = self.state_size = self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 2 * self.units))
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, 2 * self.units), initializer="orthogonal"
        )

    def call(self, x, states, training=False):
        (h,) = states
        z = keras.ops.matmul(x, self.kernel) + keras.ops.matmul(h, self.recurrent_kernel)
        update, candidate = keras.ops.split(z, 2, axis=-1)
        update = keras.ops.sigmoid(update)
        h = update * h + (1 - update) * keras.ops.tanh(candidate)
        return h, [h]


CELLS = {
    "SimpleRNNCell": keras.layers.SimpleRNNCell,
    "GRUCell": keras.layers.GRUCell,
    "LSTMCell": keras.layers.LSTMCell,
    "OwnCell": OwnCell,
    "StackedCells": lambda units: keras.layers.StackedRNNCells(
        [keras.layers.LSTMCell(units), keras.layers.GRUCell(units)]
    ),
}
