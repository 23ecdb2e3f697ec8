"""The tab's findings in a real browser: their bounds, and the verdicts beside them."""

import pytest
import tensorboard_server
from gradient_flow_tab import decaying, needs_browser, write_run

pytestmark = needs_browser

FOUND = "[...d.querySelectorAll('.findings li')].map(l => l.innerText.replace(/\\s+/g, ' '))"
VERDICTS = "[...d.querySelectorAll('td .verdict')].map(v => v.textContent)"
NOTE = "d.querySelector('.ill .note').textContent"


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser):
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "ill", lambda step: decaying(0.8))
    write_run(root / "well", lambda step: decaying(0.97))
    with tensorboard_server.serve(root) as (address, _):
        yield address
        browser.open("about:blank")


def test_what_is_wrong_and_what_to_try(tab, server):
    tab.show(server)
    tab.wait(f"{FOUND}.length === 1")
    (found,) = tab.js(FOUND)
    assert found.startswith("vanishing Try: an orthogonal recurrent initializer")
    assert " ill lstm Over the 40 timesteps" in found and "0.8^39 = 10^−3.8, below 0.001" in found
    assert "docs/findings.md#vanishing" in found
    note = tab.js(NOTE)
    settled = "vanishing, exploding, cut-too-short, window-too-long, non-finite"  # nothing is cut
    assert note.startswith(f"Judged for all runs: {settled}.")
    assert "saturated-gates (needs the health of the states, from GradientFlow(" in note


def test_a_bound_that_is_changed_moves_findings_and_verdicts(tab, server):
    tab.show(server)
    tab.wait(f"{FOUND}.length === 1 && {VERDICTS}.length === 2")
    assert sorted(tab.js(VERDICTS)) == ["healthy", "vanishing"]
    tab.control("vanishing", "1e-6")
    tab.wait(f"!{FOUND}.length && {NOTE}.startsWith('Nothing wrong was found.')")
    tab.wait(f"{VERDICTS}.sort().join() === 'decaying,healthy'")
    assert "bounds=" in tab.url()
    # Bounds that contradict each other are refused in a sentence.
    tab.control("vanishing", "5")
    tab.wait("d.querySelector('.error').textContent.includes('vanishing < decaying')")
    assert tab.problems and all("400" in problem for problem in tab.problems)
    tab.problems.clear()
