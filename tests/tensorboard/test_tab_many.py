"""The tab with the runs of a study: groups, hundreds of runs, layers with other names."""

import numpy as np
import pytest
import tensorboard_server
from gradient_flow_tab import HIGHEST, decaying, needs_browser, write_run
from tensorboard.plugins.hparams import summary_v2

from kbptt.tensorboard import writer

pytestmark = needs_browser

METHODS = {"baseline": 0.5, "clip": 0.7, "norm": 0.9, "orthogonal": 1.0}
NAMES = "[...d.querySelectorAll('.heatmaps .name')].map(n => n.textContent)"
ROWS = "[...d.querySelectorAll('.row')].map(r => r.innerText.replace(/\\s+/g, ' ').trim())"
LEGEND = "[...d.querySelector('.legend').querySelectorAll('.cell')].map(c => c.innerText)"


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser):
    """Forty runs: four methods on a task with ten seeds, with the options of `kbptt compare`."""
    root = tmp_path_factory.mktemp("study")
    for method, factor in METHODS.items():
        for seed in range(10):
            run = root / method / "adding" / str(seed)
            scale = 10.0 ** (seed % 3 - 1)
            # As in a notebook: every model has its own names of layers.
            write_run(run, lambda step, f=factor, s=scale: decaying(f, s), [f"lstm_{seed}"])
            options = {"method": method, "cell": ("LSTM", "GRU")[seed % 2], "seed": seed}
            hparams = summary_v2.hparams_pb(options).value[0]
            writer.EventWriter(str(run)).write(0, [hparams])
    with tensorboard_server.serve(root) as (address, _):
        yield address
        browser.open("about:blank")


def test_forty_runs_are_four_groups(tab, server):
    tab.show(server)
    tab.wait(f"{LEGEND}.length === 4")
    assert tab.js(NAMES) == [f"{method}/adding" for method in METHODS]
    assert [row.split(" ", 1)[1] for row in tab.js(ROWS)] == [
        f"{method}/adding 10" for method in METHODS
    ]
    assert all("10 runs" in text for text in tab.js(LEGEND))
    of_ten = "r.textContent.startsWith('geometric mean of 10 runs')"
    tab.wait(f"[...d.querySelectorAll('.heatmaps .read')].every(r => {of_ten})")
    tab.frame()
    # Of the scales 0.1, 1 and 10 (four, three, three seeds): the mean of the logarithms is −0.1.
    scale = tab.js("[...d.querySelectorAll('.norm')].map(n => n.placeholder)")
    assert float(scale[1]) == pytest.approx(10**-0.1, rel=1e-3)
    tab.wait("d.querySelectorAll('td .verdict').length === 4")
    verdicts = tab.js("[...d.querySelectorAll('td .verdict')].map(v => v.textContent)")
    assert verdicts == ["10 vanishing", "10 vanishing", "10 decaying", "10 healthy"]


def test_a_group_is_opened_into_its_runs(tab, server):
    tab.show(server)
    tab.wait(f"{LEGEND}.length === 4")
    tab.js("d.querySelector('header button').click()")
    tab.wait(f"{LEGEND}.length === 14")
    assert tab.js(NAMES)[:4] == ["baseline/adding", *(f"baseline/adding/{i}" for i in range(3))]
    assert "open=" in tab.url()
    rows = tab.js(ROWS)
    assert rows[0].startswith("▾ baseline/adding 10") and rows[1] == "0"
    tab.js("d.querySelector('header button').click()")
    tab.wait(f"{LEGEND}.length === 4")


def test_grouping_by_options(tab, server):
    tab.show(server)
    tab.wait(f"{LEGEND}.length === 4")
    choose = "(s => { s.value = %r; s.dispatchEvent(new Event('change')); })(d.querySelector(%r))"
    tab.js(choose % ("option:cell", "[aria-label='group runs by']"))
    tab.wait(f"{NAMES}.length === 2")
    assert tab.js(NAMES) == ["cell = GRU", "cell = LSTM"]
    tab.js(choose % ("option:method", "[aria-label='and by']"))
    tab.wait(f"{NAMES}.length === 8")
    assert tab.js(NAMES)[0] == "cell = GRU, method = baseline"
    tab.js(choose % ("", "[aria-label='group runs by']"))
    tab.wait(f"{NAMES}.length === 40")
    # The last one is fetched when it comes into view.
    last = "orthogonal/adding/9"
    assert tab.js(f"{tab.canvas(last)}.closest('.card').querySelector('.read').innerText") == ""
    assert tab.pixel(last, 0.5, 0.5) not in ([0, 0, 0], HIGHEST)


def test_layers_of_the_same_place_stand_side_by_side(tab, server):
    tab.show(server)
    tab.wait(f"{LEGEND}.length === 4")
    layer = "d.querySelectorAll('.controls select')[1]"
    chosen = f"(s => [s.value, s.selectedOptions[0].textContent])({layer})"
    assert tab.js(chosen) == ["#0", "layer 1: lstm_0, lstm_1, … (10 names)"]
    tab.control("Layer", "lstm_3")
    tab.wait(f"{NAMES}.length === 4 && {NAMES}[0].endsWith('adding/3')")
    tab.control("Layer", "#0")
    tab.wait(f"{LEGEND}.length === 4")


def test_colors_are_those_of_time_series(tab, server):
    """The colours that TensorBoard's own dashboard gives the runs."""
    tab.show(server, "&p.gradient_flow.group=%5B%5D")
    tab.wait(f"{NAMES}.length === 40")
    rgb = "getComputedStyle(e.querySelector('.swatch')).backgroundColor"
    script = (
        f"Object.fromEntries([...d.querySelectorAll('.row')].map(e => [e.dataset.label, {rgb}]))"
    )
    mine = tab.js(script)
    tab.evaluate("location.hash = '#timeseries'")
    tab.open(f"{server}#timeseries")
    row = "document.querySelectorAll('tb-data-table-content-row')"
    tab.wait_for(f"{row}.length > 3")
    theirs = tab.evaluate(
        f"Object.fromEntries([...{row}].map(r => [r.innerText.trim().split('\\n').pop().trim(),"
        " [...r.querySelectorAll('button, .run-color-swatch, [style*=background]')]"
        ".map(b => getComputedStyle(b).backgroundColor)]))"
    )
    shared = [run for run in theirs if run in mine]
    assert len(shared) > 3
    assert [mine[run] in theirs[run] for run in shared] == [True] * len(shared)


def test_what_is_saved(tab, server, tmp_path):
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    tab.show(server)
    tab.wait(f"{LEGEND}.length === 4 && d.querySelector('.read').innerText.includes('profiles')")
    tab.wait("d.querySelector('.charts .cell')")
    for place in ("section:nth-of-type(1) header", "section:nth-of-type(2)", ".charts header"):
        for kind in ("SVG", "CSV"):
            buttons = f"[...d.querySelectorAll('{place} .menu button')]"
            tab.js(f"{buttons}.find(b => b.textContent === '{kind}').click()")
            tab.evaluate("new Promise(done => setTimeout(done, 300))")
    for _ in range(100):
        found = {path.name: path for path in tmp_path.iterdir() if "crdownload" not in path.name}
        if len(found) == 6:
            break
        tab.evaluate("new Promise(done => setTimeout(done, 50))")
    assert len(found) == 6 and sum(name.endswith(".svg") for name in found) == 3, found
    for name, path in found.items():
        text = path.read_text()
        if name.endswith(".svg"):
            parses = f"new DOMParser().parseFromString({text!r}, 'image/svg+xml')"
            assert tab.evaluate(f"{parses}.querySelectorAll('text').length") > 5, name
            assert tab.evaluate(f"{parses}.querySelector('parsererror')") is None
    (cells,) = (path for name, path in found.items() if name.endswith("cells.csv"))
    header, first, *_ = cells.read_text().splitlines()
    assert header == "group,runs,first_step,last_step,first_timestep,last_timestep,dL_dh"
    assert first.startswith("baseline/adding,10,10,10,0,0,")
    assert float(first.split(",")[-1]) == pytest.approx(0.5**39 * 10**-0.1, rel=1e-3)
    (profile,) = (path for name, path in found.items() if "step" in name and name.endswith("csv"))
    lines = profile.read_text().splitlines()
    assert len(lines) == 1 + 4 * 40
    last = dict(zip(lines[0].split(","), lines[40].split(","), strict=True))
    # At t = 39 the runs of a group have 0.1, 1 or 10.
    assert (last["name"], last["runs"], last["first_timestep"]) == ("baseline/adding", "10", "39")
    assert [float(last[key]) for key in ("dL_dh", "band_low", "band_high")] == pytest.approx(
        np.quantile(np.float32([0.1] * 4 + [1] * 3 + [10] * 3), [0.5, 0.25, 0.75]), rel=1e-3
    )


def test_five_hundred_runs_can_be_chosen(tab, serve, tmp_path):
    for run in range(500):
        write_run(
            tmp_path / f"m{run // 10:02d}" / str(run % 10), lambda step: decaying(0.9), steps=[1]
        )
    address, _ = serve(tmp_path)
    tab.show(address)
    tab.wait("d.querySelector('.buttons .muted').textContent === '500 of 500 runs in 50 groups'")
    assert tab.js("d.querySelectorAll('.row').length") < 80  # of which each is 24 pixels high
    assert tab.js("d.querySelector('.rows').clientHeight") == 50 * 24
    button = "[...d.querySelectorAll('.buttons button')].find(b => b.textContent === %r).click()"
    tab.js(button % "Open groups")
    tab.wait("d.querySelector('.rows').clientHeight === 550 * 24")
    assert tab.js("d.querySelectorAll('.row').length") < 80
    tab.js("d.querySelector('.list').scrollTo(0, 1e6)")
    tab.wait("[...d.querySelectorAll('.row')].at(-1).dataset.label === 'm49/9'")
    tab.js(button % "None")
    tab.wait("d.body.innerText.includes('No run is selected')")
    tab.js("[...d.querySelectorAll('.row input')].at(-1).click()")
    tab.wait("d.querySelector('.buttons .muted').textContent.startsWith('1 of 500')")
    tab.wait(f"{NAMES}.join() === 'm49,m49/9'")
    tab.js(button % "All")
    tab.wait("d.querySelector('.buttons .muted').textContent.startsWith('500 of 500')")
    tab.js(button % "Close groups")
    tab.enter("[type=search]", "m0[0-4]/")
    tab.wait("d.querySelector('.buttons .muted').textContent === '50 of 50 runs in 5 groups'")
    tab.wait(f"{LEGEND}.length === 5")
