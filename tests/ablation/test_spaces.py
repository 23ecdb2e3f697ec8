"""Search spaces: what can be typed, and which values are tried."""

import math

import pytest

from kbptt.ablation import spaces
from kbptt.ablation.values import parse_assignment

TASKS = ["adding"]


def typed(*texts):
    return spaces.parse(dict(map(parse_assignment, texts)), TASKS)


def test_ranges_and_choices_as_typed():
    assert typed("learning_rate=1e-4..1e-2", "units=16..64", "clip=0.5,1,none") == {
        "learning_rate": spaces.Range(1e-4, 1e-2, integer=False, log=True),
        "units": spaces.Range(16, 64, integer=True, log=False),
        "clip": spaces.Choice((0.5, 1.0, None)),
    }
    assert typed("clip=[0.5,1,5]")["clip"] == spaces.Choice((0.5, 1.0, 5.0))
    assert typed("optimizer=adam,sgd", "optimizer.momentum=0..0.9") == {
        "optimizer": spaces.Choice(("adam", "sgd")),
        "optimizer.momentum": spaces.Range(0, 0.9, integer=False, log=False),
    }
    # The option decides: a learning rate is no integer, and 1..9 spans no decade.
    assert typed("learning_rate=1..9")["learning_rate"] == spaces.Range(1, 9, False, False)
    assert typed("units=8..80")["units"].log
    given = {"low": "1e-3", "high": 2e-3, "log": True}
    assert spaces.parse({"learning_rate": given}, TASKS)["learning_rate"].log
    assert not typed("units={low: 1, high: 100, log: false}")["units"].log


def test_the_order_in_which_options_are_given_does_not_matter():
    dimensions = "units=16..64", "learning_rate=1e-4..1e-2", "clip=1,2"
    assert list(typed(*dimensions)) == list(typed(*dimensions[::-1]))


def test_the_configuration_gives_the_dimension_back():
    for dimension in typed("learning_rate=1e-4..1e-2", "units=16..64", "clip=0.5,1,none").values():
        assert spaces.parsed(dimension.configuration()) == dimension


@pytest.mark.parametrize(
    "text, message",
    [
        ("learning_rate=1e-2..1e-4", "smaller than the second"),
        ("learning_rate=0.01", "Expected a range such as"),
        ("learning_rate=a..b", "Expected a range such as"),
        ("learning_rate=0..0.1", "above 0"),
        ("learning_rate=1e-4..inf", "Expected a range such as"),
        ("units=0..4", "units"),
        ("units=1.5..4", "units"),
        ("dropout={low: 0, high: 0.5, log: true}", "has to start above 0"),
        ("clip=1,1.0", "listed twice"),
        ("cell=GRU,LSTM", "cannot be tuned"),
        ("length=50..100", "cannot be tuned"),
        ("adding.length=50..100", "cannot be tuned"),
        ("checkpoint=best,last", "cannot be tuned"),
        ("lerning_rate=1e-4..1e-2", "did you mean 'learning_rate'"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(ValueError, match=message):
        typed(text)


def test_anything_but_a_mapping_is_refused():
    with pytest.raises(ValueError, match="Expected a mapping from options"):
        spaces.parse("learning_rate=1e-4..1e-2", TASKS)
    with pytest.raises(ValueError, match="Expected a range such as"):  # a range or two choices?
        spaces.parse({"learning_rate": (1e-4, 1e-2)}, TASKS)


def test_values_are_spread_over_a_range():
    shares = [(i + 0.5) / 1000 for i in range(1000)]
    rate = spaces.Range(1e-4, 1e-2, integer=False, log=True)
    values = [rate.at(share) for share in shares]
    assert values == sorted(values) and 1e-4 <= values[0] and values[-1] <= 1e-2
    assert sum(value < 1e-3 for value in values) == 500  # a half of a logarithmic scale
    assert rate.at(0.12345) == float(f"{1e-4 * 100**0.12345:.3g}")
    units = spaces.Range(1, 4, integer=True, log=False)
    assert [[units.at(s) for s in shares].count(n) for n in (1, 2, 3, 4)] == [250] * 4
    choice = spaces.Choice(("a", None, 3))
    assert {choice.at(s) for s in shares} == {"a", None, 3}


def test_sizes():
    assert spaces.size(typed("units=16..64", "clip=0.5,1")) == 49 * 2
    assert spaces.size(typed("units=16..64", "learning_rate=0.1..0.2")) == math.inf


def test_between_them_the_ends_have_every_choice_and_both_ends_of_every_range():
    space = typed("clip=1,2,none", "learning_rate=1e-4..1e-2", "units=16..64")
    found = spaces.ends(space)
    assert len(found) == 1 + 2 + 1 + 1 and all(list(values) == list(space) for values in found)
    assert {values["clip"] for values in found} == {1, 2, None}
    assert {values["learning_rate"] for values in found} == {1e-4, 1e-2}
    assert {values["units"] for values in found} == {16, 64}
    assert spaces.ends({}) == [{}]
