"""Layer-normalised layers against a step-by-step reference, in float64."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import running_eagerly

import kbptt
from kbptt.normalization import LayerNormalization, RMSNormalization

B, T, D, U = 2, 7, 3, 4


def layer_norm(x, epsilon, centred=True):
    mean = tf.reduce_mean(x, axis=-1, keepdims=True) if centred else 0.0
    variance = tf.reduce_mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) / tf.sqrt(variance + epsilon)


def reference(name, x, w, normalization, cuts=(), x_masks=None, h_masks=None):
    """The equations of Ba, Kiros & Hinton (2016), one timestep after the other.

    Of the masks ``(batch, width)`` of dropout one for each gate.
    """
    count = w["kernel"].shape[-1] // U

    def product(value, kernel, masks):
        blocks = tf.split(kernel, count, axis=-1)
        masks = masks or [1.0] * count
        return tf.concat([(value * m) @ k for m, k in zip(masks, blocks, strict=True)], axis=-1)

    centred = type(normalization) is LayerNormalization
    norm = functools.partial(layer_norm, epsilon=normalization.epsilon, centred=centred)
    h = c = tf.zeros([B, U], tf.float64)
    outputs = []
    for t in range(T):
        if t in cuts:
            h, c = tf.stop_gradient(h), tf.stop_gradient(c)
        xw = product(x[:, t], w["kernel"], x_masks)
        hu = product(h, w["recurrent_kernel"], h_masks)
        if name == "SimpleRNN":
            h = tf.tanh(w["recurrent_gain"] * norm(xw + hu) + w["bias"])
        elif name == "LSTM":
            z = w["input_gain"] * norm(xw) + w["recurrent_gain"] * norm(hu) + w["bias"]
            i, f, g, o = tf.split(z, 4, axis=-1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            normalized = w["state_gain"] * norm(c) + w["state_bias"]
            h = tf.sigmoid(o) * tf.tanh(normalized)
            c = normalized if normalization.carry_normalized else c
        else:
            parts = []
            for sums, gain in ((xw, w["input_gain"]), (hu, w["recurrent_gain"])):
                gates = gain[: 2 * U] * norm(sums[:, : 2 * U])
                parts.append((gates, gain[2 * U :] * norm(sums[:, 2 * U :])))
            (x_zr, x_n), (h_zr, h_n) = parts
            zr = tf.sigmoid(x_zr + h_zr + w["bias"][0, : 2 * U] + w["bias"][1, : 2 * U])
            z, r = tf.split(zr, 2, axis=-1)
            n = tf.tanh(x_n + w["bias"][0, 2 * U :] + r * (h_n + w["bias"][1, 2 * U :]))
            h = z * h + (1 - z) * n
        outputs.append(h)
    return tf.stack(outputs, axis=1)


def make(name, **arguments):
    layer = getattr(kbptt, name)(U, return_sequences=True, dtype="float64", **arguments)
    layer.build((B, T, D))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


@pytest.mark.parametrize("name", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize("kind", [LayerNormalization, RMSNormalization])
@pytest.mark.parametrize("carry_normalized", [False, True])
@pytest.mark.parametrize("truncation", [None, 3])
def test_outputs_and_gradients_equal_the_equations_of_the_paper(
    name, kind, carry_normalized, truncation
):
    normalization = kind(1e-3, carry_normalized)
    layer = make(name, normalization=normalization, truncation=truncation)
    rng = np.random.default_rng(1)
    x, weighting = tf.constant(rng.normal(size=(B, T, D))), rng.normal(size=(B, T, U))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours = layer(x)
        loss = tf.reduce_sum(ours * weighting)
        weights = {v.name: tf.convert_to_tensor(v.value) for v in layer.trainable_variables}
        cuts = () if truncation is None else (1, 4)
        theirs = reference(name, x, weights, normalization, cuts)
        expected = tf.reduce_sum(theirs * weighting)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    variables = [v.value for v in layer.trainable_variables]
    got = tape.gradient(loss, [x, *variables])
    want = tape.gradient(expected, [x, *variables])
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize("kind", [LayerNormalization, RMSNormalization])
def test_each_gate_may_drop_out_other_inputs(name, kind, compiled):
    """What is normalized is the sum that is left, and not one that dropped out nothing."""
    arguments = {"dropout": 0.4, "recurrent_dropout": 0.3, "seed": 4, "truncation": 3}
    more = {} if name == "SimpleRNN" else {"implementation": 1}
    layer = make(name, normalization=kind(), **arguments, **more)
    again = make(name, normalization=kind(), **arguments, **more)
    rng = np.random.default_rng(1)
    x, weighting = tf.constant(rng.normal(size=(B, T, D))), rng.normal(size=(B, T, U))
    masks = (
        [tf.cast(m, tf.float64) for m in keras.tree.flatten(mask)]
        for mask in (
            again.cell.get_dropout_mask(x[:, 0]),
            again.cell.get_recurrent_dropout_mask(tf.zeros([B, U], tf.float64)),
        )
    )
    engine = running_eagerly("native" if compiled else "tensorflow")
    with engine, tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours = layer(x, training=True)
        loss = tf.reduce_sum(ours * weighting)
        weights = {v.name: tf.convert_to_tensor(v.value) for v in layer.trainable_variables}
        theirs = reference(name, x, weights, layer.normalization, (1, 4), *masks)
        expected = tf.reduce_sum(theirs * weighting)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    sources = [x, *[v.value for v in layer.trainable_variables]]
    found = zip(tape.gradient(loss, sources), tape.gradient(expected, sources), strict=True)
    for a, b in found:
        np.testing.assert_allclose(a, b, atol=1e-10)
    np.testing.assert_allclose(layer(x), reference(name, x, weights, layer.normalization))


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_sliding_windows_masks_and_resets_agree_with_the_plain_loop(name):
    """With every window long enough, all modes give the gradient of the differentiable loop."""
    layer = make(name, normalization="layer", truncation=kbptt.truncation.Windowed(T + 2, stride=2))
    plain = make(name, normalization="layer")
    rng = np.random.default_rng(2)
    x = tf.constant(rng.normal(size=(B, T, D)))
    mask, resets = rng.random((B, T)) > 0.3, rng.random((B, T)) > 0.7
    gradients = []
    for each, scope in ((layer, False), (plain, True)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            if scope:
                with kbptt.engine.differentiable():
                    y = each(x, mask=mask, resets=resets)
            else:
                y = each(x, mask=mask, resets=resets)
            loss = tf.reduce_sum(tf.sin(y))
        gradients.append(tape.gradient(loss, [x, *[v.value for v in each.trainable_variables]]))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("name", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize("normalization", [None, "layer"])
def test_advancing_step_by_step_is_running_the_layer(name, normalization):
    layer = make(name, normalization=normalization, return_state=True)
    x = np.random.default_rng(2).normal(size=(B, T, D))
    outputs, *final = layer(x)
    states = keras.tree.flatten(layer.get_initial_state(B))
    for t in range(T):
        states = layer.advance(x[:, t], states)
        np.testing.assert_allclose(states[0], outputs[:, t], atol=1e-12)
    for found, expected in zip(states, final, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_without_normalization_there_are_no_further_weights():
    assert [v.name for v in make("LSTM").weights] == ["kernel", "recurrent_kernel", "bias"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains(policy):
    layer = kbptt.LSTM(U, normalization="layer", truncation=3, dtype=policy)
    model = keras.Sequential([keras.Input((T, D)), layer, keras.layers.Dense(1, dtype="float32")])
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(8, T, D)).astype("float32")
    history = model.fit(x, x[:, -1, :1], epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert np.isfinite(layer.gradient_norms).all()


@pytest.mark.parametrize("identifier", ["layer", "layer_carried", "rms", LayerNormalization(1e-4)])
def test_saved_and_loaded(identifier, tmp_path):
    model = keras.Sequential([keras.Input((T, D)), kbptt.GRU(U, normalization=identifier)])
    x = np.random.default_rng(0).normal(size=(2, T, D)).astype("float32")
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.layers[0].normalization.get_config() == model.layers[0].normalization.get_config()


@pytest.mark.parametrize("bad", ["batch", 3, True, {"class_name": "Dense", "config": {}}])
def test_unknown_normalization_is_refused(bad):
    with pytest.raises((ValueError, TypeError)):
        kbptt.LSTM(3, normalization=bad)


@pytest.mark.parametrize(
    "arguments",
    [
        {"epsilon": 0},
        {"epsilon": -1},
        {"epsilon": float("nan")},
        {"epsilon": "1"},
        {"carry_normalized": "yes"},
        {"carry_normalized": None},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        LayerNormalization(**arguments)


@pytest.mark.parametrize(
    "bad",
    [
        "batch",
        1,
        True,
        kbptt.LSTM,
        keras.layers.LayerNormalization(),
        {"class_name": "None such", "config": {}},
    ],
)
def test_what_is_no_normalization_is_refused_with_those_that_are(bad):
    with pytest.raises(ValueError, match=r"`normalization`. Expected None, 'layer', 'rms'"):
        kbptt.GRU(3, normalization=bad)
