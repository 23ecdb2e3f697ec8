"""The tab's server side, through TensorBoard's own WSGI application."""

import argparse
import json
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend import application
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from kbptt.tensorboard import grid, layout, plugin, writer

TAG = layout.profile_tag("lstm")
BASE = "/data/plugin/gradient_flow"
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
        events.write(50, [writer.scalar_value(layout.statistic_tag("lstm", "decay"), 0.9)])
    return make_client(root)


def make_client(root):
    flags = argparse.Namespace(samples_per_plugin={}, path_prefix="")
    plugin.GradientFlowLoader().fix_flags(flags)
    multiplexer = plugin_event_multiplexer.EventMultiplexer(
        tensor_size_guidance=flags.samples_per_plugin
    )
    multiplexer.AddRunsFromDirectory(str(root))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(root))
    context = base_plugin.TBContext(data_provider=provider, flags=flags)
    loaded = plugin.GradientFlowLoader().load(context)
    return Client(application.TensorBoardWSGI([loaded], data_provider=provider))


def get(client, route, status=200, **arguments):
    response = client.get(f"{BASE}/{route}", query_string=arguments)
    assert response.status_code == status, response.get_data(as_text=True)
    return response


def test_loader_keeps_every_record_unless_told_otherwise():
    for given, expected in (({}, 0), ({"gradient_flow": 5}, 5)):
        flags = argparse.Namespace(samples_per_plugin=given)
        plugin.GradientFlowLoader().fix_flags(flags)
        assert flags.samples_per_plugin["gradient_flow"] == expected


def test_tags_lists_profiles_only(client):
    tags = get(client, "tags").json
    assert set(tags) == {RUN, "b"} and set(tags["b"]) == {TAG}
    expected = {"v": 1, "layer": "lstm", "loss": "last", "window": 2, "max_step": 40}
    assert tags["b"][TAG] == expected


def read_grid(response):
    data = response.get_data()
    (length,) = struct.unpack("<I", data[:4])
    header = json.loads(data[4 : 4 + length])
    values = np.frombuffer(data[4 + length :], "<f4")
    return header, values.reshape(header["rows"], header["cols"])


def test_grid_is_what_was_written(client):
    header, values = read_grid(get(client, "grid", run=RUN, tag=TAG))
    expected = grid.reduce(np.array([norms(s) for s in STEPS]), 9, 9).values
    np.testing.assert_array_equal(values, expected)
    assert header["step_edges"] == [5, 15, 30, 50] and header["timestep_edges"] == [0, 1, 2, 3]
    assert (header["zero"], header["nan"], header["inf"]) == (3, 1, 0)
    assert header["min"] == pytest.approx(-2) and header["max"] == 0


def test_grid_of_a_part(client):
    part = {"s0": 20, "s1": 39, "t0": 1, "t1": 3}
    header, values = read_grid(get(client, "grid", run="b", tag=TAG, rows=5, cols=1, **part))
    assert header["timestep_edges"] == [1, 3] and header["timesteps"] == 3
    assert values.tolist() == [[pytest.approx(np.log10(2e-2) / 2)]]


def test_profiles_of_several_runs_at_a_step(client):
    profiles = get(client, "profiles", tag=TAG, run=[RUN, "b"], step=25).json
    assert [p["run"] for p in profiles] == [RUN, "b"]
    assert [p["step"] for p in profiles] == [20, 20]
    assert profiles[0]["norms"] == pytest.approx([0, 0.02, 1])
    assert profiles[0]["decay"] == pytest.approx(0.02)
    assert get(client, "profiles", tag=TAG, run="b", step=1).json[0]["step"] == 10
    assert get(client, "profiles", tag=TAG, run="b").json[0]["norms"][2] == "NaN"


def test_summary_has_verdict_and_thresholds(client):
    summary = get(client, "summary", tag=TAG, run="b").json
    assert summary["verdict"] == "non-finite" and "NaN" in summary["reason"]
    assert summary["thresholds"] == {"vanishing": 1e-3, "exploding": 1e3}
    assert summary["steps"] == STEPS and summary["records"] == 3
    assert summary["zero_fraction"] == pytest.approx([1 / 3] * 3)


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
        ("grid", {"run": "c", "tag": TAG}, 404, "'c' has no profiles"),
        ("grid", {"run": "b", "tag": "x"}, 404, "no profiles 'x'"),
        ("grid", {"run": "b", "tag": TAG, "rows": "many"}, 400, "'many'"),
        ("grid", {"run": "b", "tag": TAG, "rows": 0}, 400, "'rows'"),
        ("grid", {"run": "b", "tag": TAG, "rows": 10**6, "cols": 2}, 400, "cells"),
        ("grid", {"run": "b", "tag": TAG, "reduce": "sum"}, 400, "sum"),
        ("grid", {"run": "b", "tag": TAG, "s0": 1000}, 404, "no profile in this range"),
        ("grid", {"run": "b", "tag": TAG, "t0": -1}, 400, "'t0'"),
        ("profiles", {"tag": TAG}, 400, "'run' is missing"),
        ("profiles", {"tag": TAG, "run": "b", "step": "1e3"}, 400, "'1e3'"),
        ("summary", {"tag": TAG, "run": "../b"}, 404, "no profiles"),
        ("export", {"tag": TAG, "run": "b", "format": "exe"}, 400, "csv"),
    ],
)
def test_bad_requests_get_a_sentence(client, route, arguments, status, text):
    response = get(client, route, status, **arguments)
    assert text in response.get_data(as_text=True) and response.mimetype == "text/plain"


def test_only_reading(client):
    assert client.post(f"{BASE}/tags").status_code == 405


def test_page_and_modules_are_served_from_here(client):
    listing = client.get("/data/plugins_listing").json["gradient_flow"]
    assert listing["enabled"] and listing["tab_name"] == "Gradient flow"
    for file in ("index.js", "data.js", "dom.js", "draw.js"):
        response = get(client, file)
        assert response.mimetype == "text/javascript"
        source = response.get_data(as_text=True)
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
    assert get(client, "summary", run="run", tag=TAG).json["records"] == 150


def test_the_entry_point_imports_neither_keras_nor_tensorflow():
    code = (
        "import sys, kbptt.tensorboard.plugin\n"
        "print([m for m in ('keras', 'tensorflow', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
