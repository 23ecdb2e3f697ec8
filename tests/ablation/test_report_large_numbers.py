"""Scores as large as floats get: finite data have finite means, and nothing warns."""

import io
import re

import pytest
import rich.console
from ledgers import fill, outcome, plan

from kbptt.ablation.reporting import Report


def huge(config):
    sign = -1 if config["method"]["name"] == "baseline" else 1
    return {
        "status": "ok",
        "score": sign * (1 + config["seed"] / 100) * 1e308,
        "metric": "reward",
        "mode": "max",
        "baseline": -1.7e308,
        "cost": {"seconds_per_step": 1.5e308},
    }


@pytest.mark.parametrize(("seeds", "mean"), [(3, 1.01e308), (56, 1.275e308)])
def test_scores_as_large_as_floats_get(seeds, mean, tmp_path):
    with plan(tmp_path, seeds=seeds) as ledger:
        for trial in ledger.trials():
            ledger.finish(trial.key, huge(trial.config))
    report = Report(tmp_path)
    best, worst = report.results.task_table("adding")
    assert best.mean.value == pytest.approx(mean) and worst.mean.value == -best.mean.value
    assert best.seconds_per_step == 1.5e308
    report.print(rich.console.Console(file=io.StringIO(), width=200))
    _, header, lines = report.tables()[1]
    numbers = list(map(float, re.findall(r"[\d.]+e\+308", lines[0][2])))
    assert numbers == pytest.approx(
        [mean, 1e308, 1.01e308, 1.02e308] if seeds == 3 else [mean, 1.23e308, 1.32e308], rel=0.01
    )
    # A difference of two floats may be none itself.
    assert lines[0][header.index("Δ")].startswith(">1.8e308")
    assert not any("inf" in cell or len(cell) > 60 for line in lines for cell in line)


def test_no_negative_zero(tmp_path):
    fill(tmp_path, lambda c: outcome(0.2, metric="mse", mode="min"))
    assert "-0 " not in Report(tmp_path).markdown() and "-0]" not in Report(tmp_path).markdown()
