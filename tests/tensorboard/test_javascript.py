"""The tab's pure functions, run by Node; what needs a page is in `test_tab.py`."""

import json
import shutil
import subprocess
from urllib.parse import unquote

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from kbptt.tensorboard import grid, heatmap, plugin

MISSING = float(grid.MISSING)

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node on PATH")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Value of a JavaScript expression in which `n` is numbers.js and `s` is state.js."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "package.json").write_text('{"type": "module"}')
    for name in ("numbers.js", "state.js"):
        shutil.copy(plugin.STATIC / name, folder)

    def run(expression, *arguments):
        code = (
            "import * as n from './numbers.js'; import * as s from './state.js';"
            "const given = JSON.parse(process.argv[2], (_, v) => v === 'NaN' ? NaN :"
            " v === 'Infinity' ? Infinity : v === '-Infinity' ? -Infinity : v);"
            f"const value = ((a, b, c) => ({expression}))(...given);"
            "console.log(JSON.stringify(value, (_, v) => typeof v === 'number' &&"
            " !Number.isFinite(v) ? String(v) : v instanceof Float32Array ? [...v] : v));"
        )
        (folder / "main.js").write_text(code)
        command = ["node", "main.js", json.dumps(arguments)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_colors_are_those_of_matplotlib(run):
    fractions = np.linspace(0, 1, 101)
    # RdBu without its darkest colours, in which crosshair and cuts would not be seen.
    for diverging, name, part in (
        (False, "viridis", fractions),
        (True, "RdBu_r", 0.1 + 0.8 * fractions),
    ):
        got = np.array(run("a.map((f) => n.color(f, b))", fractions.tolist(), diverging))
        assert np.abs(got - 255 * matplotlib.colormaps[name](part)[:, :3]).max() < 3
    assert run("[n.color(-1), n.color(2)]") == [[68, 1, 84], [253, 231, 37]]


def test_a_value_off_the_scale_has_one_color_in_tab_and_figures(run):
    for name in ("ZERO", "NAN", "INF"):
        color = to_rgb(getattr(heatmap, f"{name}_COLOR"))
        assert run(f"n.{name}") == [round(255 * part) for part in color], name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (-0.001, "−0.001"),
        (123456, "1.23·10⁵"),
        (1e-10, "10⁻¹⁰"),
        (-2.5e12, "−2.5·10¹²"),
        ("NaN", "NaN"),
        ("-Infinity", "−∞"),
        (None, "–"),
    ],
)
def test_format(run, value, text):
    assert run("n.format(a)", value) == text


def test_ticks(run):
    assert run("n.ticks(0, 0.3, 3)") == [0, 0.1, 0.2, 0.3]
    assert run("n.ticks(-2, 2, 100, true)") == [-2, -1, 0, 1, 2]
    assert run("n.ticks(5, 5, 3)") == [5]
    assert run("n.ticks(1e6, 1e6 + 20, 4, true)") == [1000000, 1000005, 1000010, 1000015, 1000020]

    def texts(*arguments):
        return [tick["text"] for tick in run("n.logTicks(a, b, c)", *arguments)]

    assert texts(-10, 0, 6) == ["10⁻¹⁰", "10⁻⁸", "10⁻⁶", "10⁻⁴", "0.01", "1"]
    assert texts(-2, 0, 8) == ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]
    assert texts(-2, 0.5, 6) == ["0.01", "0.03", "0.1", "0.3", "1", "3"]
    assert texts(0, 0.1, 4) == ["1", "1.1", "1.2"]
    ticks = run("n.logTicks(-0.4, 0.3, 5)")
    np.testing.assert_allclose([10 ** t["value"] for t in ticks], [0.5, 1, 1.5])


def test_cells_of_edges(run):
    edges = [0, 1, 10, 11]
    points = [-0.1, 0, 0.9, 1, 9.9, 10, 10.9, 11, "NaN"]
    assert run("b.map((x) => n.cell(a, x))", edges, points) == [-1, 0, 0, 1, 1, 2, 2, -1, -1]


def test_shared_scale(run):
    def grids(*ranges):
        return [{"min": low, "max": high} for low, high in ranges]

    scale = "n.sharedScale(a, b)"
    assert run(scale, [*grids((-3, 1), (None, None), (-5, 0)), None], False) == [-5, 1]
    assert run(scale, grids((-2, -2)), False) == [-2.5, -1.5]
    assert run(scale, grids((-3, 1)), True) == [-3, 3]
    assert run(scale, [None], False) == [-1, 0]


def test_division_by_a_run(run):
    """At the same step and lag, whatever the numbers of cells are."""

    def cells(steps, timesteps, values, total=None):
        return {
            "step_edges": steps,
            "timestep_edges": timesteps,
            "timesteps": total or timesteps[-1],
            "cols": len(timesteps) - 1,
            "values": values,
            "missing": MISSING,
        }

    one = cells([0, 10, 20], [0, 1, 2, 3], [1, 2, 3, "-Infinity", "Infinity", "NaN"])
    # Half as many steps; the last two timesteps of three.
    base = cells([0, 20], [0, 1, 2], [0.5, "-Infinity"])
    got = run("n.divide(a, b)", one, base)
    missing = MISSING
    assert got["values"] == [missing, 1.5, "Infinity", missing, "Infinity", "NaN"]
    zero = run("n.divide(a, b)", cells([0, 1], [0, 1], ["-Infinity"]), one)
    assert zero["values"] == ["-Infinity"]
    assert (got["min"], got["max"]) == (1.5, 1.5)
    nothing = run("n.divide(a, b)", cells([0, 1], [0, 1], [MISSING]), base)
    assert nothing["values"] == [MISSING] and nothing["min"] is None


STATES = [
    {},
    {"view": "lag", "layer": "größe & co=1", "merge": "max", "step": -3, "base": "a/b#c"},
    {"runs": [], "filter": "a|b+", "axis": "lag"},
    {"off": ['"quoted", with & = % # /', "层", "<script>"], "trend": "optimizer/clip_rate"},
    {"zoom": [1, 2, 3, 4], "scale": [-6.5, None]},
]


@pytest.mark.parametrize("changes", STATES)
def test_a_link_holds_any_state(run, changes):
    before = "#scalars&tagFilter=x%26y&p.other.step=1&p.gradient_flow.step=9"
    state, link, again = run(
        "((state, hash) => [state, hash, s.read(hash)])"
        "({...s.initial(), ...a}, s.write(b, {...s.initial(), ...a}))",
        changes,
        before,
    )
    assert again == (state if changes else None)
    # What is not ours stays, and TensorBoard can split it: one `=` in each part but the first.
    head, *parts = link.split("&")
    assert head == "#scalars" and parts[:2] == ["tagFilter=x%26y", "p.other.step=1"]
    assert all(part.count("=") == 1 for part in parts)
    keys = [unquote(part.split("=")[0]) for part in parts[2:]]
    assert sorted(keys) == sorted(f"p.gradient_flow.{name}" for name in changes)


@pytest.mark.parametrize(
    "damaged",
    [
        "view=x",
        "step=1.5",
        "runs=%5B1%5D",
        "zoom=%5B1%5D",
        "scale=3",
        "off=%7B",
        "layer=%E0%A4",
        "no",
    ],
)
def test_a_damaged_link_is_as_good_as_none(run, damaged):
    assert run("s.read(a)", f"#gradient_flow&p.gradient_flow.{damaged}") is None
    good = "&p.gradient_flow.axis=lag"
    state = run("s.read(a)", f"#gradient_flow&p.gradient_flow.{damaged}{good}")
    assert state == run("({...s.initial(), axis: 'lag'})")


def test_an_address_without_a_tab_gets_one(run):
    hashes = run("['', '#', '#a=1'].map((h) => s.write(h, {...s.initial(), step: 1}))")
    assert hashes == [
        "#gradient_flow&p.gradient_flow.step=1",
        "#gradient_flow&p.gradient_flow.step=1",
        "#gradient_flow&a=1&p.gradient_flow.step=1",
    ]


def test_filter(run):
    runs = ["adding/SEED1", "adding/seed2", "copy(x"]
    for text, found in (("seed[12]", [0, 1]), ("", [0, 1, 2]), ("y(", [2]), ("z(", [])):
        assert run("s.matching(a, b)", runs, text) == [runs[i] for i in found]


def choose(run, clicks, runs, most=3):
    """Clicks on runs' boxes, one after the other; returns what is shown in the end."""
    return run(
        "(() => { const state = s.initial(); let shown = s.chosen(b, state, c);"
        " for (const run of a) { const on = !shown.includes(run);"
        " Object.assign(state, s.toggle(state, run, on, b, shown));"
        " shown = s.chosen(b, state, c); }"
        " return [shown, s.chosen([...b, 'new'], state, c + 1)]; })()",
        clicks,
        runs,
        most,
    )


def test_choosing_runs(run):
    abc = ["a", "b", "c"]
    assert choose(run, [], abc) == [abc, [*abc, "new"]]
    # A run that begins later is shown, too.
    assert choose(run, ["b"], abc) == [["a", "c"], ["a", "c", "new"]]
    assert choose(run, ["b", "c", "b"], abc) == [["a", "b"], ["a", "b", "new"]]
    # Where not all fit in, leaving one out brings in no other.
    many = list("abcdef")
    assert choose(run, [], many)[0] == abc
    assert choose(run, ["b"], many)[0] == ["a", "c"]
    assert choose(run, ["b", "f"], many)[0] == ["a", "c", "f"]
    assert choose(run, ["b", "f", "a"], many) == [["c", "f"], ["c", "f"]]


def test_of_too_many_runs_every_folder_is_shown(run):
    study = [f"{method}/adding/{seed}" for method in "abcd" for seed in range(8)]
    assert choose(run, [], study, 10)[0] == [
        *("a/adding/0", "a/adding/1", "a/adding/2", "b/adding/0", "b/adding/1", "b/adding/2"),
        *("c/adding/0", "c/adding/1", "d/adding/0", "d/adding/1"),
    ]
    assert choose(run, ["a/adding/0"], study, 4)[0] == [f"{m}/adding/0" for m in "bcd"]


def test_medians_and_folders(run):
    assert run("a.map(n.median)", [[3, 1, 2], [1, 4], [], ["NaN", 5, None], ["Infinity"] * 2]) == [
        2,
        2.5,
        None,
        5,
        "Infinity",
    ]
    assert run("[n.statistic(NaN), n.statistic(0.5), n.format(NaN)]") == ["–", "0.5", "NaN"]
    runs = ["clip/adding/0", "clip/adding/1", "clip/copy/0", "alone", "/odd"]
    items = [{"run": name} for name in runs]
    found = run("n.folders(a)", items)
    assert [(folder, [item["run"] for item in of]) for folder, of in found] == [
        ("clip/adding", runs[:2]),
        ("clip/copy", runs[2:3]),
        ("alone", ["alone"]),
        ("/odd", ["/odd"]),
    ]
    assert run("n.folders(a)", items[1:]) == []  # nothing to take a median of
