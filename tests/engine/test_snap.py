"""SnAp-1 against influence matrices that NumPy carries forward, as the paper defines them."""

import keras
import numpy as np
import numpy_snap
import pytest
import tensorflow as tf
from recurrent import CELLS, data, differentiate, make, randomize, running_eagerly

import kbptt
from kbptt.clipping import ByNorm
from kbptt.engine import using
from kbptt.truncation import SnAp

ENGINES = ["tensorflow", "native"]


def forward_in_time(layer, x, state, e, d, mask=None, resets=None, pattern=numpy_snap.own_units):
    """Gradients of Σ e·outputs + Σ d·(final state) of the weights, summed over the batch."""
    weights = [np.float64(w) for w in layer.get_weights()]
    start, last = np.concatenate(state, axis=1), np.concatenate(d, axis=1)
    total = [np.zeros_like(w) for w in weights]
    for b in range(len(x)):
        kept, reset = (None if m is None else m[b] for m in (mask, resets))
        found, _, j = numpy_snap.gradient(
            numpy_snap.CELLS[type(layer).__name__],
            weights,
            x[b],
            e[b],
            start[b],
            kept=kept,
            resets=reset,
            mask=pattern,
        )
        final = numpy_snap.unpack(last[b] @ j, weights)
        total = [t + f + g for t, f, g in zip(total, found, final, strict=True)]
    return total


def assert_close(found, expected, tolerance=1e-10):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cell", CELLS)
def test_is_what_the_paper_defines(cell, engine):
    """Also under a mask and with resets; a net whose units act on each other, so not BPTT."""
    x, state, e, d = data(cell, timesteps=7, units=3, features=2)
    state = [np.zeros_like(s) for s in state]  # what numpy_snap's resets go back to
    rng = np.random.default_rng(5)
    mask, resets = rng.random([2, 7]) < 0.7, rng.random([2, 7]) < 0.2
    layer = make(cell, units=3, features=2, truncation=SnAp(1))
    plain = make(cell, units=3, features=2)
    plain.set_weights(layer.get_weights())
    with running_eagerly(engine):
        for more in ({}, {"mask": mask, "resets": resets}):
            arguments = {name: tf.constant(value) for name, value in more.items()}
            e_seen = e  # a masked output repeats the one before: zeros before the first step
            if more:
                begun = np.cumsum(mask, axis=1) > 0
                e_seen = e * begun[:, :, None]
            found = differentiate(layer, x, state, e, d, **arguments)[2]
            assert_close(found, forward_in_time(layer, x, state, e_seen, d, **more))
        _, _, full, _, outputs, _ = differentiate(plain, x, state, e, d)
        _, _, found, _, same, _ = differentiate(layer, x, state, e, d)
    np.testing.assert_array_equal(outputs, same)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(full, found, strict=True))


def only_diagonals(layer):
    kernel, recurrent, bias = layer.get_weights()
    eye = np.tile(np.eye(len(recurrent)), recurrent.shape[1] // len(recurrent))
    layer.set_weights([kernel, recurrent * eye, bias])
    return eye


@pytest.mark.parametrize(
    ("engine", "more", "settings"),
    [
        ("tensorflow", {}, {}),
        ("native", {}, {}),
        # Threads that share a row, gates that are not kept, a mask for each gate.
        ("native", {"recurrent_dropout": 0.3, "seed": 1}, {"members": 2, "kept_gates": 0}),
        ("tensorflow", {"recurrent_dropout": 0.3, "seed": 1}, {}),
    ],
    ids=["tensorflow", "native", "native-dropout", "tensorflow-dropout"],
)
@pytest.mark.parametrize("cell", CELLS)
def test_exact_where_units_do_not_act_on_each_other(cell, engine, more, settings):
    x, state, e, d = data(cell, timesteps=9, units=33)
    found = []
    with running_eagerly(engine), using(threads=2, **settings):
        for truncation in (SnAp(), None):
            layer = make(cell, units=33, truncation=truncation, **more)
            eye = only_diagonals(layer)
            found.append(differentiate(layer, x, state, e, d, training=True))
    snap, full = found
    assert_close([snap[0], *snap[1]], [full[0], *full[1]], 1e-13)
    # Of U the diagonals, which are all that such a net has.
    full[2][1], snap[2][1] = full[2][1] * eye, snap[2][1] * eye
    assert_close(snap[2], full[2], 1e-13)
    np.testing.assert_allclose(snap[3], full[3], rtol=1e-6)


def test_a_linear_unit():
    """h_t = a h_{t−1} + w x_t with x = 1: ∂h_T/∂w = Σ a^k, ∂h_T/∂a = Σ k a^(k−1) w."""
    a, w, steps = 0.9, 0.5, 20
    layer = kbptt.SimpleRNN(1, activation=None, use_bias=False, truncation="snap1", dtype="float64")
    x = tf.ones([1, steps, 1], tf.float64)
    layer.build(x.shape)
    layer.set_weights([np.array([[w]]), np.array([[a]])])
    with tf.GradientTape() as tape:
        h = layer(x)
    d_w, d_a = tape.gradient(h, [v.value for v in layer.trainable_variables])
    k = np.arange(steps)
    powers = a**k
    np.testing.assert_allclose(d_w, [[powers.sum()]], rtol=1e-12)
    # ∂h_t/∂a = Σ_s a^(t−s) h_{s−1},  h_s = w Σ_{k<s} a^k
    h = w * np.concatenate([[0], np.cumsum(powers)])
    np.testing.assert_allclose(d_a, [[np.sum(powers[::-1] * h[:-1])]], rtol=1e-12)


# Across calls ---------------------------------------------------------------------------------


def stateful(cell, **arguments):
    arguments = {"return_sequences": True, "return_state": True, "dtype": "float64", **arguments}
    layer = getattr(kbptt, cell)(3, stateful=True, truncation=SnAp(1), **arguments)
    layer.build((2, None, 2))
    randomize(layer)
    return layer


def windows_of(layer, x, e, ends, **by_step):
    """The gradients of the weights, summed over calls that end at `ends`."""
    total, first = 0, 0
    for end in ends:
        part = slice(None), slice(first, end)
        more = {name: tf.constant(value[part]) for name, value in by_step.items()}
        found = differentiate(layer, x[part], None, e[part], None, training=True, **more)
        total, first = [a + b for a, b in zip(total or [0] * 3, found[2], strict=True)], end
    return total


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cell", CELLS)
def test_calls_in_a_row_are_one_call(cell, engine):
    """Weights held: calls of any length give the gradient of the whole, masks and resets too."""
    x, state, e, _ = data(cell, timesteps=12, units=3, features=2)
    state = [np.zeros_like(s) for s in state]
    rng = np.random.default_rng(3)
    mask, resets = rng.random([2, 12]) < 0.8, np.zeros([2, 12], bool)
    mask[:, 0] = True  # else a masked output repeats one of the call before, or zeros
    mask[:, [4, 9]] = True
    resets[0, 6] = resets[1, 9] = True
    layer = stateful(cell)
    with running_eagerly(engine):
        for more in ({}, {"mask": mask, "resets": resets}):
            layer.reset_state()
            found = windows_of(layer, x, e, (5, 12), **more)
            no_final = [np.zeros_like(s) for s in state]
            assert_close(found, forward_in_time(layer, x, state, e, no_final, **more))


def test_new_states_depend_on_no_weights():
    x, _, e, _ = data("LSTM", timesteps=8, units=3, features=2)
    layer = stateful("LSTM")
    with running_eagerly("native"):
        first = windows_of(layer, x, e, (8,))
        again = windows_of(layer, x, e, (8,))
        layer.reset_state()
        reset = windows_of(layer, x, e, (8,))
        for variable in layer.states:  # a user's
            variable.assign(variable * 0)
        assigned = windows_of(layer, x, e, (8,))
    assert_close(reset, first, 0)
    assert_close(assigned, first, 0)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(again, first, strict=True))


def test_zoneout_in_both_loops():
    """The passes for the influence draw what the forward pass drew, for each row its own."""
    x, _, e, _ = data("LSTM", timesteps=9, units=3, features=2)
    found = []
    for engine in ENGINES:
        layer = stateful("LSTM", zoneout=(0.2, 0.4), gradient_clip=ByNorm(10.0), seed=1)
        with running_eagerly(engine):
            found.append(windows_of(layer, x, e, (4, 9)))
        assert ("cpu" in layer.loops) == (engine == "native")
    assert_close(*found)


class Collect(keras.optimizers.SGD):
    """Sums gradients up and leaves the weights as they are."""

    total = ()

    def apply(self, grads, trainable_variables=None):
        for total, gradient in zip(self.total, grads, strict=True):
            total.assign_add(gradient)


class Product(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.sum(y_true * y_pred, axis=-1)


@pytest.mark.parametrize("cell", ["LSTM", "RNN"])
def test_streams(cell):
    """Compiled, in fit; in kbptt.RNN with an unknown cell it is real-time recurrent learning."""
    rng = np.random.default_rng(0)
    lengths = (11, 7, 9)  # of three sequences, in two rows
    x = [rng.normal(size=(n, 2)) for n in lengths]
    y = [rng.normal(size=(n, 3)) for n in lengths]
    arguments = {"return_sequences": True, "truncation": SnAp(1), "dtype": "float64"}
    if cell == "RNN":
        layer, step, pattern = kbptt.RNN(Tanh(3, dtype="float64"), **arguments), "SimpleRNN", True
    else:
        layer, step, pattern = kbptt.LSTM(3, **arguments), "LSTM", False
    model = keras.Sequential([keras.Input((4, 2), dtype="float64"), layer])
    randomize(layer)
    optimizer = Collect()
    optimizer.total = [tf.Variable(tf.zeros_like(v.value)) for v in layer.trainable_variables]
    model.compile(optimizer, Product(reduction="sum", dtype="float64"))
    data = kbptt.data.Streams(x, y, 4, batch_size=2, target=None)
    model.fit(data, verbose=0, callbacks=[kbptt.callbacks.StreamState(data)])
    found = [total.numpy() for total in optimizer.total]
    weights = layer.get_weights()
    expected = [np.zeros_like(w) for w in weights]
    mask = numpy_snap.all_units if pattern else numpy_snap.own_units
    for one, target in zip(x, y, strict=True):
        start = np.zeros(6 if step == "LSTM" else 3)
        of_one, *_ = numpy_snap.gradient(
            numpy_snap.CELLS[step], weights, one, target, start, mask=mask
        )
        expected = [a + b for a, b in zip(expected, of_one, strict=True)]
    assert_close(found, expected)


class Tanh(keras.layers.Layer):
    """Elman's network, of which the engine does not know the equations."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], self.state_size))
        self.recurrent_kernel = self.add_weight((self.state_size, self.state_size))
        self.bias = self.add_weight((self.state_size,))

    def call(self, x, states):
        z = x @ self.kernel + states[0] @ self.recurrent_kernel + self.bias
        h = keras.ops.tanh(z)
        return h, [h]


# What is refused ------------------------------------------------------------------------------


def test_what_it_cannot_follow_is_refused():
    x = np.zeros((2, 5, 2), "float32")
    for arguments, match in [
        ({"normalization": "layer"}, "`normalization` acts between units"),
        ({"gradient_regularizer": "vanishing_gradient"}, "Remove one of them"),
        ({"h_detach": 0.5}, "`h_detach` acts"),
        ({"reset_after": False}, "reset_after=True"),
        ({"activation": lambda z: z}, "needs activations among"),
    ]:
        with pytest.raises(ValueError, match=match):
            kbptt.GRU(3, truncation="snap1", **arguments)(x)
    with pytest.raises(ValueError, match=r"Expected 1: .*Received: order=2"):
        SnAp(2)
    layer = stateful("GRU", dtype="float32")
    with pytest.raises(ValueError, match="without `burn_in`"):
        layer(x, training=True, burn_in=2)
    stack = kbptt.RNN([keras.layers.GRUCell(3)] * 2, stateful=True, truncation="snap1")
    stack.build(x.shape)
    with pytest.raises(ValueError, match="one layer per cell"):
        stack(x, training=True)
    with (
        kbptt.engine.differentiable(),
        pytest.raises(ValueError, match="not the derivative of any loss"),
    ):
        kbptt.GRU(3, truncation="snap1")(x)


def test_identifier_and_saving(tmp_path):
    model = keras.Sequential([keras.Input((5, 2)), kbptt.LSTM(3, truncation="snap1")])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].truncation == SnAp(1) == kbptt.truncation.get({"name": "snap"})
