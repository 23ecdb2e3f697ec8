"""Figures of reports, from ledgers that are filled by hand."""

import numpy as np
import pytest
from ledgers import fill, outcome, results

from kbptt.ablation import figures
from kbptt.ablation.arrays import encode
from kbptt.ablation.monitor import binned


def test_every_arm_has_its_own_colour(tmp_path):
    for count in (2, 8, 12):
        units = list(range(4, 4 + count))
        fill(tmp_path / str(count), lambda c: None, methods=["clip"], set={"units": units})
        found = results(tmp_path / str(count))
        assert len({str(figures.color_of(found, arm)) for arm in found.arms}) == count


def test_gradient_with_zeros_and_nan_is_drawn(tmp_path):
    def score(config):
        result = outcome(0.6)
        broken = np.array([0.0, np.nan, np.inf, 1.0, 2.0], "float32")
        layer = result["gradient"]["lstm_1"]
        layer["start"], layer["end"] = [0.0] * 5, broken.tolist()
        layer["record"] = {"steps": [0], "timesteps": 5, "norms": encode(broken[None])}
        return result

    fill(tmp_path, score)
    assert len(figures.draw(results(tmp_path))) == 5


def test_a_heatmap_shows_timesteps_at_their_positions(tmp_path):
    """Records of more than 128 timesteps are averaged in bins, which need not be equally wide."""
    profile = np.where(np.arange(160) < 32, 0, 1).astype(np.float32)
    record = {"steps": [0], "timesteps": 160, "norms": encode(binned(profile)[None])}
    gradient = {"rnn": {"record": record}}
    fill(tmp_path, lambda config: {**outcome(0.9), "gradient": gradient}, methods=["baseline"])
    figure = figures.heatmaps(results(tmp_path), "adding")
    mesh = figure.axes[0].collections[0]
    lower, upper = mesh.get_coordinates()[:-1, 0, 1], mesh.get_coordinates()[1:, 0, 1]
    empty = np.ma.getmaskarray(mesh.get_array()).ravel()
    assert upper[empty].max() == lower[~empty].min() == 32
    assert upper.max() == 160


def test_a_diverged_run_does_not_set_the_colours(tmp_path):
    def score(config):
        if config["method"]["name"] == "baseline":
            return outcome(0.9)
        result = outcome(None, "diverged")
        norms = np.full((2, 30), 1e30, "float32")
        result["gradient"]["lstm_1"]["record"]["norms"] = encode(norms)
        return result

    figure = figures.heatmaps(results(fill(tmp_path, score)), "adding")
    scale = figure.axes[0].collections[0].norm
    assert (scale.vmin, scale.vmax) == (pytest.approx(0.9**29), pytest.approx(2))


def test_figures_of_a_large_ablation_are_bounded(tmp_path):
    """Methods, tasks, runs, epochs and timesteps: each beyond what a figure shows."""
    rng = np.random.default_rng(0)
    norms = rng.random(5000) + 0.1

    def score(config):
        result = outcome(0.5 + config["model"]["units"] / 100 + rng.random() / 50)
        result["curve"] = {"validation": rng.random(3000).tolist()}
        layer = result["gradient"]["lstm_1"]
        layer["start"] = layer["end"] = norms.tolist()
        return result

    units = list(range(1, figures.ARMS + 4))
    fill(tmp_path / "arms", score, methods=["clip"], set={"units": units}, seeds=1)
    found = results(tmp_path / "arms")
    for figure in (figures.scores(found), figures.profiles(found, "adding")):
        lines = figure.axes[0].get_lines()
        assert len({line.get_color() for line in lines}) == figures.ARMS
        assert max(len(line.get_xdata()) for line in lines) <= figures.POINTS
    curves = figures.curves(found, "adding").axes[0]
    assert len(curves.collections) == figures.ARMS
    line = curves.get_lines()[0].get_xdata()
    assert (line[0], line[-1], len(line)) == (1, 3000, figures.POINTS)
    timesteps = figures.profiles(found, "adding").axes[0].get_lines()[0].get_xdata()
    assert (timesteps[0], timesteps[-1]) == (0, 4999)
    caption = figures.left_out(found)
    assert f"Of {len(units)} methods and settings the best {figures.ARMS}" in caption
    assert "clip [units=1]" not in figures.shown_arms(found)  # the worst

    seeds = figures.DOTS + 50
    fill(tmp_path / "runs", lambda c: outcome(0.5 + rng.random() / 2), methods="clip", seeds=seeds)
    found = results(tmp_path / "runs")
    skills = np.sort(found.skills("clip").ravel())
    dots = figures.scores(found).axes[0].get_lines()[0].get_xdata()
    assert len(dots) == figures.DOTS and (dots[0], dots[-1]) == (skills[0], skills[-1])
    assert (
        len(figures.decay_against_score(found).axes[0].get_lines()[0].get_xdata()) == figures.DOTS
    )

    lengths = list(range(10, 10 + figures.TASKS + 3))
    minimal = {"status": "ok", "score": 0.5, "metric": "m", "mode": "max"}
    minimal["curve"] = {"validation": [0.5]}
    fill(tmp_path / "tasks", lambda c: minimal, seeds=1, set={"length": lengths})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "curves", lambda *_: None)
        drawn = []
        patch.setattr(figures, "_figure", lambda title, *_: drawn.append(title))
        figures.draw(results(tmp_path / "tasks"))
    assert sum(title.startswith("Learning curves") for title in drawn) == figures.TASKS


def test_a_figure_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def refuse(*_):
        raise OverflowError("no axis")

    monkeypatch.setattr(figures, "profiles", refuse)
    drawn = figures.draw(results(fill(tmp_path, lambda c: outcome(0.6))))
    assert len(drawn) == 5 and sum(not figure["source"] for figure in drawn) == 1
    assert "OverflowError: no axis" in next(f["caption"] for f in drawn if not f["source"])
