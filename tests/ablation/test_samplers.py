"""Samplers: what is suggested follows from the history alone."""

import math
import subprocess
import sys

import optuna
import pytest

from kbptt._extras import MissingExtra
from kbptt.ablation import samplers, spaces

SPACE = spaces.parse(
    {"learning_rate": "1e-4..1e-2", "units": "16..64", "clip": [0.5, 1, None]}, ["adding"]
)
RATE = {"learning_rate": SPACE["learning_rate"]}


def score(values):
    """Best at a learning rate of 0.001 and 40 units."""
    return -abs(math.log10(values["learning_rate"]) + 3) - abs(values["units"] - 40) / 40


def search(sampler, trials, history=()):
    """The history of a search that is run to its end, and how many points came at a time."""
    history, rounds = list(history), []
    while new := samplers.suggest(sampler, SPACE, trials, history):
        history += [(values, score(values)) for values in new]
        rounds.append(len(new))
    return history, rounds


@pytest.mark.parametrize("sampler, rounds", [("quasi-random", [12]), ("tpe", [6, 4, 2])])
def test_the_budget_is_spent_on_distinct_points(sampler, rounds):
    history, found = search(sampler, 12)
    assert found == rounds
    points = [values for values, _ in history]
    assert len(points) == 12 and all(points.count(point) == 1 for point in points)
    assert all(1e-4 <= p["learning_rate"] <= 1e-2 and p["clip"] in (0.5, 1, None) for p in points)
    assert all(type(p["units"]) is int and 16 <= p["units"] <= 64 for p in points)


@pytest.mark.parametrize("sampler", samplers.NAMES)
def test_a_search_goes_on_with_the_same_suggestions(sampler):
    whole, rounds = search(sampler, 12)
    assert search(sampler, 12)[0] == whole
    for length in (0, *(sum(rounds[:i]) for i in range(1, len(rounds) + 1))):
        assert search(sampler, 12, whole[:length])[0] == whole


def test_quasi_random_points_are_the_same_for_all_and_leave_no_gap():
    points = samplers.suggest("quasi-random", RATE, 8, [])
    places = sorted((math.log10(p["learning_rate"]) + 4) / 2 for p in points)
    assert [int(8 * place) for place in places] == list(range(8))  # one in each eighth
    # TPE begins with the same.
    assert samplers.suggest("tpe", RATE, 8, []) == points[:4]


def test_tpe_follows_the_scores():
    """Most of its points lie nearer to the best than those of the quasi-random sequence."""

    def later(sampler):
        history, _ = search(sampler, 40)
        found = sorted(value for _, value in history[20:])
        return found[len(found) // 2]

    assert later("tpe") > later("quasi-random") + 0.1


def test_tpe_takes_every_kind_of_score():
    history = [(p, -math.inf) for p in samplers.suggest("tpe", SPACE, 8, [])]
    assert len(samplers.suggest("tpe", SPACE, 8, history)) == 4


@pytest.mark.parametrize("sampler", samplers.NAMES)
def test_a_small_space_is_searched_completely(sampler):
    space = spaces.parse({"units": "2..4", "clip": [1, 2]}, ["adding"])
    points = samplers.suggest(sampler, space, 8, [])
    assert [tuple(p.values()) for p in points] == [(c, u) for c in (1, 2) for u in (2, 3, 4)]
    assert samplers.suggest(sampler, space, 8, [(p, 0.0) for p in points]) == []
    some = [(p, float(i)) for i, p in enumerate(points[:2])]
    assert samplers.suggest(sampler, space, 6, some) == points[2:]
    # A budget of one less: five different ones.
    first = samplers.suggest(sampler, space, 5, [])
    rest = samplers.suggest(sampler, space, 5, [(p, 0.0) for p in first])
    assert len({str(p) for p in first + rest}) == 5


def test_optuna_keeps_its_voice():
    before = optuna.logging.get_verbosity()
    samplers.suggest("tpe", RATE, 2, [({"learning_rate": 0.001}, 0.0)])
    assert optuna.logging.get_verbosity() == before


def test_without_optuna_only_tpe_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs 'optuna'.*pip install 'kbptt\[tune\]'"):
        samplers.check("tpe")
    samplers.check("quasi-random")
    code = (
        "import sys; sys.modules['optuna'] = None\n"
        "from kbptt.ablation import Grid\n"
        "print(Grid.make('adding', 'clip', 1, tune={'units': '2..9'}).tuning.points)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "8\n", done.stderr
