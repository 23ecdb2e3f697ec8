"""The tab's server side, through TensorBoard's own WSGI application."""

import argparse
import re
import subprocess
import sys

import numpy as np
import pytest
from plugin_client import BASE, get, make_client, read_grid, summary

from kbptt.tensorboard import grid, layout, plugin, reader, writer

TAG = layout.profile_tag("lstm")
STEPS = [10, 20, 40]
RUN = "a <script>"


def norms(step):
    return np.array([0, 1e-3 * step, np.nan if step == 40 else 1.0], np.float32)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("logs")
    for run, window in ((RUN, None), ("b", 2)):
        events = writer.EventWriter(str(root / run))
        content = layout.content("lstm", "last", window, None, "end")
        for step in STEPS:
            events.write(step, [writer.profile_value("lstm", norms(step), content)])
        scalars = {("lstm", "decay"): 0.9, ("optimizer", "clip/threshold"): 2.0, ("gru", "x"): 1.0}
        for step in (50, 60):
            events.write(
                step,
                [
                    writer.scalar_value(layout.statistic_tag(*names), value * step)
                    for names, value in scalars.items()
                ],
            )
    return make_client(root)


def test_loader_keeps_every_record_unless_told_otherwise():
    for given, expected in (({}, 0), ({"gradient_flow": 5}, 5)):
        flags = argparse.Namespace(samples_per_plugin=given)
        plugin.GradientFlowLoader().fix_flags(flags)
        assert flags.samples_per_plugin["gradient_flow"] == expected


def test_tags_lists_profiles_only(client):
    tags = get(client, "tags").json
    assert set(tags) == {RUN, "b"} and set(tags["b"]) == {TAG}
    expected = {"v": 1, "layer": "lstm", "loss": "last", "window": 2, "max_step": 40}
    assert tags["b"][TAG] == {**expected, "kind": "dL_dh", "position": 0}


def test_grid_is_what_was_written(client):
    header, values = read_grid(get(client, "grid", run=RUN, tag=TAG))
    expected = grid.reduce(np.array([norms(s) for s in STEPS]), 9, 9).values
    np.testing.assert_array_equal(values, expected)
    assert header["first_steps"] == header["last_steps"] == STEPS
    assert header["step_edges"] == [5, 15, 30, 50] and header["timestep_edges"] == [0, 1, 2, 3]
    assert (header["zero"], header["nan"], header["inf"]) == (3, 1, 0)
    assert header["min"] == pytest.approx(-2) and header["max"] == 0


def test_grid_of_a_part(client):
    part = {"s0": 20, "s1": 39, "t0": 1, "t1": 3}
    header, values = read_grid(get(client, "grid", run="b", tag=TAG, rows=5, cols=1, **part))
    assert header["timestep_edges"] == [1, 3] and header["timesteps"] == 3
    header, _ = read_grid(get(client, "grid", run="b", tag=TAG, rows=2))
    assert (header["first_steps"], header["last_steps"]) == ([10, 20], [10, 40])
    assert values.tolist() == [[pytest.approx(np.log10(2e-2) / 2)]]


def test_profiles_of_several_runs_at_a_step(client):
    profiles = get(client, "profiles", tag=TAG, run=[RUN, "b"], step=25).json
    assert [p["run"] for p in profiles] == [RUN, "b"]
    assert [p["step"] for p in profiles] == [20, 20]
    assert profiles[0]["norms"] == pytest.approx([0, 0.02, 1])
    assert profiles[0]["decay"] == pytest.approx(0.02)
    assert get(client, "profiles", tag=TAG, run="b", step=1).json[0]["step"] == 10
    assert get(client, "profiles", tag=TAG, run="b").json[0]["norms"][2] == "NaN"


def test_long_profiles_arrive_as_a_bounded_number_of_points(tmp_path):
    values = np.exp(-0.001 * np.arange(20_000)[::-1]).astype(np.float32)
    values[[5_000, 5_001]], values[7_000] = 0, np.nan
    events = writer.EventWriter(str(tmp_path / "run"))
    events.write(1, [writer.profile_value("lstm", values, b"")])
    client = make_client(tmp_path)
    response = get(client, "profiles", tag=TAG, run="run")
    (profile,) = response.json
    assert profile["timesteps"] == 20_000 and len(response.data) < 60_000
    edges, points = profile["edges"], profile["norms"]
    assert edges[::500] == [0, 10_000, 20_000] and len(edges) == len(points) + 1 == 1001
    # Each point is the geometric mean of its timesteps; a single NaN is not lost among them.
    assert points[0] == pytest.approx(np.exp(np.mean(np.log(values[:20]))), rel=1e-5)
    assert points[350] == "NaN" and points[250] > 0
    (t0, first), (t1, last) = profile["fit"]
    assert (t0, t1) == (0, 19_999)
    assert [first, last] == pytest.approx([np.log10(values[0]), 0], abs=1e-3)


def test_the_fitted_line_ends_where_there_are_norms(tmp_path):
    events = writer.EventWriter(str(tmp_path / "run"))
    for step, values in ((1, [0, np.inf, 1e-3, 1e-2, 1e-1]), (2, [0, 0]), (3, [5.0])):
        events.write(step, [writer.profile_value("lstm", values, b"")])
    client = make_client(tmp_path)
    fits = [get(client, "profiles", tag=TAG, run="run", step=s).json[0]["fit"] for s in (1, 2, 3)]
    np.testing.assert_allclose(fits[0], [[2, -3], [4, -1]], rtol=1e-6)
    assert fits[1:] == [None, None]


def test_summary_has_verdict_and_thresholds(client):
    found = summary(client, "b", TAG)
    assert found["verdict"] == "non-finite" and "NaN" in found["reason"]
    assert found["thresholds"] == {
        "vanishing": 1e-3,
        "decaying": 0.1,
        "growing": 10,
        "exploding": 1e3,
        "dark": 0.25,
        "unsteady": 0.25,
    }
    assert (found["averaged"], found["first_step"], found["damaged"]) == (1, 40, 0)
    assert found["records"] == 3 and found["last_step"] == 40
    assert found["zero_fraction"] == pytest.approx(1 / 3) and found["window"] == 2


def test_the_summary_is_of_one_profile(tmp_path):
    """The last profile differs from those before it, and so does the first half of training."""
    events = writer.EventWriter(str(tmp_path / "run"))
    decays = [0.5] * 6 + [0.97] * 9 + [0.9]
    for step, decay in enumerate(decays):
        profile = decay ** np.arange(128.0)[::-1]
        events.write(step, [writer.profile_value("lstm", profile, b"")])
    found = summary(make_client(tmp_path), "run", TAG)
    mean = (0.97**3 * 0.9) ** (1 / 4)
    assert found["decay"] == pytest.approx(mean, rel=1e-5)
    decay, steps, factor = re.search(
        r"factor of ([\d.]+)\^(\d+) = ([\d.]+), between 0.001 and 0.1", found["reason"]
    ).groups()
    assert float(decay) == pytest.approx(mean, rel=1e-5) and steps == "127"
    assert float(factor) == pytest.approx(mean**127, rel=1e-2)
    assert found["half_life"] == pytest.approx(np.log(2) / -np.log(mean), rel=1e-4)
    assert (found["first_step"], found["last_step"], found["averaged"]) == (12, 15, 4)
    assert found["verdict"] == "unsteady" and "7 vanishing" in found["reason"]


def test_the_fit_of_a_profile_is_that_of_its_last_window(tmp_path):
    norms = np.tile(0.5 ** np.arange(10.0)[::-1], 4)
    events = writer.EventWriter(str(tmp_path / "run"))
    content = layout.content("lstm", "all", 10, None, "end")
    events.write(1, [writer.profile_value("lstm", norms, content)])
    client = make_client(tmp_path)
    (profile,) = get(client, "profiles", tag=TAG, run="run").json
    np.testing.assert_allclose(profile["fit"], [[30, -9 * np.log10(2)], [39, 0]], atol=1e-6)
    found = summary(client, "run", TAG)
    assert profile["decay"] == found["decay"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("window", "stride", "reached"), [(4, 4, 2), (4, 3, 2), (6, 4, 4), (6, 5, 6), (20, 20, 10)]
)
def test_a_last_window_that_is_shorter_than_the_others(tmp_path, window, stride, reached):
    """Counted from the start of 10 timesteps, as the layers count: no timestep is missed."""
    norms = np.r_[np.full(10 - reached, 1e-9), 0.5 ** np.arange(reached)[::-1]]
    content = layout.content("lstm", "last", window, stride, "start")
    for name, values in (("shorter", norms), ("cut", np.where(norms < 1e-8, 0, norms))):
        events = writer.EventWriter(str(tmp_path / name))
        events.write(1, [writer.profile_value("lstm", values, content)])
    client = make_client(tmp_path)
    for run in ("shorter", "cut"):
        (profile,) = get(client, "profiles", tag=TAG, run=run).json
        assert profile["decay"] == pytest.approx(0.5)
        assert summary(client, run, TAG)["verdict"] in ("healthy", "decaying")


def test_a_part_of_the_profiles(client):
    for part in ({"t0": 1, "t1": 3}, {"l0": 0, "l1": 2}):
        (profile,) = get(client, "profiles", tag=TAG, run="b", step=20, **part).json
        assert profile["edges"] == [1, 2, 3] and profile["norms"] == pytest.approx([0.02, 1])
        assert profile["timesteps"] == 3 and profile["fit"][0][0] == 1
    (nothing,) = get(client, "profiles", tag=TAG, run="b", t0=7).json
    assert nothing["norms"] == []


def test_statistics_and_their_trends(client):
    names = get(client, "statistics", layer="lstm").json
    assert names == ["decay", "optimizer/clip/threshold"]
    trends = get(client, "trends", layer="lstm", name="decay", run=[RUN, "none"]).json
    assert [trend["run"] for trend in trends] == [RUN, "none"]
    assert trends[0]["steps"] == [50, 60] and trends[0]["values"] == pytest.approx([45, 54])
    assert trends[1]["steps"] == trends[1]["values"] == []
    (trend,) = get(client, "trends", layer="lstm", name=names[1], run="b").json
    assert trend["values"] == [100, 120]


def test_export_is_exact(client):
    response = get(client, "export", run="b", tag=TAG, format="csv")
    assert response.mimetype == "text/csv"
    head, *lines = response.get_data(as_text=True).splitlines()
    assert head == "step,t0,t1,t2"
    for line, step in zip(lines, STEPS, strict=True):
        first, *values = line.split(",")
        assert int(first) == step
        np.testing.assert_array_equal(np.array(values, np.float32), norms(step))


@pytest.mark.parametrize(
    ("route", "arguments", "status", "text"),
    [
        ("grid", {"tag": TAG}, 400, "'run' is missing"),
        ("grid", {"run": "b"}, 400, "'tag' is missing"),
        ("grid", {"run": ["b", "c"], "tag": TAG, "group": "0"}, 400, "once per run, 2 times"),
        ("grid", {"run": ["b", "c", "d"], "tag": [TAG, TAG]}, 400, "each of the 3 runs"),
        ("grid", {"run": "b", "tag": TAG, "rows": "many"}, 400, "'many'"),
        ("grid", {"run": "b", "tag": TAG, "rows": 0}, 400, "'rows'"),
        ("grid", {"run": "b", "tag": TAG, "rows": 10**6, "cols": 2}, 400, "cells"),
        ("grid", {"run": "b", "tag": TAG, "reduce": "sum"}, 400, "sum"),
        ("grid", {"run": "b", "tag": TAG, "t0": -1}, 400, "'t0'"),
        ("profiles", {"tag": TAG}, 400, "'run' is missing"),
        ("profiles", {"tag": TAG, "run": "b", "step": "1e3"}, 400, "'1e3'"),
        ("export", {"tag": TAG, "run": "../b"}, 404, "no profiles"),
        ("export", {"tag": "x", "run": "b"}, 404, "no profiles 'x'"),
        ("profiles", {"tag": TAG, "run": ["b"] * 1001}, 400, "1000"),
        ("trends", {"layer": "lstm", "run": ["b"] * 200, "name": ["x"] * 100}, 400, "10000"),
        ("trends", {"layer": "lstm", "run": "b"}, 400, "'name' is missing"),
        ("statistics", {}, 400, "'layer' is missing"),
        ("export", {"tag": TAG, "run": "b", "format": "exe"}, 400, "csv"),
    ],
)
def test_bad_requests_get_a_sentence(client, route, arguments, status, text):
    response = get(client, route, status, **arguments)
    assert text in response.get_data(as_text=True) and response.mimetype == "text/plain"


def test_only_reading(client):
    assert client.put(f"{BASE}/tags").status_code == 405


def test_many_runs_are_too_long_for_an_address(client):
    runs = ["x" * 300] * 500 + [RUN]
    response = client.post(f"{BASE}/summary", data={"run": runs, "tag": TAG})
    assert response.status_code == 200
    *missing, last = response.json
    assert len(missing) == 500 and "has no profiles" in missing[0]["missing"]
    assert last["run"] == RUN and last["verdict"] == "non-finite"


def test_page_and_modules_are_served_from_here(client):
    listing = client.get("/data/plugins_listing").json["gradient_flow"]
    assert listing["enabled"] and listing["tab_name"] == "Gradient flow"
    for file in (path.name for path in plugin.STATIC.glob("*.js")):
        response = get(client, file)
        assert response.mimetype == "text/javascript"
        # The name of SVG's elements is an address that nothing asks for.
        source = response.get_data(as_text=True).replace("http://www.w3.org/2000/svg", "")
        # The content security policy allows nothing else, and run names are foreign text.
        assert not re.search(r"https?://|innerHTML|\beval\(|document\.write", source)
        for imported in re.findall(r"from '\./([^']+)'", source):
            assert get(client, imported).status_code == 200
    assert get(client, "style.css").mimetype == "text/css"


def test_an_empty_directory_has_no_tags(tmp_path):
    assert get(make_client(tmp_path), "tags").json == {}


def test_long_series_are_complete(tmp_path):
    events = writer.EventWriter(str(tmp_path / "run"))
    for step in range(150):  # TensorBoard keeps 10 of a plugin it does not know
        events.write(step, [writer.profile_value("lstm", np.ones(2), b"not json")])
    client = make_client(tmp_path)
    assert summary(client, "run", TAG)["records"] == 150


def write_lags(log_dir, lengths, overlap=False, **content):
    """Four timesteps with windows of `content`, then K by K those of `AdaptiveTruncation`."""
    flow = writer.EventWriter(str(log_dir), reader.SUFFIX)
    fields = {"window": None, "stride": None, "align": "end", **content}
    for step in (1, 10, 11, 20, 21, 30):
        encoded = layout.content("lstm", "all", **fields)
        flow.write(step, [writer.profile_value("lstm", np.ones(4), encoded)])
    adaptive = writer.EventWriter(str(log_dir))
    for step, length in lengths.items():
        encoded = layout.content("lstm", "all", None, None, "end", overlap)
        values = [writer.lag_value("lstm", [1.0, 0.1, step / 1000], encoded)]
        tag = layout.statistic_tag("lstm", "truncation")
        adaptive.write(step, [*values, writer.scalar_value(tag, length)])


LAG_TAG = layout.lag_tag("lstm")


def test_profiles_by_lag_have_lag_0_last(tmp_path):
    write_lags(tmp_path / "run", {10: 2, 20: 3})
    client = make_client(tmp_path)
    tags = get(client, "tags").json["run"]
    assert set(tags) == {TAG, LAG_TAG}
    assert tags[LAG_TAG]["kind"] == "dL_dh_by_lag" and tags[LAG_TAG]["layer"] == "lstm"
    header, values = read_grid(get(client, "grid", run="run", tag=LAG_TAG))
    np.testing.assert_allclose(10**values, [[0.01, 0.1, 1], [0.02, 0.1, 1]], rtol=1e-6)
    # Lag 2 is beyond the window of 2 that this very profile led to.
    assert header["cuts"] == [[0, [1]], [1, []]]
    (profile,) = get(client, "profiles", run="run", tag=LAG_TAG, step=10).json
    assert profile["norms"] == pytest.approx([0.01, 0.1, 1]) and profile["window"] == 2
    assert profile["decay"] == pytest.approx(0.1)
    lines = get(client, "export", run="run", tag=LAG_TAG).get_data(as_text=True).splitlines()
    assert lines[:2] == ["step,lag0,lag1,lag2", "10,1,0.100000001,0.00999999978"]


def test_cuts_follow_the_windows_that_adaptive_truncation_sets(tmp_path):
    write_lags(tmp_path / "run", {10: 2, 20: 3}, window=1)
    client = make_client(tmp_path)
    header, _ = read_grid(get(client, "grid", run="run", tag=TAG))
    # A length chosen at step 10 is in force from the next step on; the record of 10 had the old.
    assert header["cuts"] == [[0, [1, 2, 3]], [2, [2]], [4, [1]]]
    header, _ = read_grid(get(client, "grid", run="run", tag=TAG, s0=11, rows=2))
    assert header["cuts"] == [[0, [2]], [1, [1]]]
    cuts = [get(client, "profiles", run="run", tag=TAG, step=s).json[0] for s in (10, 11)]
    assert [(p["window"], p["cuts"]) for p in cuts] == [(1, [1, 2, 3]), (2, [2])]
    assert summary(client, "run", TAG)["window"] == 3


@pytest.mark.parametrize(
    ("arguments", "cuts"),
    [
        ({"lengths": {}, "window": 3, "align": "start"}, [[0, [3]]]),
        ({"lengths": {}, "window": 3}, [[0, [1]]]),
        ({"lengths": {}, "window": 3, "stride": 1}, [[0, []]]),  # sliding: no sharp cut
        ({"lengths": {10: 2}, "overlap": True, "window": 3}, [[0, [1]], [2, []]]),
        ({"lengths": {10: np.nan}}, [[0, []]]),
        ({"lengths": {}, "window": True}, [[0, []]]),  # foreign content
        ({"lengths": {}, "window": -3, "align": "middle"}, [[0, []]]),
    ],
)
def test_cuts_of_each_kind_of_window(tmp_path, arguments, cuts):
    write_lags(tmp_path / "run", **arguments)
    header, _ = read_grid(get(make_client(tmp_path), "grid", run="run", tag=TAG))
    assert header["cuts"] == cuts


def test_the_entry_point_imports_neither_keras_nor_tensorflow():
    code = (
        "import sys, kbptt.tensorboard.plugin\n"
        "print([m for m in ('keras', 'tensorflow', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
