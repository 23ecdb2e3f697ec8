"""The HTML report where it is narrow: a telephone, and paper."""

import base64
import re
import zlib

import chromium
import pytest
from ledgers import plan

from kbptt.ablation.reporting import Report

pytestmark = pytest.mark.skipif(not chromium.find(), reason="needs Chromium or Chrome")
METHODS = ["baseline", "clip", "orthogonal+layernorm+norm_stabilizer", "timestep_clip"]
UNBROKEN = "a_name_of_a_metric_that_has_no_place_at_which_it_could_be_broken_over_lines"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Every column filled, long names, an error, an environment: the widest that there is."""
    logdir = tmp_path_factory.mktemp("a_directory_with_a_long_name_that_stands_in_the_title") / "l"
    grid = {"methods": METHODS, "seeds": 6, "set": {"truncation": [16, "full"]}}
    with plan(logdir, {"tasks": [UNBROKEN * 4]}, **grid) as ledger:
        for i, trial in enumerate(ledger.trials()):
            diverged = trial.config["seed"] == 5
            if trial.config["seed"] == 4:
                ledger.fail(trial.key, f"ValueError: {UNBROKEN * 3}")
                continue
            result = {
                "status": "diverged" if diverged else "ok",
                "score": None if diverged else 0.61234 + i / 300,
                "metric": UNBROKEN,
                "mode": "max",
                "baseline": 0.25,
                "success_threshold": 0.7,
                "curve": {"validation": [0.5, 0.6]},
                "gradient": {
                    "rnn": {
                        "start": [0.1, 0.5, 1.0],
                        "end": [0.5, 0.75, 1.0],
                        "statistics_end": {"decay": 0.98765},
                    }
                },
                "clipping": {"clip": {"clip_rate": 0.25}},
                "cost": {"seconds_per_step": 0.0123, "training_memory_bytes": 2**30},
                "environment": {"processor": UNBROKEN, "threads": 1},
            }
            ledger.finish(trial.key, result)
    report = Report(logdir)
    report.write()
    return logdir / "report.html", report


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    with chromium.Browser(tmp_path_factory.mktemp("profile"), 390, 844) as browser:
        browser.open(page[0].as_uri())
        browser.wait_for("document.readyState === 'complete' && document.title")
        yield browser


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_page_is_wider_than_its_window(browser, width):
    browser.resize(width, 844)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    # What is wider scrolls by itself, and all of it can be reached.
    tables = browser.evaluate(
        "[...document.querySelectorAll('.scroll')].map(e => [e.clientWidth, e.scrollWidth, "
        "e.firstElementChild.offsetWidth])"
    )
    assert tables and all(inner <= whole for _, whole, inner in tables)
    assert width > 400 or any(whole > shown for shown, whole, _ in tables)


def test_paper_shows_every_column(browser, page):
    """In the width of A4 within its margins no table, cell or text ends beyond the edge."""
    header = page[1].tables()[0][1]
    assert len(header) == 16  # all that there are
    browser.call("Emulation.setEmulatedMedia", media="print")
    width = round((210 - 24) / 25.4 * 96)
    browser.resize(width, 1000)
    try:
        ends = browser.evaluate(
            "[...document.querySelectorAll('table, th, td, figure > svg, pre, li, h1, h2')]"
            ".map(e => [e.tagName, e.getBoundingClientRect().right, e.scrollWidth - e.clientWidth])"
        )
        beyond = [e for e in ends if e[1] > width + 0.5 or (e[0] in ("TH", "TD") and e[2] > 1)]
        assert not beyond, beyond[:5]
        rule = "[...document.querySelectorAll('{}')].every(e => getComputedStyle(e).{} === 'avoid')"
        assert browser.evaluate(rule.format("h1, h2", "breakAfter"))
        assert browser.evaluate(rule.format("figure", "breakInside"))
        pdf = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
    objects = pdf + b"".join(
        zlib.decompress(stream)
        for stream in re.findall(rb"/FlateDecode.*?stream\r?\n(.*?)\r?\nendstream", pdf, re.S)
        if stream[:1] == b"x"
    )
    boxes = {tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox \[(.*?)\]", objects)}
    assert boxes and all(abs(x - 595) < 2 and abs(y - 842) < 2 for _, _, x, y in boxes)  # A4


def column(browser, table, number):
    rows = f"document.querySelectorAll('table')[{table}].tBodies[0].rows"
    found = browser.evaluate(f"[...{rows}].map(row => row.cells[{number}].textContent)")
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in found]


def press(browser, key, code):
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=code)


def test_tables_are_sorted_with_the_keyboard(browser, page):
    _, header, lines = page[1].tables()[0]
    browser.resize(1280, 844)
    assert column(browser, 0, 1) == [line[1] for line in lines]
    sorts = "[...document.querySelectorAll('th')].map(e => e.getAttribute('aria-sort'))"
    assert not any(browser.evaluate(sorts))
    i = header.index("Δ")
    browser.evaluate(f"document.querySelectorAll('th')[{i}].querySelector('button').focus()")
    press(browser, "Enter", "\r")
    found = browser.evaluate(sorts)
    assert found[i] == "descending" and sum(map(bool, found)) == 1
    values = [line[i].value for line in lines if line[i]]
    shown = column(browser, 0, i)
    expected = [next(c[i] for c in lines if c[i].value == v) for v in sorted(values)[::-1]]
    assert shown == expected + [""] * (len(lines) - len(values))  # references have no difference
    press(browser, "Enter", "\r")
    assert browser.evaluate(sorts)[i] == "ascending"
    assert column(browser, 0, i) == expected[::-1] + [""] * (len(lines) - len(values))
    j = header.index("method")
    browser.evaluate(f"document.querySelectorAll('th')[{j}].querySelector('button').click()")
    assert column(browser, 0, j) == sorted((line[j] for line in lines), key=str.lower)
    assert browser.evaluate(sorts)[i] is None
    browser.evaluate("document.querySelectorAll('th')[0].querySelector('button').click()")
    assert column(browser, 0, 1) == [line[1] for line in lines]
    # Its own script runs, no other would; nothing is fetched.
    assert [p for p in browser.problems if "report.html" not in p] == []


def test_text_and_figures_follow_the_colour_scheme(browser):
    colours = (
        "[getComputedStyle(document.documentElement).backgroundColor, "
        "...[...document.querySelectorAll('.headline, figure text, td, figcaption')].map(e => "
        "e.namespaceURI.endsWith('svg') ? getComputedStyle(e).fill : getComputedStyle(e).color)]"
    )
    found = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.call("Emulation.setEmulatedMedia", media="", features=features)
        found[scheme] = browser.evaluate(colours)
    browser.call("Emulation.setEmulatedMedia", media="", features=[])
    bright = {
        scheme: [sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in all_of_them]
        for scheme, all_of_them in found.items()
    }
    assert bright["light"][0] == 1 and max(bright["light"][1:]) < 0.5
    assert bright["dark"][0] < 0.15 and min(bright["dark"][1:]) > 0.6


def test_text_of_figures_is_large_enough_on_a_telephone(browser):
    browser.resize(390, 844)
    heights = browser.evaluate(
        "[...document.querySelectorAll('figure text')].map(e => e.getBoundingClientRect())"
        ".filter(b => b.width > b.height).map(b => b.height)"
    )
    assert heights and min(heights) >= 9
    outside = browser.evaluate(
        "[...document.querySelectorAll('figure text')].map(e => e.getBoundingClientRect())"
        ".filter(b => b.right > 391 || b.left < -1).length"
    )
    assert outside == 0


def test_the_configuration_is_folded(browser):
    assert browser.evaluate("[...document.querySelectorAll('details')].map(e => e.open)") == [False]
    assert browser.evaluate("document.querySelector('summary').textContent") == "Configuration"
