"""The tab in a real browser, served by the real `tensorboard` command."""

import contextlib
import json
import re
import shutil

import chromium
import numpy as np
import pytest
import tensorboard_server
from tensorboard.util import tensor_util

from kbptt.analysis import gradient_flow
from kbptt.tensorboard import layout, reader, writer

pytestmark = pytest.mark.skipif(
    chromium.find() is None or shutil.which("bash") is None,
    reason="needs chromium or google-chrome on PATH",
)

HOSTILE = "<img src=x onerror=alert(1)> ü 层"
TIMESTEPS = 40
STEPS = range(10, 110, 10)
ZERO, NAN = [16, 16, 16], [255, 47, 209]
LOWEST, HIGHEST = [68, 1, 84], [253, 231, 37]  # ends of viridis
# Around a chart: see draw.js.
LEFT, TOP, RIGHT, BOTTOM = 60, 10, 12, 36


def decaying(factor, scale=1.0, timesteps=TIMESTEPS):
    return (scale * factor ** np.arange(timesteps)[::-1]).astype(np.float32)


def write_run(directory, profile, layers=("lstm",), window=None, steps=STEPS):
    events = writer.EventWriter(str(directory), reader.SUFFIX)
    for step in steps:
        values = []
        for layer in layers:
            norms = profile(step)
            content = layout.content(layer, "last", window, None, "end")
            values.append(writer.profile_value(layer, norms, content))
            for key, value in gradient_flow.summarize(norms).items():
                values.append(writer.scalar_value(layout.statistic_tag(layer, key), value))
        events.write(step, values)


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


class Tab(chromium.Browser):
    """The page in TensorBoard's frame; in expressions `d` is its document."""

    def show(self, address, fragment="", ready="d.querySelector('.legend').children.length"):
        self.open(f"{address}#gradient_flow{fragment}")
        if ready:
            self.wait(ready)

    def js(self, expression):
        document = "document.querySelector('iframe').contentDocument"
        return self.evaluate(f"(d => ({expression}))({document})")

    def wait(self, expression, timeout=60):
        document = "document.querySelector('iframe').contentDocument"
        self.wait_for(f"(d => ({expression}))({document})", timeout)

    def control(self, label, value):
        """Gives the select or input with this label a value."""
        find = (
            f"[...d.querySelectorAll('label')].find(l => l.firstChild.textContent === {label!r})"
            ".querySelector('select, input')"
        )
        event = "new Event('change')"
        self.js(f"(c => {{ c.value = {json.dumps(value)}; c.dispatchEvent({event}); }})({find})")

    def enter(self, selector, value):
        """The same as typing or sliding."""
        find = f"d.querySelector({selector!r})"
        event = "new Event('input')"
        self.js(f"(c => {{ c.value = {json.dumps(value)}; c.dispatchEvent({event}); }})({find})")

    def runs(self):
        return self.js("[...d.querySelectorAll('.cards .name')].map(n => n.textContent)")

    def url(self):
        return self.evaluate("location.href")

    def pixel(self, run, x, y):
        """Colour of a run's heatmap at fractions of width and height; (0, 0) is t = 0, left."""
        return self.js(
            f"(c => {{ const w = c.width - {LEFT + RIGHT}, h = c.height - {TOP + BOTTOM};"
            f" return [...c.getContext('2d').getImageData({LEFT} + {x} * w,"
            f" {TOP} + (1 - {y}) * h, 1, 1).data].slice(0, 3); }})({self.canvas(run)})"
        )

    def canvas(self, run):
        label = json.dumps(f"heatmap of {run}")
        return f"[...d.querySelectorAll('.cards canvas')].find(c => c.ariaLabel === {label})"

    def point(self, run, x, y):
        """The same as a place on the screen."""
        frame = self.evaluate(
            "(r => [r.left, r.top])(document.querySelector('iframe').getBoundingClientRect())"
        )
        left, top, width, height = self.js(
            f"(c => {{ c.scrollIntoView({{block: 'center'}}); const r = c.getBoundingClientRect();"
            f" return [r.left, r.top, r.width, r.height]; }})({self.canvas(run)})"
        )
        return (
            frame[0] + left + LEFT + x * (width - LEFT - RIGHT),
            frame[1] + top + TOP + (1 - y) * (height - TOP - BOTTOM),
        )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser):
    browser.open("about:blank")  # ends what the last test began
    browser.problems.clear()
    yield browser
    browser.evaluate("new Promise(done => setTimeout(done, 100))")
    # No error, nothing blocked by the content security policy, no request to another host. (Below
    # a path prefix TensorBoard's own page does not find its fonts.)
    assert [problem for problem in browser.problems if "/font-roboto/" not in problem] == []


@pytest.fixture
def serve(tab):
    """Starts TensorBoard: `serve(logdir, *arguments)` is `(address, process)`.

    The page leaves a server before it stops: one that still asked it would log errors.
    """
    with contextlib.ExitStack() as servers:
        yield lambda *arguments, **options: servers.enter_context(
            tensorboard_server.serve(*arguments, **options)
        )
        tab.open("about:blank")


@pytest.fixture(scope="module")
def server(logdir, browser):
    """Address of one that serves several tests, each of which begins with an empty page."""
    with tensorboard_server.serve(logdir) as (address, _):
        yield address
        browser.open("about:blank")


def test_every_run_with_its_verdict(tab, server):
    tab.show(server)
    assert tab.runs() == [HOSTILE, "adaptive", "nan", "truncated", "vanishing"]
    verdicts = tab.js("[...d.querySelectorAll('header .verdict')].map(v => v.textContent)")
    assert verdicts == ["healthy", "decaying", "non-finite", "healthy", "vanishing"]
    rows = tab.js("[...d.querySelectorAll('tr')].map(r => [...r.cells].map(c => c.innerText))")
    truncated = dict(zip(rows[0], rows[4], strict=True))
    assert truncated["run"] == "truncated" and truncated["window K"] == "10"
    assert float(truncated["zeros"]) == 0.75 and float(truncated["decay"]) == 0.9
    # The numbers and what is made of them are of the same profiles.
    assert truncated["steps"] == "90–100" and "0.9^9 = 0.387," in truncated["why"]
    note = tab.js("d.querySelector('.scroll > .note').textContent")
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
    tab.control("Gradient", "lag")
    tab.wait("d.body.innerText.includes('k steps earlier')")
    tab.wait("d.querySelector('.legend .value').textContent === 'window 12'")
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
    tab.control("Merge cells by", "max")
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
    assert tab.js("d.querySelector('.step').textContent") == "step 100 (latest)"


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
    assert read == "step 40 · t = 20 · lag 19 · 1.91·10⁻⁶"
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
    tab.wait(f"{requested}.some(u => /profiles.*step=50.*t0=10&t1=31/.test(u))")
    tab.enter("input[type=range]", 3)
    tab.wait("d.querySelector('.step').textContent === 'step 60'")
    # 20 timesteps from left to right, each a factor of 2: 30 at 0.97 of the width, 10 at 0.02.
    hover = "new MouseEvent('mousemove', {clientX: c.getBoundingClientRect().left + 61})"
    tab.js(f"(c => c.dispatchEvent({hover}))(d.querySelector('.wide'))")
    tab.wait("d.querySelector('.legend b')?.textContent === 't = 10'")
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
    tab.wait("d.body.innerText.includes('No run is chosen')")
    tab.js("d.querySelectorAll('.runs input[type=checkbox]')[1].click()")
    tab.wait("d.querySelectorAll('.cards .name').length === 1")
    tab.js(f"{buttons}.find(b => b.textContent === 'All').click()")
    tab.wait("d.querySelectorAll('.cards .name').length === 5")
    tab.enter("[type=search]", "^.an")
    tab.wait("d.querySelectorAll('.cards .name').length === 2")
    assert tab.runs() == ["nan", "vanishing"]


def test_saving(tab, server, tmp_path):
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    tab.show(server)
    tab.js("d.querySelector('header button').click()")
    tab.js("[...d.querySelectorAll('header a')].at(-1).click()")
    files = {"img_src_x_onerror_alert_1_lstm.png", "vanishing_lstm_dL_dh.csv"}

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
    assert tab.js(corner) == [66, 66, 66]
    tab.evaluate("document.body.classList.remove('dark-mode')")


def test_runs_and_steps_appear_while_training_goes_on(tab, serve, tmp_path):
    write_run(tmp_path / "a", lambda step: decaying(0.9))
    address, process = serve(tmp_path)
    tab.show(address)
    assert tab.runs() == ["a"]
    write_run(tmp_path / "a", lambda step: decaying(0.9), steps=[200])
    write_run(tmp_path / "b", lambda step: decaying(0.9))
    # TensorBoard reads again every second, and asks the tab to when its button is pressed.
    press = "document.querySelector('.reload-button').click()"
    tab.evaluate(f"window.pressing = setInterval(() => {press}, 500)")
    tab.wait("d.querySelectorAll('.cards .name').length === 2")
    tab.wait("d.querySelector('.step').textContent === 'step 200 (latest)'")
    tab.evaluate("clearInterval(window.pressing)")
    process.terminate()
    process.wait()
    tab.js("d.querySelector('.runs button').click()")
    tab.wait("d.querySelector('.error').textContent.includes('Is it still running?')")
    tab.open("about:blank")  # ends what still asks the server
    tab.problems.clear()  # of course


def test_medians_over_the_seeds_of_a_method(tab, serve, tmp_path):
    for name, factors in (("baseline", (0.5, 0.4, 0.7)), ("orthogonal", (0.9, 1.0))):
        for seed, factor in enumerate(factors):
            write_run(tmp_path / name / "adding" / str(seed), lambda step, f=factor: decaying(f))
    write_run(tmp_path / "single" / "adding" / "0", lambda step: np.zeros(TIMESTEPS, np.float32))
    tab.show(serve(tmp_path)[0])
    cells = "[...t.rows].map(r => [...r.cells].map(c => c.innerText))"
    runs, folders = tab.js(f"[...d.querySelectorAll('table')].map(t => {cells})")
    assert len(runs) == 7
    by_name = dict(zip(runs[0], runs[-1], strict=True))
    assert by_name["decay"] == "–" and by_name["zeros"] == "1"  # nothing to fit
    assert [row[:4] for row in folders] == [
        ["folder", "runs", "verdicts", "decay"],
        ["baseline/adding", "3", "3 vanishing", "0.5"],
        ["orthogonal/adding", "2", "1 decaying, 1 healthy", "0.95"],
        ["single/adding", "1", runs[-1][1], "–"],
    ]


@pytest.mark.parametrize("arguments", [("--load_fast=false",), ("--path_prefix=/board",)])
def test_other_ways_to_start_tensorboard(tab, serve, logdir, arguments):
    address, _ = serve(logdir, *arguments)
    tab.show(address)
    assert tab.runs() == [HOSTILE, "adaptive", "nan", "truncated", "vanishing"]
    assert tab.pixel("truncated", 0.5, 0.3) == ZERO


def test_an_empty_directory_shows_what_to_do(tab, serve, tmp_path):
    address, _ = serve(tmp_path, data=False)
    tab.show(address, ready="d.body.innerText.includes('kbptt.callbacks.GradientFlow')")


def test_one_and_twenty_thousand_timesteps(tab, serve, tmp_path):
    write_run(tmp_path / "one", lambda step: np.array([step], np.float32))
    write_run(tmp_path / "many", lambda step: decaying(0.999, timesteps=20_000))
    address, _ = serve(tmp_path)
    tab.show(address)
    assert tab.runs() == ["many", "one"]
    np.testing.assert_allclose(tab.pixel("many", 0.5, 0.005), LOWEST, atol=2)
    assert tab.pixel("one", 0.99, 0.5) == HIGHEST
    sizes = tab.js(
        "d.defaultView.performance.getEntriesByType('resource').map(e => e.decodedBodySize)"
    )
    assert 10_000 < max(sizes) and sum(sizes) < 400_000
    # The pointer tells what a cell stands for: here 66 or 67 timesteps of one step.
    tab.mouse("mouseMoved", *tab.point("many", 0.55, 0.9))
    tab.wait("d.querySelector('.read').textContent.startsWith('step ')")
    read = tab.js("d.querySelector('.read').textContent")
    found = re.match(r"step 60 · t = (\d+)–(\d+) · lag (\d+)–(\d+) · ", read)
    assert found, read
    first, last, nearest, furthest = map(int, found.groups())
    assert abs(first - 0.9 * 20_000) < 140 and last - first in (65, 66)  # a pixel is 68
    assert (furthest, nearest) == (19_999 - first, 19_999 - last)


def test_a_run_without_any_timestep_does_not_hide_the_others(tab, serve, tmp_path):
    write_run(tmp_path / "seed 2", lambda step: decaying(0.9))
    write_run(tmp_path / "seed 10", lambda step: decaying(0.9))
    write_run(tmp_path / "none", lambda step: np.zeros(0, np.float32))
    address, _ = serve(tmp_path)
    tab.show(address)
    assert tab.runs() == ["seed 2", "seed 10"]
    assert not tab.js("d.querySelector('.error').checkVisibility()")
    tab.problems.clear()  # the two answers 404


def test_damaged_runs_are_named_and_hide_no_other(tab, serve, tmp_path):
    write_run(tmp_path / "good", lambda step: decaying(0.9))
    content = layout.content("lstm", "last", None, None, "end")
    for name, damage in (
        (HOSTILE, lambda tensor: tensor.tensor_shape.dim.add(size=7)),
        ("text", lambda tensor: tensor.CopyFrom(tensor_util.make_tensor_proto(["x"]))),
    ):
        value = writer.profile_value("lstm", decaying(0.9), content)
        damage(value.tensor)
        writer.EventWriter(str(tmp_path / name)).write(1, [value])
    for number in range(15):  # more than are shown at once, and before the others by name
        writer.EventWriter(str(tmp_path / f"a{number}")).write(1, [value])
    # One damaged record among good ones costs only itself.
    events = writer.EventWriter(str(tmp_path / "partly"))
    for step in STEPS:
        norms = decaying(0.9) if step > 10 else np.ones((2, 2))
        events.write(step, [writer.profile_value("lstm", norms, content)])
    address, _ = serve(tmp_path)
    tab.show(address)
    assert tab.runs() == ["good", "partly"]
    listed = tab.js("[...d.querySelectorAll('.unreadable li')].map(l => l.innerText)")
    assert len(listed) == 17 and all(text.startswith("unreadable") for text in listed)
    assert HOSTILE in listed[0] and "cannot be read" in listed[0] and "text" in listed[-1]
    assert tab.js("d.querySelectorAll('.cards .read')[1].textContent").endswith("damaged records 1")
    assert not tab.js("d.querySelector('.error').checkVisibility()")
    tab.enter("[type=search]", "text")
    tab.wait("d.body.innerText.includes('None of the chosen runs can be shown')")
    tab.problems.clear()  # the answers 422


def test_the_table_is_legible_in_a_narrow_window(tab, serve, tmp_path):
    write_run(tmp_path / ("study/method/" * 8 + "0"), lambda step: decaying(0.9), window=30)
    address, _ = serve(tmp_path)
    tab.resize(800, 1000)
    tab.show(address)
    row = "d.querySelector('tr:last-child')"
    assert tab.js(f"{row}.clientHeight") < 100
    assert tab.js("d.documentElement.scrollWidth") <= 800
    tab.resize(1280, 1000)
