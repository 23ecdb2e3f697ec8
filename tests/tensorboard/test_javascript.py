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
MODULES = {
    "n": "numbers.js",
    "s": "state.js",
    "g": "grouping.js",
    "bands": "bands.js",
    "colors": "colors.js",
    "texts": "texts.js",
}

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node on PATH")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Value of a JavaScript expression in which `n` is numbers.js, `s` is state.js, and so on."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "package.json").write_text('{"type": "module"}')
    for name in MODULES.values():
        shutil.copy(plugin.STATIC / name, folder)

    imports = "".join(f"import * as {name} from './{file}';" for name, file in MODULES.items())

    def run(expression, *arguments):
        code = (
            f"{imports}const given = JSON.parse(process.argv[2], (_, v) => v === 'NaN' ? NaN :"
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
    {"kind": "h_norm", "layer": "größe & co=1", "merge": "max", "step": -3, "base": "a/b#c"},
    {"runs": [], "filter": "a|b+", "axis": "lag"},
    {"off": ['"quoted", with & = % # /', "层", "<script>"], "trends": ["optimizer/clip_rate"]},
    {"group": ["folder", "option:cell"], "open": ["a = 1, b"], "band": "range"},
    {"group": []},
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
        "band=x",
        "constructor=1",
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


def test_links_of_the_first_edition(run):
    state = run("s.read('#gradient_flow&p.gradient_flow.view=lag&p.gradient_flow.trend=horizon')")
    assert (state["kind"], state["trends"]) == ("dL_dh_by_lag", ["horizon"])


def choose(run, clicks, runs):
    """Clicks on boxes, one after the other; what is shown in the end, and if a run comes later."""
    return run(
        "(() => { const state = s.initial();"
        " for (const some of a) { const on = !some.every((r) => s.chosen(b, state).includes(r));"
        " Object.assign(state, s.toggle(state, some, on)); }"
        " return [s.chosen(b, state), s.chosen([...b, 'new'], state)]; })()",
        clicks,
        runs,
    )


def test_choosing_runs(run):
    abc = ["a", "b", "c"]
    assert choose(run, [], abc) == [abc, [*abc, "new"]]
    # A run that begins later is shown, too.
    assert choose(run, [["b"]], abc) == [["a", "c"], ["a", "c", "new"]]
    assert choose(run, [["b", "c"], ["b"]], abc) == [["a", "b"], ["a", "b", "new"]]
    only = (
        "s.chosen(a, {...s.initial(), runs: ['a'], ...s.toggle({runs: ['a'], off: []}, b, true)})"
    )
    assert run(only, [*abc, "new"], ["b", "c"]) == abc
    many = [f"run {i}" for i in range(5000)]
    shown = run("s.chosen(a, {...s.initial(), ...s.toggle(s.initial(), b, false)})", many, many[1:])
    assert shown == many[:1]


STUDY = [f"{method}/adding/{seed}" for method in ("clip", "baseline") for seed in (0, 2, 10)]


def test_groups_by_folder_and_by_options(run):
    by_folder = run("g.groups(a, {}, ['folder'])", STUDY)
    assert [group["label"] for group in by_folder] == ["baseline/adding", "clip/adding"]
    assert by_folder[1]["runs"] == STUDY[:3]
    assert run("g.groups(a, {}, [])", STUDY) == []
    options = {
        **{name: {"method": name.split("/")[0], "seed": int(name[-1])} for name in STUDY[:5]},
        "elsewhere": {"method": "none"},
    }
    found = run("g.groups(a, b, ['option:method', 'option:seed'])", STUDY, options)
    assert [(group["label"], len(group["runs"])) for group in found] == [
        ("method = –, seed = –", 1),
        ("method = baseline, seed = 0", 1),
        ("method = baseline, seed = 2", 1),
        ("method = clip, seed = 0", 2),  # of 0 and 10: the last digit
        ("method = clip, seed = 2", 1),
    ]


def test_options_of_the_directory_above(run):
    options = {"a": {"x": 1}, ".": {"x": 0}, "a/b": {"x": 2}}
    of = "a.map((run) => g.optionsOf(run, b).x ?? null)"
    names = ["a/train", "a/b", "a/b/c/d", "ab", "toString"]
    assert run(of, names, options) == [1, 2, 2, 0, 0]
    assert run(of, ["a/train", "constructor"], {}) == [None, None]


def test_what_runs_can_be_grouped_by(run):
    options = {name: {"task": "adding", "method": name.split("/")[0]} for name in STUDY}
    found = run("g.groupKeys(a, b)", STUDY, options)
    assert [(one["key"], one["text"]) for one in found] == [
        ("folder", "folder"),
        ("option:method", "method (2 values)"),  # those that differ first
        ("option:task", "task (1 value)"),
    ]
    defaults = "[g.defaultKeys(a), g.defaultKeys(a, 3), g.defaultKeys(['a', 'b', 'c', 'd'], 3)]"
    assert run(defaults, STUDY) == [[], ["folder"], []]


def tags(**runs):
    """Tags of runs by their layers in order."""
    return {
        run: {
            f"gradient_flow/{layer}/dL_dh": {"layer": layer, "kind": "dL_dh", "position": position}
            for position, layer in enumerate(layers)
        }
        for run, layers in runs.items()
    }


def test_layers_with_other_names_stand_side_by_side(run):
    found = tags(a=["lstm"], b=["lstm_1"], c=["gru_1"], d=["gru_2"])
    choices = run("g.layerChoices(a, 'dL_dh')", found)
    assert [one["value"] for one in choices] == ["gru_1", "gru_2", "lstm", "lstm_1", "#0"]
    assert choices[-1]["text"] == "layer 1: gru_1, gru_2, … (4 names)"
    assert run("g.commonest(g.layerChoices(a, 'dL_dh'))", found) == "#0"
    chosen = run("[...g.chosenTags(a, 'dL_dh', '#0')].map(([run, [tag]]) => [run, tag])", found)
    assert chosen == [
        ["a", "gradient_flow/lstm/dL_dh"],
        ["b", "gradient_flow/lstm_1/dL_dh"],
        ["c", "gradient_flow/gru_1/dL_dh"],
        ["d", "gradient_flow/gru_2/dL_dh"],
    ]


def test_equal_names_are_matched_before_positions(run):
    found = tags(a=["encoder", "decoder"], b=["decoder"])
    assert run("g.commonest(g.layerChoices(a, 'dL_dh'))", found) == "decoder"
    assert run("[...g.chosenTags(a, 'dL_dh', 'decoder').keys()]", found) == ["a", "b"]
    alike = tags(a=["lstm", "lstm_1"], b=["lstm", "lstm_1"])
    values = run("g.layerChoices(a, 'dL_dh').map((one) => one.value)", alike)
    assert values == ["lstm", "lstm_1"]  # a position would be the same
    assert run("g.commonest(g.layerChoices({}, 'dL_dh'))") == ""


def test_band_of_profiles(run):
    def profile(norms, first=0):
        edges = list(range(first, first + len(norms) + 1))
        return {"edges": edges, "norms": norms, "timesteps": edges[-1]}

    runs = [profile([1, 10, v]) for v in (1, 2, 3, 4, "NaN")]
    band = run("bands.profileBand(a, false)", runs)
    assert (band["y"], band["low"], band["high"]) == ([1, 10, 2.5], [1, 10, 1.75], [1, 10, 3.25])
    assert band["n"] == [5, 5, 5]
    assert run("bands.profileBand(a, true)", runs)["low"] == [1, 10, 1]
    # Of other lengths, at the same lag; a profile that is shorter is unknown before its start.
    band = run("bands.profileBand(a, true)", [profile([5, 7]), profile([1, 2, 3])])
    assert (band["low"], band["high"], band["n"]) == ([1, 2, 3], [1, 5, 7], [1, 2, 2])
    band = run("bands.profileBand(a, false)", [profile([0, "NaN"]), profile([0, "NaN"])])
    assert (band["y"], band["low"]) == ([0, "NaN"], [0, None])


def test_band_of_trends(run):
    runs = [{"steps": [1, 3, 5], "values": [1, 3, 5]}, {"steps": [2, 4], "values": [20, 40]}]
    band = run("bands.trendBand(a, true)", runs)
    assert band["steps"] == [1, 2, 3, 4, 5]
    # The last value up to the step; before the first and after the last of a run it is unknown.
    assert (band["low"], band["high"]) == ([1, 1, 3, 3, 5], [1, 20, 20, 40, 5])
    assert band["n"] == [1, 2, 2, 2, 1]
    long = [{"steps": list(range(5000)), "values": [1] * 5000}] * 2
    steps = run("bands.trendBand(a, false).steps", long)
    assert len(steps) == 300 and (steps[0], steps[-1]) == (0, 4999)
    assert run("n.quantile(a, 0.25)", [1, 2]) == 1.25
    assert run("n.quantile(a, 0.5)", ["Infinity"] * 2) == "Infinity"


def test_colors_are_those_of_tensorboard(run):
    """The palette of `webfiles.zip`, by the place of a run in TensorBoard's list."""
    light = ["#425066", "#12b5cb", "#e52592", "#f9ab00", "#9334e6", "#7cb342", "#e8710a"]
    runs = [f"run {i}" for i in range(9)]
    of = "[...colors.runColors(a, b, c).values()]"
    assert run(of, runs, None, False) == [*light, *light[:2]]
    assert run(of, runs, None, True) == ["#8e98a3", *light[1:], "#8e98a3", light[1]]
    # As TensorBoard groups: by what the parentheses match, in the order of the runs.
    names = ["a/0", "b/0", "a/1", "other"]
    assert run(of, names, "^(.)/", False) == [light[0], light[1], light[0], "#e0e0e0"]
    assert run(of, names, "/", False) == [light[0]] * 3 + ["#e0e0e0"]
    assert run(of, names, "(", False) == ["#e0e0e0"] * 4
    group = "colors.groupColor(a, 2, new Map(b), false)"
    assert run(group, ["a", "b"], [["a", light[5]], ["b", light[5]]]) == light[5]
    assert run(group, ["a", "b"], [["a", light[5]], ["b", light[6]]]) == light[2]
    assert run(group, ["a"], [["a", light[5]]]) == light[2]


def test_sections_of_the_statistics(run):
    names = ["x", "optimizer/clip/y", "horizon", "variables/lstm/kernel", "decay", "optimizer/z"]
    assert run("texts.sections(a)", names) == [
        ["layer", ["decay", "horizon", "x"]],
        ["optimizer › clip", ["optimizer/clip/y"]],
        ["variables › lstm", ["variables/lstm/kernel"]],
        ["optimizer", ["optimizer/z"]],
    ]


def test_medians(run):
    assert run("a.map(n.median)", [[3, 1, 2], [1, 4], [], ["NaN", 5, None], ["Infinity"] * 2]) == [
        2,
        2.5,
        None,
        5,
        "Infinity",
    ]
    assert run("[n.statistic(NaN), n.statistic(0.5), n.format(NaN)]") == ["–", "0.5", "NaN"]
