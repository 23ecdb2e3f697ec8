"""Policies: identifiers, configurations, refusals."""

import keras
import numpy as np
import pytest

import kbptt
from kbptt import truncation as t


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        (None, t.Full()),
        ("full", t.Full()),
        (64, t.Windowed(64)),
        (np.int64(64), t.Windowed(64, 64, "end")),
        ("artbp", t.Randomized.artbp(50, 3)),
        ({"name": "windowed", "length": 8, "stride": 2}, t.Windowed(8, 2)),
        ({"length": 8}, t.Windowed(8)),
        ({"name": "randomized", "keep_probability": 0.5}, t.Randomized(0.5)),
        ({"name": "artbp", "mean_length": 8}, t.Randomized.artbp(8)),
    ],
)
def test_identifiers(identifier, expected):
    assert t.get(identifier) == expected
    assert kbptt.LSTM(2, truncation=identifier).truncation == expected


POLICIES = [
    t.Full(),
    t.Windowed(8),
    t.Windowed(8, 3, align="start"),
    t.Randomized(0.9, per_sample=True, seed=4),
    t.Randomized([1.0, 0.5, 0.25]),
    t.Randomized.artbp(16, 6, per_sample=True, seed=3),
]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_configurations_round_trip(policy):
    assert t.get(policy) is policy
    assert t.get(t.serialize(policy)) == policy
    assert type(policy).from_config(policy.get_config()) == policy
    assert hash(t.get(t.serialize(policy))) == hash(policy)
    layer = kbptt.GRU(2, truncation=policy, gradient_clip=0.5)
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is kbptt.GRU
    assert again.truncation == policy
    assert again.gradient_clip == 0.5


def test_different_policies_are_different():
    assert len({*POLICIES, t.Windowed(8, 8), t.Windowed(8, 8, "start")}) == len(POLICIES) + 1


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, True, "3", float("nan"), float("inf"), "x", [], {}, {"k": 1}]
)
@pytest.mark.parametrize("layer", [kbptt.SimpleRNN, kbptt.GRU, kbptt.LSTM])
def test_bad_truncations(layer, value):
    with pytest.raises(ValueError, match="argument `truncation`"):
        layer(3, truncation=value)


def test_a_whole_float_is_told_how_to_mend_it():
    with pytest.raises(ValueError, match=r"`truncation`.*of type float.*Write 8"):
        t.get(8.0)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3", None, float("nan")])
def test_bad_lengths(value):
    with pytest.raises(ValueError, match=r"`length`.*positive integer.*Received: length="):
        t.Windowed(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 9}, r"`stride`.*at most `length`.*stride=9, length=8"),
        ({"stride": 0}, r"`stride`.*positive integer"),
        ({"align": "middle"}, r"`align`.*'end', 'start'.*middle"),
    ],
)
def test_bad_windows(arguments, message):
    with pytest.raises(ValueError, match=message):
        t.Windowed(8, **arguments)


@pytest.mark.parametrize(
    "value",
    [
        0,
        1.1,
        -0.1,
        float("nan"),
        "x",
        True,
        [0.5, 0.0],
        [[0.5]],
        [],
        np.array([[0.5]]),
        np.array("x"),
    ],
)
def test_bad_probabilities(value):
    with pytest.raises(ValueError, match="keep_probability"):
        t.Randomized(value)


def test_probabilities_as_arrays():
    assert t.Randomized(np.array(0.5)) == t.Randomized(0.5)
    assert t.Randomized(np.array([0.5, 0.25])) == t.Randomized([0.5, 0.25])


def test_a_schedule_of_another_length():
    layer = kbptt.GRU(2, truncation=t.Randomized([0.5] * 4))
    layer(np.zeros((1, 4, 1), "float32"))
    with pytest.raises(ValueError, match=r"`keep_probability`.*per timestep \(5\).*4 values"):
        layer(np.zeros((1, 5, 1), "float32"))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"mean_length": 1}, "mean_length"), ({"alpha": 1}, "alpha"), ({"alpha": "x"}, "alpha")],
)
def test_bad_artbp(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        t.Randomized.artbp(**arguments)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "1", True])
def test_bad_gradient_clips(value):
    with pytest.raises(ValueError, match=r"`gradient_clip`.*finite number above 0"):
        kbptt.GRU(2, gradient_clip=value)
    with pytest.raises(ValueError, match="`gradient_clip`"):
        kbptt.RNN(keras.layers.GRUCell(2), gradient_clip=value)


def test_unknown_names_are_answered_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"'full', 'windowed', 'randomized', 'artbp'"):
        t.get({"name": "sliding", "length": 3})


@pytest.mark.parametrize(("mean_length", "alpha"), [(16, 6), (50, 3), (5, 1.5)])
def test_artbp_has_its_mean_length(mean_length, alpha):
    """Σ_n P(length ≥ n) = L₀ from the cut probabilities alone (the sum's tail by its power law)."""
    n = 200_000
    c = t.Randomized.artbp(mean_length, alpha).cut_probability(0, np.arange(1, n))
    survival = np.concatenate([[1.0], np.cumprod(1 - c)])
    tail = survival[-1] * (n + (alpha - 1) * mean_length) / (alpha - 1)
    assert survival.sum() + tail == pytest.approx(mean_length, rel=1e-3)
    # P(length ≥ n) falls as n^−α.
    slope = np.log(survival[100_000] / survival[50_000]) / np.log(2)
    assert slope == pytest.approx(-alpha, rel=1e-2)
