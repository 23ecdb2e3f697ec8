"""Training on a stream written out by hand: sequence by sequence, without masks or carried rows."""

import keras
import numpy as np
import tensorflow as tf

import kbptt

FEATURES, TARGETS = 3, 2
RATE = 0.0625  # exact in float32, as Keras keeps it


class Scaled(keras.layers.Layer):
    """A cell of the user's own, whose output is not its state."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], self.units), "glorot_uniform", name="kernel")
        self.own = self.add_weight((self.units, self.units), "orthogonal", name="own")

    def call(self, inputs, states):
        h = keras.ops.tanh(inputs @ self.kernel + states[0] @ self.own)
        return 2 * h, [h]


CELLS = [(keras.layers.LSTMCell, 3), (keras.layers.GRUCell, 4)]
RECURRENT = {
    "LSTM": lambda **o: [kbptt.LSTM(4, return_sequences=True, **o)],
    "GRU": lambda **o: [kbptt.GRU(4, return_sequences=True, **o)],
    "SimpleRNN": lambda **o: [kbptt.SimpleRNN(4, return_sequences=True, **o)],
    "stack": lambda **o: [
        kbptt.GRU(3, return_sequences=True, **o),
        kbptt.LSTM(4, return_sequences=True, **o),
    ],
    "RNN": lambda **o: [
        kbptt.RNN([cell(n, dtype=o.get("dtype")) for cell, n in CELLS], return_sequences=True, **o)
    ],
    "own cell": lambda **o: [
        kbptt.RNN(Scaled(4, dtype=o.get("dtype")), return_sequences=True, **o)
    ],
}


def build(cell="LSTM", timesteps=None, pack=False, seed=0, optimizer=None, head=True, **options):
    """A compiled model of float64 with weights that do not depend on the number of timesteps."""
    keras.utils.set_random_seed(seed)
    with_dtype = {"dtype": "float64", **options}
    layers = RECURRENT[cell](**with_dtype)
    x = keras.Input((timesteps, FEATURES), dtype="float64")
    resets = keras.Input((timesteps,), dtype="bool")
    h = x
    for layer in layers:
        h = layer(h, resets=resets) if pack else layer(h)
    if head:
        h = keras.layers.Dense(TARGETS, dtype="float64")(h)
    model = keras.Model([x, resets] if pack else x, h)
    rng = np.random.default_rng(1)
    model.set_weights([0.6 * rng.normal(size=w.shape) for w in model.get_weights()])
    model.compile(
        optimizer or keras.optimizers.SGD(RATE),
        keras.losses.MeanSquaredError(dtype="float64"),
        metrics=["mae"],
    )
    return model


def sequences(*sizes, seed=0):
    """x and y of sequences of these sizes."""
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(size, FEATURES)) for size in sizes]
    return x, [rng.normal(size=(size, TARGETS)) for size in sizes]


class Loop:
    """What `StreamState` is to do, row by row and call by call.

    Args:
        model: The model; its weights are trained.
    """

    def __init__(self, model, rate=RATE):
        self.layers = [one for one in model.layers if isinstance(one, keras.layers.RNN)]
        self.head = model.layers[-1]
        self.weights = [v.value for v in model.trainable_variables]
        self.rate = rate
        self.losses, self.counts, self.gradients, self.states = [], [], [], {}

    def run(self, x, states):
        """Outputs and states after ``(timesteps, features)``; states None: those of the layers."""
        h, after = tf.convert_to_tensor(x[None]), []
        for layer, state in zip(self.layers, states or [None] * len(self.layers), strict=True):
            state = layer.get_initial_state(1) if state is None else state
            before, layer.return_state = layer.return_state, True
            h, *final = layer(h, initial_state=state)
            layer.return_state = before
            after.append(keras.tree.pack_sequence_as(state, keras.tree.flatten(final)))
        return h[0], after

    def epoch(self, data):
        """Trains on the epoch that `data` is in; the states of the rows begin anew."""
        self.states = {}
        self.losses, self.counts = [], []
        for window in range(len(data)):
            with tf.GradientTape() as tape:
                parts = [
                    (row, part)
                    for row in range(data.rows)
                    for part in data.epoch.parts(window, row)
                ]
                pieces = [self.part(data, row, part) for row, part in parts]
                count = sum(n for _, n in pieces)
                loss = tf.add_n([s for s, _ in pieces]) / max(count, 1)
            self.losses.append(float(loss))
            self.counts.append(count)
            self.gradients = tape.gradient(loss, self.weights, unconnected_gradients="zero")
            for weight, gradient in zip(self.weights, self.gradients, strict=True):
                weight.assign_sub(self.rate * gradient)

    def part(self, data, row, part):
        """Sum of the losses of a part of a window, and how many steps have one."""
        x, y = data.sequences.read(part.sequence, part.first, part.stop)
        states = None if part.first == 0 else self.states[row]
        context = max(data.context - part.at, 0)  # steps of the part without a loss
        kept = max(data.length - part.at, 0) if data.context else len(x)
        # Where the next window of the row begins to read.
        on = x[:kept]
        if len(on):
            self.states[row] = stopped(self.run(on, states)[1])
        if context >= len(x):
            return tf.zeros([], tf.float64), 0
        if context and not data.context_gradient:
            states = stopped(self.run(x[:context], states)[1])
            outputs = self.run(x[context:], states)[0]
        else:
            outputs = self.run(x, states)[0][context:]
        error = tf.square(self.head(outputs) - y[context:])
        return tf.reduce_sum(tf.reduce_mean(error, -1)), len(x) - context


def stopped(states):
    return keras.tree.map_structure(tf.stop_gradient, states)
