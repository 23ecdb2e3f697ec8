"""Simulated studies: with tuning, what is not there is found in at most 5 % of them."""

import pathlib
import subprocess
import sys

import pytest

from kbptt.ablation import statistics

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"


@pytest.fixture
def simulation(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import simulate_studies

    yield simulate_studies
    sys.modules.pop("simulate_studies", None)


def test_a_few_studies(simulation):
    """Each seeded: the counts are exact. Without controls the same studies find too much."""
    grid = simulation.planned(methods=3, seeds=8, trials=6, tuning_seeds=1)
    null = simulation.simulate(grid, 40, drop=10)
    assert null["kbptt"] <= 3 < null["no controls"] <= null["untuned baseline"]
    planted = simulation.simulate(grid, 10, drop=10, effect=4)
    assert planted["kbptt"] >= 9


def test_the_runs_of_a_study_are_those_that_it_planned(simulation):
    grid = simulation.planned(methods=2, seeds=6, trials=4, tuning_seeds=2)
    world = simulation.World(0, drop=3)
    trials = simulation.study(grid, world)
    assert len(trials) == len({trial.key for trial in trials}) >= grid.size() == 2 * (8 + 6)
    # Seeds shift all methods alike, and every run has noise of its own.
    one, other = (world.score(method, 0.001, 0, "test") for method in ("clip", "agc"))
    assert one != other and one == world.score("clip", 0.001, 0, "test")
    alike = simulation.World(0, drop=3, shared=1.0)
    assert alike.score("clip", 0.001, 0, "test") == alike.score("agc", 0.001, 0, "test")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("drop", [0, 10])
def test_false_positives_of_many_studies(simulation, drop):
    """No seed that was picked: the bound is that of 300 studies at a rate of 5 %."""
    grid = simulation.planned(methods=4, seeds=10, trials=8, tuning_seeds=2)
    found = simulation.simulate(grid, 300, drop)
    assert statistics.success_rate(found["kbptt"], 300).low < 0.05
    assert found["kbptt"] <= 15
    planted = simulation.simulate(grid, 50, drop, effect=2)
    assert planted["kbptt"] >= 40


@pytest.mark.slow
def test_the_table_is_printed(tmp_path):
    command = [sys.executable, SCRIPTS / "simulate_studies.py", "--studies", "5", "--drops", "3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, header, null, planted = done.stdout.splitlines()
    assert head.startswith("5 studies a row, 4 methods") and header.split()[:3] == [
        *("effect", "drop", "kbptt")
    ]
    assert null.split()[:2] == ["0", "3"] and planted.split()[:2] == ["2", "3"]
