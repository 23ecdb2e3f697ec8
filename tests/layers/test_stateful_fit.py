"""What goes wrong with ``stateful=True`` is said in one sentence, before anything is trained."""

import keras
import numpy as np
import pytest

import kbptt


def build(layer):
    model = keras.Sequential([keras.Input(batch_shape=(4, 5, 3)), layer])
    model.compile("sgd", "mse")
    return model


def fit(model, samples=8, **arguments):
    before = model.get_weights()
    x, y = np.zeros((samples, 5, 3)), np.zeros((samples, 2))
    try:
        model.fit(x, y, batch_size=4, verbose=0, **arguments)
    except ValueError:
        assert all(map(np.array_equal, model.get_weights(), before))
        raise


def test_shuffled_arrays_and_epochs_without_a_reset_are_warned_of_once():
    with pytest.warns(UserWarning, match="shuffles the batches") as record:
        model = build(kbptt.LSTM(2, stateful=True))
        fit(model)
        fit(model)
    assert len(record) == 1
    with pytest.warns(UserWarning, match="and `fit` starts every epoch from .*Streams"):
        fit(build(kbptt.LSTM(2, stateful=True)), shuffle=False, epochs=2)


def test_nothing_is_said_of_batches_in_order():
    fit(build(kbptt.LSTM(2, stateful=True)), shuffle=False)
    fit(build(kbptt.LSTM(2)), epochs=2)


def test_a_smaller_last_batch_is_refused_before_training():
    with pytest.raises(ValueError, match="With 10 samples, the last batch has 2"):
        fit(build(kbptt.GRU(2, stateful=True)), samples=10, shuffle=False)


def test_a_smaller_last_batch_of_validation_is_refused_before_training():
    model = build(kbptt.GRU(2, stateful=True))
    validation = np.zeros((6, 5, 3)), np.zeros((6, 2))
    with pytest.raises(ValueError, match="With 6 samples, the last batch has 2"):
        fit(model, shuffle=False, validation_data=validation)
    model = build(kbptt.GRU(2, stateful=True))
    with pytest.raises(ValueError, match="With 2 samples, the last batch has 2"):
        fit(model, samples=10, shuffle=False, validation_split=0.2)
    fit(build(kbptt.GRU(2, stateful=True)), samples=10, shuffle=False, steps_per_epoch=2)


def test_another_batch_size_is_refused():
    model = build(kbptt.GRU(2, stateful=True))
    fit(model, shuffle=False)
    with pytest.raises(ValueError, match="stateful: the batch size must stay the same, 4"):
        model(np.zeros((3, 5, 3)))


def test_bidirectional_and_stateful_is_refused():
    model = build(keras.layers.Bidirectional(kbptt.GRU(1, stateful=True)))
    with pytest.raises(ValueError, match="stateful inside of Bidirectional, which reads"):
        fit(model, shuffle=False)
    assert model(np.zeros((4, 5, 3))).shape == (4, 2)  # as in Keras
