"""Figures of reports, from ledgers that are filled by hand."""

import pathlib
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from ledgers import fill, outcome, results
from matplotlib.figure import Figure

from kbptt.ablation import figures, svg
from kbptt.ablation.arrays import encode
from kbptt.ablation.monitor import binned
from kbptt.ablation.reporting import Report


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
    assert len(figures.draw(results(tmp_path))) == 6


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
    assert len({line.get_color() for line in curves.get_lines()} - {figures.GRID}) == figures.ARMS
    line = curves.get_lines()[0].get_xdata()
    assert (line[0], line[-1], len(line)) == (1, 3000, figures.POINTS)
    timesteps = figures.profiles(found, "adding").axes[0].get_lines()[0].get_xdata()
    assert (timesteps[0], timesteps[-1]) == (0, 4999)
    caption = figures.left_out(found)
    assert f"the best {figures.ARMS} of {len(units)} methods and settings" in caption
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
    assert len(drawn) == 6 and sum(not figure.svg for figure in drawn) == 1
    assert "OverflowError: no axis" in next(f.caption for f in drawn if not f.svg)


def drawn_intervals(found):
    """The bands and the thick lines of intervals that the figures show."""
    drawn = [figures.performance_profiles(found), figures.curves(found, "adding")]
    bands = [band for figure in drawn for band in figure.axes[0].collections]
    lines = figures.scores(found).axes[0].get_lines()
    return len(bands), sum(len(line.get_xdata()) == 2 and line.get_lw() == 3 for line in lines)


def test_below_five_seeds_the_figures_show_runs_and_no_intervals(tmp_path):

    def score(config):
        curve = {"validation": [0.5, 0.6 + config["seed"] / 50]}
        return outcome(0.6 + config["seed"] / 50) | {"curve": curve}

    few, enough = (results(fill(tmp_path / str(n), score, seeds=n)) for n in (4, 5))
    assert drawn_intervals(few) == (0, 0) and drawn_intervals(enough) == (4, 2)
    shown = figures.curves(few, "adding").axes[0].get_lines()
    assert sum(line.get_lw() < 1 for line in shown) == 2 * 4  # every run of both methods
    texts = [figure.caption + figure.title for figure in figures.draw(few)]
    assert not any("95 %" in text or "band" in text for text in texts)
    texts = [figure.caption + figure.title for figure in figures.draw(enough)]
    assert sum("95 %" in text for text in texts) == 2


def test_the_profile_that_is_drawn_is_the_share_of_runs(tmp_path):
    """Skills 0.2, 0.4, 0.6 of one method: above 0.3 are two of three."""
    fill(tmp_path, lambda c: outcome(0.6 + 0.1 * c["seed"]), methods=["baseline"])
    (line,) = figures.performance_profiles(results(tmp_path)).axes[0].get_lines()
    share = dict(zip(np.round(line.get_xdata(), 2), line.get_ydata(), strict=True))
    assert [share[tau] for tau in (0.1, 0.3, 0.5, 0.7)] == pytest.approx([1, 2 / 3, 1 / 3, 0])


def places_of_texts(text):
    """Each text of a figure with its left end and its height, as shares of the figure's size."""
    page = ElementTree.fromstring(text)
    _, _, width, height = map(float, page.get("viewBox").split())
    for element in page.iter("{http://www.w3.org/2000/svg}text"):
        place = [element.get("x"), element.get("y")]
        if None in place:
            place = re.search(
                r"translate\(([-\d.e]+) ([-\d.e]+)\)", element.get("transform")
            ).groups()
        shown = "".join(element.itertext()).strip()
        yield shown, float(place[0]) / width, float(place[1]) / height


@pytest.mark.parametrize("offset", [0.5, -3e4, 1e9])
def test_names_are_inside_the_figures_whatever_the_scores(tmp_path, offset):
    """Scores in a narrow range far from 0, and names of any length with and without spaces."""
    names = ["short", "one " * 40 + "end", "x" * 200, "模" * 100]
    lines = ["method,task,seed,score,decay_end"]
    for number, name in enumerate(names):
        for seed in range(6):
            lines.append(f"{name},t,{seed},{offset + number / 1000 + seed / 2000},0.9")
    (tmp_path / "a.csv").write_text("\n".join(lines))
    drawn = figures.draw(Report(tmp_path, csv=tmp_path / "a.csv").results)
    for figure in drawn:
        texts = list(places_of_texts(figure.svg))
        assert all(0 <= x <= 1 and 0 <= y <= 1 for _, x, y in texts), texts
        for text, x, _ in texts:
            if text.startswith(("one ", "xx", "模")):  # at 9 points 5 and 9 wide on average
                wide = 9 if "模" in text else 5
                assert x + wide * len(text) / (72 * figures.WIDTH) < 1, text
        shown = [text for text, *_ in texts]
        assert "short" in shown and any(text.endswith("end") for text in shown)
        assert {text[:10] for text in shown} >= {"x" * 10, "模" * 10}


def contrast(first, second):
    """The contrast of two colours as defined for web pages (WCAG 2)."""

    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return np.dot(parts, [0.2126, 0.7152, 0.0722]) + 0.05

    ratio = luminance(first) / luminance(second)
    return max(ratio, 1 / ratio)


def test_figures_take_the_colours_of_the_page_light_and_dark():
    style = (pathlib.Path(svg.__file__).parent / "templates/report.css").read_text()
    dark = dict(re.findall(r"--(c\d): (#[0-9a-f]{6})", style))
    assert sorted(dark) == [f"c{i}" for i in range(1, len(svg.PALETTE))]
    for number, light in enumerate(svg.PALETTE[:-1], 1):
        assert contrast(light, "#ffffff") >= 3 and contrast(dark[f"c{number}"], "#16181c") >= 3
    figure = Figure()
    axes = figure.subplots()
    for color in svg.PALETTE:
        axes.plot([0, 1], color=color, label="<a & b>")
    figure.legend()
    text = svg.inline(figure, 'a "title"')
    assert all(f"var(--c{n}, {svg.PALETTE[n - 1]})" in text for n in range(1, 8))
    assert "#000000" not in text and "currentColor" in text
    assert 'aria-label="a &quot;title&quot;"' in text and "&lt;a &amp; b&gt;" in text
    assert ElementTree.fromstring(text).tag.endswith("svg")


def test_identifiers_in_one_figure_are_those_of_no_other():
    texts = []
    for title in ("one", "two"):
        figure = Figure()
        figure.subplots().plot([0, 1], "o")
        texts.append(svg.inline(figure, title))
    first, second = (set(re.findall(r' id="([^"]*)"', text)) for text in texts)
    assert first and not first & second
    for text, known in zip(texts, (first, second), strict=True):
        assert set(re.findall(r'(?:url\(|href=")#(\w+)', text)) <= known
