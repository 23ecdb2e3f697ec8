"""What is drawn at random in a backward pass, where `truncation_bias` measures one."""

import keras
import numpy as np
import pytest
from recurrent import running_eagerly

import kbptt
from kbptt.analysis import truncation_bias

T = 6
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(5, T, 3)), RNG.normal(size=(5, T, 1))


@pytest.fixture(params=["tensorflow", "native"], autouse=True)
def loops(request):
    with running_eagerly(request.param):
        yield


def test_the_bias_is_not_that_of_what_a_backward_pass_draws():
    layer = kbptt.LSTM(3, h_detach=0.5, return_sequences=Y.ndim == 3)
    model = keras.Sequential([keras.Input(X.shape[1:]), layer, keras.layers.Dense(Y.shape[-1])])
    model.compile("sgd", "mse")
    (state,) = layer.random_states()
    before = state.numpy()
    assert truncation_bias(model, X, Y, T) < 1e-6 and layer.h_detach == 0.5
    found = truncation_bias(model, X, Y, 2)
    np.testing.assert_array_equal(state, before)
    layer.h_detach = 0.0
    np.testing.assert_allclose(found, truncation_bias(model, X, Y, 2), rtol=1e-6)


def test_measuring_draws_the_same_again_and_leaves_what_is_drawn_next():
    truncation = kbptt.truncation.Randomized(0.5, per_sample=True, seed=1)
    layer = kbptt.LSTM(3, truncation=truncation, return_sequences=True)
    model = keras.Sequential([keras.Input(X.shape[1:]), layer, keras.layers.Dense(Y.shape[-1])])
    model.compile("sgd", "mse")
    (state,) = layer.random_states()
    before = state.numpy()
    first, second = (truncation_bias(model, X, Y, layer.truncation) for _ in range(2))
    assert first > 0 and first == second
    np.testing.assert_array_equal(state, before)
