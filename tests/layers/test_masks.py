"""Masks: the state is held, nothing that stands in a masked step reaches any gradient."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import CELLS, assert_same, data, differentiate, make, reference

import kbptt
from kbptt.truncation import Windowed

T = 9
MASKS = {
    "right": [[1] * 6 + [0] * 3, [1] * 9],
    "left": [[0] * 4 + [1] * 5, [1] * 9],
    "interior": [[1, 1, 0, 1, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0, 1, 1, 0]],
    "a row": [[0] * 9, [1] * 9],
    "a window": [[1, 1, 1, 0, 0, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0, 1, 1]],
    "all": [[0] * 9, [0] * 9],
}
SIZES = [(), (3,), (4, 2)]

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("cell", CELLS)
def test_masks(cell, kind):
    mask = np.array(MASKS[kind], bool)
    x, state, e, d = data(cell, T)
    x[~mask] = np.nan
    for size, zero in itertools.product(SIZES, [False, True]):
        layer = make(cell, truncation=Windowed(*size) if size else None, zero_output_for_mask=zero)
        found = differentiate(layer, x, state, e, d, mask=mask)
        expected = reference(layer, x, state, e, d, *size, mask=mask, zero_output_for_mask=zero)
        assert_same(found, expected)
        assert np.all(found[0][~mask] == 0)
        assert not any(np.isnan(g).any() for g in (found[0], *found[1], *found[2], found[3]))


@pytest.mark.parametrize("cell", CELLS)
def test_masks_of_keras_mean_the_same(cell):
    """Outputs and states under masks, in both directions."""
    mask = np.array(MASKS["interior"], bool)
    x, state, *_ = data(cell, T)
    for zero, backwards, sequences in itertools.product([False, True], repeat=3):
        arguments = {
            "zero_output_for_mask": zero,
            "go_backwards": backwards,
            "return_sequences": sequences,
        }
        ours, theirs = make(cell, **arguments), make(cell, library=keras.layers, **arguments)
        for given in ({}, {"initial_state": list(state)}):
            for a, b in zip(
                ours(x, mask=mask, **given), theirs(x, mask=mask, **given), strict=True
            ):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_masks_flow_through_a_model():
    """From an Embedding through two layers to a masked loss, as with the layers of Keras."""
    tokens = np.array([[3, 1, 2, 0, 0], [1, 2, 4, 4, 1], [0, 0, 0, 0, 0]])
    y = np.random.default_rng(0).normal(size=(3, 5, 2))

    def gradients(library):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.layers.Embedding(5, 3, mask_zero=True),
                library.LSTM(4, return_sequences=True),
                keras.layers.Bidirectional(library.GRU(3, return_sequences=True)),
                keras.layers.Dense(2),
            ]
        )
        model.build((None, 5))
        with tf.GradientTape() as tape:
            predicted = model(tokens, training=True)
            loss = keras.losses.MeanSquaredError()
            mask = predicted._keras_mask
            value = loss(y, predicted, sample_weight=tf.cast(mask, "float32"))
        return [tf.convert_to_tensor(g) for g in tape.gradient(value, model.trainable_weights)]

    for a, b in zip(gradients(kbptt), gradients(keras.layers), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 8), (2, 10), (3, 9), (2, 9, 1), (9,)])
def test_masks_of_the_wrong_shape(shape):
    layer = make("GRU")
    for name in ("mask", "resets"):
        with pytest.raises(ValueError, match=rf"`{name}` of shape \(batch, timesteps\) = \(2, 9\)"):
            layer(np.zeros((2, 9, 3)), **{name: np.ones(shape, bool)})
