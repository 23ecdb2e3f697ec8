"""The tab in a real browser, served by the real `tensorboard` command."""

import json

import numpy as np
import pytest
import tensorboard_server
from gradient_flow_tab import (
    BOTTOM,
    HIGHEST,
    HOSTILE,
    LEFT,
    LOWEST,
    NAN,
    RIGHT,
    STEPS,
    TOP,
    ZERO,
    decaying,
    needs_browser,
    write_run,
)

from kbptt.tensorboard import layout, writer

pytestmark = needs_browser


def write_adaptive(directory):
    """Lags of `AdaptiveTruncation`: a window of 5, from step 50 on of 12."""
    events = writer.EventWriter(str(directory))
    for step in STEPS:
        content = layout.content("lstm", "all", None, None, "end")
        norms = decaying(0.8, timesteps=20)[::-1]
        tag = layout.statistic_tag("lstm", "truncation")
        length = writer.scalar_value(tag, 5 if step < 50 else 12)
        events.write(step, [writer.lag_value("lstm", norms, content), length])


def with_nan(step):
    norms = decaying(0.9)
    if step > 50:
        norms[:20] = np.nan
    return norms


def truncated(step):
    norms = decaying(0.9)
    norms[:-10] = 0
    return norms


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("logs")
    write_run(root / "vanishing", lambda step: decaying(0.5), layers=("lstm", "gru"))
    write_run(root / "nan", with_nan)
    write_run(root / "truncated", truncated, window=10)
    write_run(root / HOSTILE, lambda step: decaying(1.0))
    write_run(root / "adaptive", lambda step: decaying(0.8))
    write_adaptive(root / "adaptive")
    return root


@pytest.fixture(scope="module")
def server(logdir, browser):
    """Address of one that serves several tests, each of which begins with an empty page."""
    with tensorboard_server.serve(logdir) as (address, _):
        yield address
        browser.open("about:blank")


def test_every_run_with_its_verdict(tab, server):
    tab.show(server)
    assert tab.runs() == [HOSTILE, "adaptive", "nan", "truncated", "vanishing"]
    tab.wait("d.querySelectorAll('header .verdict').length === 5")
    verdicts = tab.js("[...d.querySelectorAll('header .verdict')].map(v => v.textContent)")
    assert verdicts == ["healthy", "decaying", "non-finite", "healthy", "vanishing"]
    rows = tab.js("[...d.querySelectorAll('tr')].map(r => [...r.cells].map(c => c.innerText))")
    truncated = dict(zip(rows[0], rows[4], strict=True))
    assert truncated["run"] == "truncated" and truncated["window K"] == "10"
    assert float(truncated["zeros"]) == 0.75 and float(truncated["decay"]) == 0.9
    # The numbers and what is made of them are of the same profiles.
    assert truncated["steps"] == "90–100" and "0.9^9 = 0.387," in truncated["why"]
    note = tab.js("d.querySelector('.scroll + .note').textContent")
    for text in ("last quarter", *map(str, (0.001, 0.1, 10, 1000)), "25 %"):
        assert text in note
    assert tab.js("d.querySelectorAll('img').length") == 0  # names are text
    assert not tab.js("d.querySelector('.error').checkVisibility()")


def test_colors_of_the_heatmaps(tab, server):
    tab.show(server)
    assert tab.pixel("vanishing", 0.5, 0.005) == LOWEST  # 0.5^39, the smallest of all runs
    assert tab.pixel("vanishing", 0.5, 0.995) == HIGHEST
    assert tab.pixel(HOSTILE, 0.1, 0.1) == HIGHEST  # 1 everywhere, on the same scale
    assert tab.pixel("truncated", 0.5, 0.3) == ZERO
    assert tab.pixel("nan", 0.9, 0.2) == NAN
    assert tab.pixel("nan", 0.1, 0.2) not in (NAN, ZERO, LOWEST)
    tab.control("Norms from", "1e-3")
    tab.control("to", "1e3")
    assert tab.pixel(HOSTILE, 0.1, 0.1) not in (HIGHEST, LOWEST)
    assert tab.pixel("vanishing", 0.5, 0.3) == LOWEST  # below the scale
    tab.control("Divide by run", "vanishing")
    tab.wait("d.body.innerText.includes('ratio to vanishing')")
    tab.wait("d.body.innerText.includes('Profile at one step, divided by that of vanishing')")
    title = "d.querySelector('.scale').parentElement.previousSibling.textContent"
    assert tab.js(title) == "‖∂L/∂hₜ‖ divided by that of vanishing"
    assert tab.js(LEGEND)[2] == "infinite: or the divisor is exactly 0"
    assert "decay" not in tab.js("d.querySelector('.legend').innerText")
    assert min(tab.pixel("vanishing", 0.5, 0.3)) > 240  # a ratio of 1: the middle, white
    assert tab.pixel(HOSTILE, 0.5, 0.005) == [178, 24, 43]  # 2^39, the largest ratio
    tab.control("Divide by run", "")
    tab.wait("!d.body.innerText.includes('ratio to')")
    tab.wait("!d.body.innerText.includes('divided by that')")
    assert tab.js(LEGEND) == ["exactly 0", "NaN", "infinite"]


LEGEND = "[...d.querySelectorAll('.scale ~ .cell')].map(s => s.innerText.trim())"


def test_by_lag(tab, server):
    tab.show(server)
    tab.control("Show", "dL_dh_by_lag")
    tab.wait("d.body.innerText.includes('k steps earlier')")
    tab.wait("d.querySelector('.legend .value').textContent === 'window K = 12'")
    assert tab.runs() == ["adaptive"]
    # Lag 0 on top, and the cut of the window, which grows at step 50.
    assert tab.pixel("adaptive", 0.5, 0.99) == HIGHEST
    assert tab.pixel("adaptive", 0.5, 0.01) == LOWEST
    cell = 1 / 20
    assert has_line(tab, 0.2, 1 - 5 * cell) and not has_line(tab, 0.2, 1 - 12 * cell)
    assert has_line(tab, 0.8, 1 - 12 * cell) and not has_line(tab, 0.8, 1 - 5 * cell)
    tab.control("Layer", "gru")
    tab.wait("d.body.innerText.includes('lag_data=')")  # how to get them


def has_line(tab, x, y):
    """Whether a line, white or dark, is drawn over the cells at this height."""
    line = tab.js(
        f"(c => {{ const w = c.width - {LEFT + RIGHT}, h = c.height - {TOP + BOTTOM};"
        f" const data = c.getContext('2d').getImageData({LEFT} + {x} * w,"
        f" {TOP} + (1 - {y}) * h - 1, 12, 3).data;"
        " const found = []; for (let i = 0; i < data.length; i += 4)"
        " found.push(Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1],"
        f" data[i + 2])); return Math.min(...found); }})({tab.canvas('adaptive')})"
    )
    return line < 20  # grey: not a colour of the scale


def test_the_address_holds_the_state(tab, server):
    tab.show(server)
    tab.control("Layer", "lstm")
    tab.control("y axis", "lag")
    tab.control("Aggregate by", "max")
    tab.control("Norms from", "1e-6")
    tab.js("d.querySelectorAll('.runs input[type=checkbox]')[2].click()")
    tab.enter("input[type=range]", 3)
    tab.wait("d.querySelector('.step').textContent === 'step 40'")
    tab.wait("d.querySelectorAll('.cards .name').length === 4")
    url = tab.url()
    assert url.startswith(server) and "p.gradient_flow.step=40" in url

    def shown():
        return tab.js(
            "[...d.querySelectorAll('select, input:not([type=checkbox])')].map(c => c.value)"
            ".concat([...d.querySelectorAll('.cards .name, .step')].map(n => n.textContent))"
        )

    before = shown()
    assert "nan" not in before and HOSTILE in before and "0.000001" in before
    for again in (tab.reload, lambda: tab.open(url)):
        again()
        tab.wait("d.querySelector('.step').textContent === 'step 40'")
        tab.wait("d.querySelectorAll('.cards .name').length === 4")
        assert shown() == before and tab.url() == url
    # A link with other choices, opened in the same window, is followed.
    tab.evaluate("location.hash = '#gradient_flow&p.gradient_flow.runs=%5B%22nan%22%5D'")
    tab.wait("d.querySelectorAll('.cards .name').length === 1")
    assert tab.runs() == ["nan"]
    tab.wait("d.querySelector('.step').textContent === 'step 100 (latest)'")


def test_the_state_survives_another_tab(tab, server):
    tab.show(server, "&p.gradient_flow.step=40")

    def click(name):
        tabs = "[...document.querySelectorAll('[role=tab]')]"
        place = f"{tabs}.find(t => t.textContent.trim() === {name!r}).getBoundingClientRect()"
        x, y = tab.evaluate(f"(r => [r.left + r.width / 2, r.top + r.height / 2])({place})")
        tab.mouse("mousePressed", x, y)
        tab.mouse("mouseReleased", x, y)

    click("scalars")
    tab.wait_for("location.hash.startsWith('#scalars')")
    tab.resize(1000, 800)  # drawn again, while nothing can be seen
    click("Gradient flow")
    tab.wait_for("location.hash.startsWith('#gradient_flow')")
    tab.resize(1280, 1000)
    assert "p.gradient_flow.step=40" in tab.url()
    assert tab.js("d.querySelector('.step').textContent") == "step 40"
    tab.wait("d.querySelector('.wide').width > 900")
    assert tab.pixel("truncated", 0.5, 0.3) == ZERO


def test_click_zoom_and_keys(tab, server):
    tab.show(server)
    x, y = tab.point("vanishing", 0.35, 0.5)
    tab.mouse("mouseMoved", x, y)
    tab.wait("d.querySelector('.cards .card:last-child .read').textContent.startsWith('step ')")
    read = tab.js("d.querySelector('.cards .card:last-child .read').textContent")
    assert read == "step 40 · timestep t = 20 · lag 19 · ‖∂L/∂hₜ‖ = 1.91·10⁻⁶"
    tab.mouse("mousePressed", x, y)
    tab.mouse("mouseReleased", x, y)
    tab.wait("d.querySelector('.step').textContent === 'step 40'")
    key = "new KeyboardEvent('keydown', {key: 'ArrowRight'})"
    tab.js(f"{tab.canvas('vanishing')}.dispatchEvent({key})")
    tab.wait("d.querySelector('.step').textContent === 'step 50'")

    tab.mouse("mousePressed", *tab.point("vanishing", 0.2, 0.25))
    tab.mouse("mouseMoved", *tab.point("vanishing", 0.5, 0.6))
    tab.mouse("mouseReleased", *tab.point("vanishing", 0.6, 0.75))
    tab.wait(
        "d.querySelector('.cards .card:last-child .read').textContent.startsWith('4 profiles')"
    )
    s0, s1, t0, t1 = json.loads(
        tab.evaluate("decodeURIComponent(location.hash.match(/zoom=([^&]*)/)[1])")
    )
    assert s0 in (24, 25) and s1 in (65, 66) and (t0, t1) == (10, 31)
    # Slider and charts show what the heatmaps show.
    slider = "d.querySelector('input[type=range]')"
    assert tab.js(f"[{slider}.value, {slider}.max]") == ["2", "3"]  # 50 of 30, 40, 50, 60
    requested = "d.defaultView.performance.getEntriesByType('resource').map(e => e.name)"
    tab.wait(f"{requested}.some(u => u.endsWith('/profiles'))")
    tab.enter("input[type=range]", 3)
    tab.wait("d.querySelector('.step').textContent === 'step 60'")
    # 20 timesteps from left to right, each a factor of 2: 30 at 0.97 of the width, 10 at 0.02.
    hover = "new MouseEvent('mousemove', {clientX: c.getBoundingClientRect().left + 61})"
    tab.js(f"(c => c.dispatchEvent({hover}))(d.querySelector('.wide'))")
    tab.wait("d.querySelector('.legend b')?.textContent === 'step 60 · timestep t = 10 · lag 29'")
    tab.js(f"{tab.canvas('vanishing')}.dispatchEvent(new Event('dblclick'))")
    tab.wait(
        "d.querySelector('.cards .card:last-child .read').textContent.startsWith('10 profiles')"
    )
    assert "zoom" not in tab.url()
    tab.enter("input[type=range]", 1)
    tab.wait("d.querySelector('.step').textContent === 'step 20'")
    # The chosen step stays the user's where a zoom leaves it out.
    tab.mouse("mousePressed", *tab.point("vanishing", 0.6, 0.25))
    tab.mouse("mouseReleased", *tab.point("vanishing", 0.99, 0.75))
    tab.wait("d.querySelector('.step').textContent === 'step 70'")
    assert "step=20" in tab.url()
    tab.js(f"{tab.canvas('vanishing')}.dispatchEvent(new Event('dblclick'))")
    tab.wait("d.querySelector('.step').textContent === 'step 20'")


def test_choosing_runs(tab, server):
    tab.show(server)
    buttons = "[...d.querySelectorAll('.runs button')]"
    tab.js(f"{buttons}.find(b => b.textContent === 'None').click()")
    tab.wait("d.body.innerText.includes('No run is selected')")
    tab.js("d.querySelectorAll('.runs input[type=checkbox]')[1].click()")
    tab.wait("d.querySelectorAll('.cards .name').length === 1")
    tab.js(f"{buttons}.find(b => b.textContent === 'All').click()")
    tab.wait("d.querySelectorAll('.cards .name').length === 5")
    tab.enter("[type=search]", "^.an")
    tab.wait("d.querySelectorAll('.cards .name').length === 2")
    assert tab.runs() == ["nan", "vanishing"]


def test_findings_are_of_the_runs_shown(tab, server):
    names = "[...d.querySelectorAll('.findings .name')].map(n => n.textContent)"
    tab.show(server)
    tab.wait(f"{names}.includes('vanishing') && {names}.includes('nan')")
    # What is left has been fetched before.
    tab.js("d.querySelector('input[aria-label=\"show vanishing\"]').click()")
    tab.wait(f"!{names}.includes('vanishing')")
    assert "nan" in tab.js(names)


def test_saving(tab, server, tmp_path):
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    tab.show(server)
    files = {"img_src_x_onerror_alert_1_lstm.png", "vanishing_lstm_dL_dh.csv"}
    for run, item in ((HOSTILE, "PNG"), ("vanishing", "CSV of all profiles")):
        tab.see(run)
        buttons = f"[...{tab.canvas(run)}.parentElement.querySelectorAll('.popup button')]"
        tab.js(f"{buttons}.find(b => b.textContent === {item!r}).click()")

    def arrived():
        return {path.name for path in tmp_path.iterdir()}

    for _ in range(200):
        if arrived() == files:
            break
        tab.evaluate("new Promise(done => setTimeout(done, 50))")
    assert arrived() == files
    (png,) = tmp_path.glob("*.png")
    assert png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size > 2000
    steps = [
        line.split(",")[0] for line in (tmp_path / "vanishing_lstm_dL_dh.csv").read_text().split()
    ]
    assert steps == ["step", *map(str, STEPS)]


def test_dark_mode(tab, server):
    corner = (
        "[...d.querySelector('.wide').getContext('2d').getImageData(1, 1, 1, 1).data].slice(0, 3)"
    )
    tab.show(server)
    assert tab.js(corner) == [255, 255, 255]
    tab.evaluate("document.body.classList.add('dark-mode')")
    tab.wait("d.body.classList.contains('dark')")
    tab.wait(f"String({corner}) === '66,66,66'")
    tab.evaluate("document.body.classList.remove('dark-mode')")


def test_a_long_run_is_drawn_from_a_sample_first_and_nothing_is_asked_for_twice(
    tab, serve, tmp_path
):
    write_run(tmp_path / "long", lambda step: decaying(0.9), steps=range(1000))
    write_run(tmp_path / "short", lambda step: decaying(0.9), steps=range(20))
    address, _ = serve(tmp_path)
    tab.show(address)
    tab.wait("/^1000 profiles/.test(d.querySelector('.heatmaps .read').textContent)")
    tab.wait("d.querySelector('.read').textContent && d.querySelectorAll('td').length")
    asked = tab.js(
        "d.defaultView.performance.getEntriesByType('resource')"
        ".map(entry => entry.name.split('/').pop())"
    )
    # Of the long run the sample and then all; of the short one all at once.
    assert asked.count("grid") == 3 and asked.count("profiles") == 2
