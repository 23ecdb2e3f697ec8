"""Event files as nobody would write them on purpose, beside good ones."""

import math

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from kbptt.tensorboard import layout, writer

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
