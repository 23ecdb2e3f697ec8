"""The tab's server side on event files and requests that nobody would write on purpose."""

import contextlib
import gc
import math
import random
import tracemalloc
import urllib.parse

import numpy as np
import pytest
from plugin_client import BASE, get, make_client, read_grid
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from kbptt.tensorboard import guard, layout, reader, writer

TAG = layout.profile_tag("lstm")
LAG_TAG = layout.lag_tag("lstm")
TREND_TAG = layout.statistic_tag("lstm", "decay")
CONTENT = layout.content("lstm", "last", None, None, "end")
GOOD = ["a good run", "the last good run"]
NORMS = np.geomspace(3e-3, 1, 20).astype(np.float32)


def write_good(directory, steps=range(5)):
    events = writer.EventWriter(str(directory))
    for step in steps:
        trend = writer.scalar_value(TREND_TAG, 0.7)
        lags = writer.lag_value("lstm", NORMS[::-1], CONTENT)
        events.write(step, [writer.profile_value("lstm", NORMS, CONTENT), lags, trend])
    return next(directory.iterdir())


def write_events(directory, events):
    directory.mkdir(parents=True)
    with open(directory / "events.out.tfevents.0000000001.host.1.0.kbptt", "wb") as file:
        for event in events:
            raw = event if isinstance(event, bytes) else event.SerializeToString()
            RecordWriter(file).write(raw)


def event(*values, step=1, wall_time=1.0):
    summary = summary_pb2.Summary(value=values)
    return event_pb2.Event(step=step, wall_time=wall_time, summary=summary)


# Kinds of damage. Each is a function of a random generator that returns what to write: bytes made
# from those of a good file, or a list of events.


def damaged_bytes(rng, whole):
    kind = rng.randrange(5)
    if kind == 0:
        return whole[: rng.randrange(len(whole))]
    if kind == 1:
        return rng.randbytes(rng.randrange(5000))
    data = bytearray(whole)
    for _ in range(rng.choice([1, 10, 200])):
        at = rng.randrange(len(data))
        if kind == 2:
            data[at] = rng.randrange(256)
        elif kind == 3:
            del data[at]
        else:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(data)


def nested(depth, kind):
    opening, closing = {"list": ("[", "]"), "dict": ('{"a":', "}")}[kind]
    return opening * depth + "1" + closing * depth


def foreign_content(rng):
    depth = rng.choice([5, 30, 60, 300, 900, 5000, 100_000])
    deep = nested(depth, rng.choice(["list", "dict"]))
    value = rng.choice(
        [deep, "NaN", "-Infinity", "true", '"x"', "1e999", "9" * 5000, "[1,2]", "{}", "-1", "0"]
    )
    field = rng.choice(["v", "layer", "loss", "window", "stride", "align", "overlap", "max_step"])
    text = rng.choice(
        [f'{{"v":1,"{field}":{value}}}', value, "", "{", '{"__proto__":1}', f'"{"x" * 10**6}"']
    )
    content = rng.choice([text.encode(), text.encode("utf-16"), rng.randbytes(60)])
    value = writer.profile_value("lstm", NORMS, content)
    return [event(value, step=step) for step in range(3)]


TENSORS = [
    *(np.float32(1), np.ones((3, 4), np.float32), np.ones((2, 2, 2)), np.zeros((0, 5)), np.ones(0)),
    *(np.ones(3, np.complex64), np.ones(3, np.complex128), np.array(["a", "b"]), np.ones(3, bool)),
    *(np.ones(3, np.int8), np.arange(3), np.float16([1, 2])),
    *(np.array([-1.0, 1]), np.array([np.nan, np.inf, -np.inf]), np.array([b"\xff" * 1000])),
    np.zeros(5),
]


def foreign_tensor(rng):
    tag = rng.choice([TAG, LAG_TAG])
    events = []
    for step in range(rng.choice([1, 3])):
        value = writer.profile_value("lstm", NORMS, CONTENT)
        value.tag = tag
        tensor = value.tensor
        kind = rng.randrange(6)
        if kind == 0:
            tensor.CopyFrom(tensor_util.make_tensor_proto(rng.choice(TENSORS)))
        elif kind == 1:
            tensor.tensor_content = np.float64([1e300, 1e-300, 1, np.inf]).tobytes()
            del tensor.tensor_shape.dim[:]
            tensor.tensor_shape.dim.add(size=rng.choice([1, 4, 8]))
            tensor.dtype = rng.choice([0, 2, 7, 14, 19, 20, 21, 23, 101, 999])
        elif kind == 2:
            tensor.tensor_content = rng.randbytes(rng.randrange(100))
        elif kind == 3:
            sizes = rng.choices([0, 1, 3, 20, -1, -(2**63), 2**40, 2**62], k=rng.randrange(4))
            del tensor.tensor_shape.dim[:]
            for size in sizes:
                tensor.tensor_shape.dim.add(size=size)
        elif kind == 4:
            tensor.ClearField("tensor_content")
            tensor.float_val.extend([1.0] * rng.randrange(3))
            tensor.tensor_shape.dim[0].size = rng.choice([0, 1, 2, 2**45, -5])
            tensor.tensor_shape.unknown_rank = rng.random() < 0.5
        else:
            value.ClearField("tensor")
            if rng.random() < 0.5:
                value.simple_value = 1.0
        events.append(event(value, step=step))
    return events


def foreign_scalar(rng):
    good = [writer.profile_value("lstm", NORMS, CONTENT), writer.lag_value("lstm", [1], CONTENT)]
    tag = layout.statistic_tag("lstm", rng.choice(["truncation", "decay"]))
    scalar = writer.scalar_value(tag, 3)
    kind = rng.randrange(4)
    if kind == 0:
        scalar.tensor.CopyFrom(tensor_util.make_tensor_proto(rng.choice(TENSORS)))
    elif kind == 1:
        scalar.ClearField("tensor")
    elif kind == 2:
        number = rng.choice([math.nan, math.inf, -5, 0, 0.5, 1e30])
        scalar.tensor.CopyFrom(tensor_util.make_tensor_proto(number))
    else:
        scalar.metadata.plugin_data.plugin_name = layout.PLUGIN
        scalar.metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
    return [event(*good, scalar)]


def foreign_event(rng):
    value = writer.profile_value("lstm", NORMS, CONTENT)
    kind = rng.randrange(5)
    if kind == 0:
        steps = [0, -1, 2**53, -(2**53) - 1, 2**63 - 1, -(2**63)]
        times = [math.nan, math.inf, -1e300, 0]
        return [event(value, step=rng.choice(steps), wall_time=rng.choice(times)) for _ in range(4)]
    if kind == 1:
        name = rng.choice(["", "/", "../..", "\n", "<script>", "x" * 10_000, "__proto__", "\u202e"])
        value.tag = rng.choice([layout.profile_tag(name), name])
        return [event(value)]
    if kind == 2:
        value.metadata.data_class = rng.choice(
            [summary_pb2.DATA_CLASS_SCALAR, summary_pb2.DATA_CLASS_BLOB_SEQUENCE]
        )
        value.metadata.plugin_data.plugin_name = rng.choice([layout.PLUGIN, "scalars", "images"])
        return [event(value)]
    if kind == 3:
        return [event(value), rng.randbytes(rng.randrange(1, 200)), event(value, step=2)]
    return [b"", event(), event(value, value, step=3), event_pb2.Event(file_version="x")]


def changing_length(rng):
    lengths = rng.choices([0, 1, 2, 50, 3000], k=8)
    return [
        event(writer.profile_value("lstm", np.full(length, 0.5), CONTENT), step=step)
        for step, length in enumerate(lengths)
    ]


SHAPES = [
    *(
        [2**29],
        [2**26],
        [2**14, 2**14],
        [1, 2**27],
        [2**26, 1],
        [2**9] * 3,
        [2**62],
        [2**40, 2**40],
    ),
    # Negative, and those whose product overflows to 2^30.
    *([-1, 2**28], [-(2**28)], [-(2**14), -(2**14)], [-(2**30), 2**34 - 1], [2**62 + 2**28, 4]),
]
FIELDS = {  # the type, the field and a number of it that stands for as many as there are
    "float_val": (1, 0.5),
    "double_val": (2, 0.5),
    "int_val": (3, 1),
    "string_val": (7, b"x"),
    "int64_val": (9, 1),
    "bool_val": (10, True),
    "half_val": (19, 15360),
    "tensor_content": (1, np.float32(0.5).tobytes()),
}


def oversized(rng):
    """Shapes far larger than the data, of profiles by timestep and by lag and of a scalar."""
    events = []
    for step in range(rng.choice([1, 3])):
        values = [writer.profile_value("lstm", NORMS, CONTENT)]
        values += [writer.lag_value("lstm", NORMS, CONTENT), writer.scalar_value(TREND_TAG, 0.7)]
        for value in values:
            tensor = value.tensor
            tensor.Clear()
            name = rng.choice(list(FIELDS))
            tensor.dtype, number = FIELDS[name]
            if name == "tensor_content":
                tensor.tensor_content = number
            else:
                getattr(tensor, name).append(number)
            for size in rng.choice(SHAPES):
                tensor.tensor_shape.dim.add(size=size)
            tensor.tensor_shape.unknown_rank = rng.random() < 0.2
        events.append(event(*values, step=step))
    return events


KINDS = [foreign_content, foreign_tensor, foreign_tensor, foreign_scalar, foreign_event]
KINDS += [changing_length, damaged_bytes, damaged_bytes, oversized]


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
        assert get(client, "summary", run=run, tag=TAG).json["verdict"] == "decaying"
    return tags


def test_damaged_runs_cost_only_themselves(client):
    tags = good_runs_are_shown(client)
    assert len(tags) > 250
    assert "decay" in get(client, "statistics", layer="lstm").json
    readable = unreadable = 0
    for run in tags:
        for tag in tags[run]:
            layer = tags[run][tag]["layer"]
            statuses = {
                client.get(f"{BASE}/{route}", query_string={"run": run, "tag": tag}).status_code
                for route in ("grid", "summary", "export")
            }
            assert statuses in ({200}, {404}, {422}), (run, tag, statuses)
            if statuses == {404}:  # no profile: not among the others
                continue
            if layer == "lstm":
                several = [GOOD[0], run, GOOD[1]]
                first, other, last = get(client, "profiles", run=several, tag=tag).json
                assert first["norms"] == last["norms"]
                assert ("unreadable" in other) == (statuses == {422})
            arguments = {"run": [run, GOOD[0]], "layer": layer, "name": "decay"}
            assert get(client, "trends", **arguments).json[1]["run"] == GOOD[0]
            readable += statuses == {200}
            unreadable += statuses == {422}
    assert readable > 150 and unreadable > 50


ROUTES = ("tags", "grid", "profiles", "summary", "statistics", "trends", "export", "index.js", "x")


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
                get(client, "summary", 422, run=run, tag=tag)
            (trend,) = get(client, "trends", run=run, layer="lstm", name="decay").json
            assert "unreadable" in trend
            with pytest.warns(UserWarning, match="damaged record"):
                assert reader.read(tmp_path / run) == {}
        assert get(client, "summary", run=GOOD[0], tag=TAG).json["verdict"] == "decaying"


def test_a_number_for_many_is_a_damaged_record_and_costs_only_itself(tmp_path):
    values = [writer.profile_value("lstm", np.full(20, 0.5), CONTENT) for _ in range(4)]
    for value, length in zip(values[:3], (20, 2**24, 2**29), strict=True):
        value.tensor.CopyFrom(tensor_util.make_tensor_proto(np.float32([0.5])))
        value.tensor.tensor_shape.dim[0].size = length
    write_events(tmp_path / "run", [event(value, step=step) for step, value in enumerate(values)])
    with memory(20):
        summary = get(make_client(tmp_path), "summary", run="run", tag=TAG).json
    # 20 numbers in the 16 bytes of one: as little a profile as a billion.
    assert (summary["records"], summary["damaged"], summary["steps"]) == (1, 3, [3])
    assert summary["verdict"] == "healthy"


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
    summary = get(make_client(tmp_path), "summary", run="run", tag=TAG).json
    assert summary["steps"] == list(range(2, 101, 2)) and summary["damaged"] == 0


def test_thousands_of_runs(tmp_path):
    source = write_good(tmp_path / "0", steps=[1]).read_bytes()
    for number in range(1, 2000):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "events.out.tfevents.1.host.1.0").write_bytes(source)
    client = make_client(tmp_path)
    assert len(get(client, "tags").json) == 2000
    assert get(client, "summary", run="1999", tag=TAG).json["records"] == 1
