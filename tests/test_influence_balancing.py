"""Influence balancing: what every truncation sees of ∂s/∂θ, and where training goes with it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from recurrent import running_eagerly

import kbptt
from kbptt.tasks.keras_objects import InfluenceBalancingCell
from kbptt.truncation import Full, Randomized, SnAp, Windowed

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

from papers import influence_balancing as script


def test_the_sign_of_every_truncation():
    """In the steady state ∂L/∂θ is (s − 1)·Σ of the influences that the window sees: exactly."""
    theta, timesteps = 0.5, 240
    chain = 0.5 * (np.eye(23) + np.eye(23, k=1))
    drive = np.where(np.arange(23) < 10, 1.0, -1.0)
    steady = np.linalg.solve(np.eye(23) - chain, theta * drive)
    assert steady[0] == pytest.approx(-6 * theta)
    seen = np.cumsum(script.influence(timesteps))
    cell = InfluenceBalancingCell(dtype="float64")
    layer = kbptt.RNN(cell, return_sequences=True, dtype="float64")
    x, state = np.zeros((1, timesteps, 1)), tf.constant(steady[None])
    layer.build((1, timesteps, 1))

    def gradient(truncation):
        layer.truncation = truncation
        with running_eagerly(), tf.GradientTape() as tape:
            s = layer(x, initial_state=[state])
            loss = tf.reduce_mean(0.5 * (s - 1) ** 2)
        return float(tape.gradient(loss, cell.theta.value))

    error = steady[0] - 1
    for length in (60, 120):  # all of which divide the timesteps
        expected = error * np.mean(seen[:length])
        assert gradient(Windowed(length)) == pytest.approx(expected, rel=1e-9)
        assert expected / error == pytest.approx(script.expected_influence(Windowed(length)))
        assert (expected < 0) == (length < 110)  # a negative gradient lets θ grow: away
    for length in (40, 41):
        lags = np.minimum(np.arange(timesteps), length - 1)
        assert gradient(Windowed(length, 1)) == pytest.approx(error * np.mean(seen[lags]), rel=1e-9)
        assert (script.expected_influence(Windowed(length, 1)) > 0) == (length < 41)
    assert gradient(Full()) == pytest.approx(error * np.mean(seen), rel=1e-9)


@pytest.mark.parametrize(
    ("truncation", "every", "converges"),
    [
        (Windowed(50), 400, False),
        (Randomized.artbp(16, 5, seed=1), 400, True),
        (Full(), 400, True),
        # An update every 25 timesteps: what happened before them has to be carried on.
        (Full(), 25, False),
        (SnAp(1), 25, True),
    ],
    ids=["chunks", "artbp", "full", "window", "snap"],
)
def test_training(truncation, every, converges):
    steps, rate = (40, 5e-3) if every == 400 else (240, 6e-4)
    theta = script.train(truncation, steps, rate, timesteps=every)
    distance = np.abs(theta - script.SOLUTION)
    assert distance[0] == pytest.approx(2 / 3)
    if converges:
        assert distance[-1] < 0.1
    else:
        assert distance[-1] > 10
        assert np.all(np.diff(distance[len(distance) // 2 :]) > 0)


def test_parameters_of_single_units_are_a_different_matter():
    """A network with a weight for each unit of the chain: SnAp-1 sees that of the first alone."""
    signs = np.where(np.arange(23) < 10, 1.0, -1.0)
    chain = 0.5 * (np.eye(23) + np.eye(23, k=-1))  # h_{t−1} U
    seen = []
    for truncation in ("snap1", None):
        layer = kbptt.SimpleRNN(
            23, activation=None, use_bias=False, truncation=truncation, dtype="float64"
        )
        x = tf.ones([1, 400, 1], tf.float64)
        layer.build(x.shape)
        layer.set_weights([0.5 * signs[None], chain])
        with tf.GradientTape() as tape:
            s = layer(x)[0, 0]
        seen.append(np.sum(tape.gradient(s, layer.cell.kernel.value) * signs))
    np.testing.assert_allclose(seen, [2, -6], rtol=1e-9)
