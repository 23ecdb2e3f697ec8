"""`kbptt.RNN` with cells of every kind, beside `keras.layers.RNN` and a reference."""

import keras
import numpy as np
import pytest
import reference_bptt
import tensorflow as tf
from keras import ops
from recurrent import differentiate, randomize

import kbptt
from kbptt.truncation import Windowed

T, FEATURES = 7, 3


@keras.saving.register_keras_serializable(package="tests")
class Cell(keras.layers.Layer):
    """A vanilla cell of the user: one state, which is the output."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")

    def call(self, inputs, states):
        h = ops.tanh(inputs @ self.kernel + states[0] @ self.recurrent)
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Projected(Cell):
    """The output is a function of the state, of another width (as in an LSTM with projection)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.output_size = 2

    def build(self, input_shape):
        super().build(input_shape)
        self.projection = self.add_weight(shape=(self.units, 2), name="projection")

    def call(self, inputs, states):
        h, _ = super().call(inputs, states)
        return ops.tanh(h @ self.projection), [h]


class TwoStates(Cell):
    """States of different widths, the output is the second."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size, self.output_size = [2, 4], 4

    def build(self, input_shape):
        super().build(input_shape)
        self.mix = self.add_weight(shape=(6, 2), name="mix")

    def call(self, inputs, states):
        memory = ops.tanh(ops.concatenate([states[0], states[1]], axis=-1) @ self.mix)
        h, _ = super().call(inputs, [states[1]])
        h = h * ops.mean(memory, axis=-1, keepdims=True)
        return h, [memory, h]


class Wrapper(keras.layers.Layer):
    """A cell around a cell, as users write them for residual connections."""

    def __init__(self, cell, **kwargs):
        super().__init__(**kwargs)
        self.cell = cell
        self.state_size, self.output_size = cell.state_size, cell.output_size

    def build(self, input_shape):
        self.cell.build(input_shape)

    def call(self, inputs, states, training=False):
        output, states = self.cell(inputs, states, training=training)
        return output + ops.sum(inputs, axis=-1, keepdims=True), states

    def get_initial_state(self, batch_size=None):
        return self.cell.get_initial_state(batch_size)


class Plain:
    """No Keras layer at all, and without weights."""

    state_size = output_size = FEATURES
    compute_dtype = "float64"

    def __call__(self, inputs, states):
        h = ops.sin(inputs + 0.9 * states[0])
        return h, [h]

    call = __call__


class MatrixInputs(Cell):
    """Inputs of more than one axis per timestep."""

    def build(self, input_shape):
        super().build((input_shape[-1] * input_shape[-2],))

    def call(self, inputs, states):
        return super().call(ops.reshape(inputs, (-1, inputs.shape[1] * inputs.shape[2])), states)


def cells():
    layers = keras.layers
    yield "gru", lambda d: layers.GRUCell(4, dtype=d)
    yield "reset before", lambda d: layers.GRUCell(4, reset_after=False, dtype=d)
    yield (
        "stacked",
        lambda d: layers.StackedRNNCells([layers.LSTMCell(3, dtype=d), Cell(4, dtype=d)], dtype=d),
    )
    yield (
        "stack of three",
        lambda d: layers.StackedRNNCells(
            [layers.GRUCell(2, dtype=d), layers.LSTMCell(3, dtype=d), Cell(4, dtype=d)], dtype=d
        ),
    )
    yield "user", lambda d: Cell(dtype=d)
    yield "projected", lambda d: Projected(dtype=d)
    yield "two states", lambda d: TwoStates(dtype=d)
    yield "wrapper", lambda d: Wrapper(layers.LSTMCell(4, dtype=d), dtype=d)
    yield "no layer", lambda d: Plain()
    yield "matrix", lambda d: MatrixInputs(dtype=d)


CELLS = dict(cells())


def pair(kind, dtype="float64", **arguments):
    shape = (None, None, 2, FEATURES) if kind == "matrix" else (None, None, FEATURES)
    layers = []
    for library, own in ((kbptt, arguments), (keras.layers, {})):
        layer = library.RNN(
            CELLS[kind](dtype), return_sequences=True, return_state=True, dtype=dtype, **own
        )
        layer.build(shape)
        randomize(layer)
        layers.append(layer)
    return layers


def data(layer, kind, batch=2):
    rng = np.random.default_rng(0)
    shape = (2, FEATURES) if kind == "matrix" else (FEATURES,)
    x = rng.normal(size=(batch, T, *shape))
    widths = keras.tree.flatten(layer.state_size)
    output = getattr(layer.cell, "output_size", None) or widths[0]
    e = rng.normal(size=(batch, T, output))
    return x, e, [rng.normal(size=(batch, w)) for w in widths]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kind", CELLS)
def test_full_bptt_is_the_gradient_of_keras(kind):
    ours, theirs = pair(kind)
    x, e, d = data(ours, kind)
    mask = np.array([[1, 1, 0, 1, 0, 1, 1], [0, 1, 1, 1, 1, 0, 0]], bool)
    for given in ({}, {"mask": mask}):
        found = differentiate(ours, x, None, e, d, **given)
        expected = differentiate(theirs, x, None, e, d, **given)
        for index in (0, 2, 4, 5):
            for a, b in zip(listed(found[index]), listed(expected[index]), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("size", [(3, 3), (4, 2)], ids=str)
def test_windows_are_losses_truncated_one_by_one(kind, size):
    """Every window is the Keras layer on its own timesteps, from a state taken as constant."""
    ours, theirs = pair(kind, truncation=Windowed(*size))
    x, e, d = data(ours, kind)
    total = None
    for window in reference_bptt.windows(T, *size):
        state = None
        if window.start:
            _, *state = theirs(x[:, : window.start])
            state = keras.tree.map_structure(tf.stop_gradient, state)
        part = np.zeros_like(x)
        inside = slice(window.start, window.end)
        own = e[:, inside].copy()
        own[:, : window.first - window.start] = 0
        last = d if window.end == T else None
        variables = [v.value for v in theirs.trainable_variables]
        inputs = tf.convert_to_tensor(x[:, inside])
        with tf.GradientTape() as tape:
            tape.watch([inputs, *variables])
            outputs, *final = theirs(inputs, initial_state=state)
            loss = tf.reduce_sum(outputs * own)
            for a, b in zip(keras.tree.flatten(final), last or [], strict=False):
                loss += tf.reduce_sum(a * b)
        dx, *d_weights = tape.gradient(loss, [inputs, *variables], unconnected_gradients="zero")
        part[:, inside] = dx
        parts = [part, *d_weights]
        total = parts if total is None else [a + b for a, b in zip(total, parts, strict=True)]
    found = differentiate(ours, x, None, e, d)
    for a, b in zip([found[0], *found[2]], total, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["stacked", "projected", "wrapper"])
def test_compiled(kind):
    ours, theirs = pair(kind, "float32")
    x, e, d = (tf.nest.map_structure(np.float32, v) for v in data(ours, kind))
    found, expected = differentiate(ours, x, None, e, d), differentiate(theirs, x, None, e, d)
    for a, b in zip([found[0], *found[2]], [expected[0], *expected[2]], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("eager")
def test_norms_of_a_stack_are_those_of_its_top():
    """As those of the same cells in two layers."""
    first, second = (keras.layers.GRUCell(4, dtype="float64") for _ in range(2))
    stack = kbptt.RNN([first, second], return_sequences=True, return_state=True, dtype="float64")
    stack.build((None, None, FEATURES))
    randomize(stack)
    top = kbptt.RNN(second, return_sequences=True, return_state=True, dtype="float64")
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(2, T, FEATURES)), rng.normal(size=(2, T, 4))
    bottom = keras.layers.RNN(first, return_sequences=True, dtype="float64")
    norms = differentiate(stack, x, None, e, [])[3]
    alone = differentiate(top, bottom(x).numpy(), None, e, [])[3]
    np.testing.assert_allclose(norms, alone, rtol=1e-6)


@pytest.mark.usefixtures("eager")
def test_cells_with_dropout():
    """Keras' own dropout: one mask for the whole sequence, in stacks and inside wrappers too."""
    for make in (
        lambda: keras.layers.LSTMCell(4, dropout=0.4, recurrent_dropout=0.3, seed=3),
        lambda: [keras.layers.GRUCell(4, dropout=0.4, seed=3), keras.layers.SimpleRNNCell(3)],
        lambda: Wrapper(keras.layers.GRUCell(4, recurrent_dropout=0.4, seed=3)),
    ):
        found = []
        for truncation in (None, 3, None):
            layer = kbptt.RNN(make(), return_sequences=True, return_state=True)
            layer.truncation = truncation
            layer.build((None, None, FEATURES))
            randomize(layer)
            x, e, d = (tf.nest.map_structure(np.float32, v) for v in data(layer, "gru"))
            if len(found) == 2:
                with kbptt.engine.differentiable():
                    found.append(differentiate(layer, x, None, e, d, training=True))
            else:
                found.append(differentiate(layer, x, None, e, d, training=True))
        full, chunks, ordinary = found
        np.testing.assert_allclose(chunks[4], full[4], rtol=1e-5, atol=1e-6)
        for a, b in zip([full[0], *full[2]], [ordinary[0], *ordinary[2]], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert np.any(np.abs(chunks[0] - full[0]) > 1e-4)
        # Outside training nothing is dropped.
        np.testing.assert_array_equal(*(layer(x)[0].numpy() for _ in range(2)))


class Noisy(Cell):
    """Draws random numbers at every timestep, and has a Dropout layer inside."""

    def build(self, input_shape):
        super().build(input_shape)
        self.seed = keras.random.SeedGenerator(5)
        self.drop = keras.layers.Dropout(0.3, seed=6, dtype=self.dtype_policy)

    def call(self, inputs, states, training=False):
        h, _ = super().call(inputs, states)
        if training:
            h += 0.1 * keras.random.normal(ops.shape(h), dtype=h.dtype, seed=self.seed)
        h = self.drop(h, training=training)
        return h, [h]


def test_a_cell_that_draws_random_numbers_at_every_timestep():
    """Its loop runs once: the gradient is that of the numbers that were drawn."""
    layer = kbptt.RNN(
        Noisy(dtype="float64"), return_sequences=True, return_state=True, dtype="float64"
    )
    layer.build((None, None, FEATURES))
    randomize(layer)
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(2, 5, FEATURES)), rng.normal(size=(2, 5, 4))
    seeds = [layer.cell.seed.state, layer.cell.drop.seed_generator.state]
    saved = [ops.convert_to_numpy(s) for s in seeds]

    def outputs(training=True):
        for s, value in zip(seeds, saved, strict=True):
            s.assign(value)
        return layer(x, training=training)[0].numpy()

    def loss():
        return float(np.sum(outputs() * e))

    for s, value in zip(seeds, saved, strict=True):
        s.assign(value)
    dx, _, _, norms, found, _ = differentiate(layer, x, None, e, [], training=True)
    np.testing.assert_array_equal(found, outputs())
    np.testing.assert_allclose(dx, reference_bptt.central_difference(loss, x), rtol=1e-5, atol=1e-8)
    assert np.all(norms > 0)
    # Different numbers at every timestep and in every call.
    h = [layer(x, training=True)[0].numpy() for _ in range(2)]
    assert np.any(h[0] != h[1])
    # Truncation holds there as well.
    layer.truncation = 2
    e[:, :-1] = 0
    dx = differentiate(layer, x, None, e, [], training=True)[0]
    assert np.all(dx[:, :3] == 0)
    assert np.any(dx[:, 3:] != 0)
    layer.truncation = Windowed(3, 1)
    with pytest.raises(ValueError, match="Sliding windows cannot"):
        differentiate(layer, x, None, e, [], training=True)


@pytest.mark.usefixtures("eager")
def test_freezing_a_part_of_a_stack_after_it_was_called():
    """The order of trainable and frozen weights changes, and with it nothing else."""
    layer = kbptt.RNN([Cell(4), Cell(4)], return_sequences=True, return_state=True)
    x = np.random.default_rng(0).normal(size=(2, T, 4)).astype("float32")
    e = np.ones((2, T, 4), "float32")
    layer(x)
    before = differentiate(layer, x, None, e, [])
    layer.cell.cells[0].trainable = False
    after = differentiate(layer, x, None, e, [])
    assert len(after[2]) == 2
    np.testing.assert_allclose(after[4], before[4], rtol=1e-6)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-5)
    for a, b in zip(after[2], before[2][2:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_freezing_a_part_of_a_compiled_stack():
    layer = kbptt.RNN([Cell(4), Cell(4)], return_sequences=True, return_state=True)
    x = np.random.default_rng(0).normal(size=(2, T, 4)).astype("float32")
    before = layer(x)[0]
    layer.cell.cells[0].trainable = False
    np.testing.assert_allclose(layer(x)[0], before, rtol=1e-6)


@pytest.mark.usefixtures("eager")
def test_a_cell_that_reads_tokens():
    class Tokens(Cell):
        def build(self, input_shape):
            super().build((4,))
            self.table = self.add_weight(shape=(5, 4), name="table")

        def call(self, inputs, states):
            return super().call(ops.take(self.table, inputs[:, 0], axis=0), states)

    x = np.random.default_rng(0).integers(0, 5, (2, T, 1))
    found = []
    for library in (kbptt, keras.layers):
        layer = library.RNN(Tokens(4), return_sequences=True)
        layer.build((None, T, 1))
        randomize(layer)
        weights = [v.value for v in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = tf.reduce_sum(layer(x) ** 2)
        found.append([tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_layer_that_saw_integers_first_does_not_cut_off_fractions():
    layer = kbptt.RNN(keras.layers.GRUCell(4))
    layer(np.ones((2, T, FEATURES), "int32"))
    x = np.random.default_rng(0).random((2, T, FEATURES), "float32")
    np.testing.assert_allclose(layer(x), keras.layers.RNN(layer.cell)(x), rtol=1e-5, atol=1e-6)


def test_configuration_of_user_cells(tmp_path):
    model = keras.Sequential(
        [keras.Input((T, FEATURES)), kbptt.RNN([Cell(4), Cell(2)], truncation=Windowed(4, 2))]
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.layers[-1]) is kbptt.RNN
    assert again.layers[-1].truncation == Windowed(4, 2)
    x = np.random.default_rng(0).normal(size=(2, T, FEATURES)).astype("float32")
    np.testing.assert_allclose(again(x), model(x), rtol=1e-6)


def listed(value):
    return value if isinstance(value, list) else [value]
