"""The tab's server side on event files and requests that nobody would write on purpose."""

import contextlib
import gc
import random
import tracemalloc
import urllib.parse

import numpy as np
import pytest
from damaged_event_logs import (
    CONTENT,
    GOOD,
    KINDS,
    LAG_TAG,
    NORMS,
    TAG,
    damaged_bytes,
    event,
    oversized,
    write_events,
    write_good,
)
from plugin_client import BASE, get, make_client, read_grid, read_grids, summary
from tensorboard.util import tensor_util

from kbptt.tensorboard import guard, reader, writer


@pytest.fixture(autouse=True, scope="module")
def closed_files():
    """TensorBoard keeps the file of every run open for as long as there is its object."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A directory of 400 damaged runs between good ones."""
    root = tmp_path_factory.mktemp("logs")
    rng = random.Random(0)
    whole = write_good(root / GOOD[0]).read_bytes()
    write_good(root / GOOD[1])
    for number in range(400):
        kind = KINDS[number % len(KINDS)]
        directory = root / "damaged" / f"{number} {kind.__name__}"
        if kind is damaged_bytes:
            directory.mkdir(parents=True)
            (directory / "events.out.tfevents.1.host.1.0").write_bytes(kind(rng, whole))
        else:
            write_events(directory, kind(rng))
    return make_client(root)


def good_runs_are_shown(client):
    tags = get(client, "tags").json
    for run in GOOD:
        assert set(tags[run]) == {TAG, LAG_TAG}
        header, values = read_grid(get(client, "grid", run=run, tag=TAG))
        assert header["records"] == 5 and header["damaged"] == 0
        np.testing.assert_allclose(values, np.tile(np.log10(NORMS), (5, 1)), atol=1e-6)
        assert summary(client, run, TAG)["verdict"] == "decaying"
    return tags


def test_damaged_runs_cost_only_themselves(client):
    tags = good_runs_are_shown(client)
    assert len(tags) > 250
    assert "decay" in get(client, "statistics", layer="lstm").json
    readable = unreadable = 0
    for run in tags:
        for tag in tags[run]:
            layer = tags[run][tag]["layer"]
            arguments = {"run": [GOOD[0], run], "tag": tag}
            status = client.get(f"{BASE}/export", query_string={"run": run, "tag": tag}).status_code
            kind = {200: None, 404: "missing", 422: "unreadable"}[status]
            if layer == "lstm":
                # Beside a good run, whatever the damage.
                (good, _), (bad, _) = read_grids(get(client, "grid", **arguments))
                assert good["runs"] == [GOOD[0]] and not good["failed"]
                assert [kind in failed for failed in bad["failed"]] == ([True] if kind else [])
                good, bad = get(client, "summary", **arguments).json
                assert good["verdict"] == "decaying"
                assert "verdict" in bad if kind is None else kind in bad
                (both, _) = read_grid(get(client, "grid", **arguments, group=["0", "0"]))
                assert both["runs"] == [GOOD[0]] + [run] * (kind is None)
            if kind == "missing":  # no profile: not among the others
                continue
            if layer == "lstm":
                several = [GOOD[0], run, GOOD[1]]
                first, other, last = get(client, "profiles", run=several, tag=tag).json
                assert first["norms"] == last["norms"]
                assert ("unreadable" in other) == (kind == "unreadable")
            arguments = {"run": [run, GOOD[0]], "layer": layer, "name": "decay"}
            assert get(client, "trends", **arguments).json[1]["run"] == GOOD[0]
            readable += kind is None
            unreadable += kind == "unreadable"
    assert readable > 150 and unreadable > 50


ROUTES = (
    "tags",
    "runs",
    "grid",
    "profiles",
    "summary",
    "statistics",
    "trends",
    "export",
    "index.js",
    "x",
)


def hostile_request(rng, tags):
    run = rng.choice(
        [*tags, *GOOD, *GOOD, "../../etc/passwd", "a" * 20_000, "\x00", "<b>", "", "*"]
    )
    values = ["", "-1", "0", "1", "x", "1e9", "9" * 5000, "NaN", "²", "1_0", "0x10", " 5 "]
    values += ["-" + "9" * 18, str(2**62), str(2**63), "%", "\ud7ff", "'; drop table", "\r\nX: y"]
    arguments = [("run", run)] * rng.choice([0, 1, 1, 1, 2, 51])
    arguments += [("tag", rng.choice([TAG, TAG, LAG_TAG, *values]))] * rng.choice([0, 1, 1, 1])
    names = ["rows", "cols", "s0", "s1", "t0", "t1", "l0", "l1", "step", "reduce", "layer", "name"]
    arguments += [
        (rng.choice([*names, "format"]), rng.choice(values)) for _ in range(rng.choice([0, 1, 3]))
    ]
    query = urllib.parse.urlencode(arguments, errors="surrogatepass")
    if rng.random() < 0.2:
        query += rng.choice(["&run=%ff%fe", "&tag=%", "&&&==", "&run", "&step=%00", "&s0=%2B5"])
    method = rng.choice(["GET"] * 8 + ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
    headers = rng.choice([{}, {"Accept-Encoding": "gzip"}, {"Accept-Encoding": "gzip;q=x"}])
    route = rng.choice(ROUTES)
    return {"path": f"{BASE}/{route}", "query_string": query, "method": method, "headers": headers}


def test_hostile_requests_get_an_answer(client):
    rng = random.Random(1)
    tags = list(get(client, "tags").json)
    seen = {}
    for _ in range(400):
        request = hostile_request(rng, tags)
        response = client.open(**request)
        assert response.status_code < 500, (request, response.get_data(as_text=True)[:500])
        seen[response.status_code] = seen.get(response.status_code, 0) + 1
        # Nothing that a browser would run.
        assert response.mimetype != "text/html" or response.status_code == 404, request
        response.close()
    assert min(seen[200], seen[400], seen[404], seen[405]) > 50
    good_runs_are_shown(client)


@contextlib.contextmanager
def memory(limit):
    """What is allocated meanwhile, by NumPy too, stays below this many MiB."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit * 2**20


def test_declared_shapes_take_no_memory(tmp_path):
    rng = random.Random(2)
    for number in range(60):
        write_events(tmp_path / str(number), oversized(rng))
    write_good(tmp_path / GOOD[0])
    client = make_client(tmp_path)
    with memory(20):
        for run in map(str, range(60)):
            for tag in (TAG, LAG_TAG):
                assert "unreadable" in summary(client, run, tag)
            (trend,) = get(client, "trends", run=run, layer="lstm", name="decay").json
            assert "unreadable" in trend
            with pytest.warns(UserWarning, match="damaged record"):
                assert reader.read(tmp_path / run) == {}
        assert summary(client, GOOD[0], TAG)["verdict"] == "decaying"


def test_a_number_for_many_is_a_damaged_record_and_costs_only_itself(tmp_path):
    values = [writer.profile_value("lstm", np.full(20, 0.5), CONTENT) for _ in range(4)]
    for value, length in zip(values[:3], (20, 2**24, 2**29), strict=True):
        value.tensor.CopyFrom(tensor_util.make_tensor_proto(np.float32([0.5])))
        value.tensor.tensor_shape.dim[0].size = length
    write_events(tmp_path / "run", [event(value, step=step) for step, value in enumerate(values)])
    with memory(20):
        found = summary(make_client(tmp_path), "run", TAG)
    # 20 numbers in the 16 bytes of one: as little a profile as a billion.
    assert (found["records"], found["damaged"], found["last_step"]) == (1, 3, 3)
    assert found["verdict"] == "healthy"


def test_one_long_profile_among_many_short_ones_takes_the_memory_of_one(tmp_path):
    lengths = [10**6, 0, *[10] * 2000]
    profiles = [writer.profile_value("lstm", np.full(length, 0.5), CONTENT) for length in lengths]
    write_events(tmp_path / "run", [event(p, step=step) for step, p in enumerate(profiles)])
    client = make_client(tmp_path)
    with memory(300):  # as one table it would be 8 GB
        for route in ("summary", "grid", "profiles"):
            get(client, route, run="run", tag=TAG)
        header, _ = read_grid(get(client, "grid", run="run", tag=TAG, rows=1, cols=1000))
    assert header["timesteps"] == 10**6 and header["records"] == 2002


def test_a_history_larger_than_a_reply_is_thinned_out_evenly(tmp_path, monkeypatch):
    """What the data server does to a run of more than 256 MiB, TensorBoard without it does not."""
    monkeypatch.setattr(guard, "MAX_ELEMENTS", 1000)
    write_good(tmp_path / "run", range(1, 101))  # of 20 timesteps
    (found,) = get(make_client(tmp_path), "profiles", run="run", tag=TAG).json
    assert found["steps"] == list(range(2, 101, 2))


@pytest.mark.slow
def test_thousands_of_runs(tmp_path):
    source = write_good(tmp_path / "0", steps=[1]).read_bytes()
    for number in range(1, 2000):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "events.out.tfevents.1.host.1.0").write_bytes(source)
    client = make_client(tmp_path)
    assert len(get(client, "tags").json) == 2000
    assert summary(client, "1999", TAG)["records"] == 1
