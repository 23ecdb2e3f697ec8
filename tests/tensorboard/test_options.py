"""The options of runs, by which the tab groups them, and TensorBoard's order of the runs."""

import numpy as np
import pytest
from plugin_client import get, make_client
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import summary_v2

from kbptt.tensorboard import layout, writer


def write(directory, options=None, wall_time=None):
    events = writer.EventWriter(str(directory))
    content = layout.content("lstm", "last", None, None, "end")
    events.write(1, [writer.profile_value("lstm", np.ones(3), content)])
    if options is not None:
        events.write(0, [summary_v2.hparams_pb(options).value[0]])


def test_options_are_those_of_hparams(tmp_path):
    write(tmp_path / "clip/0", {"method": "clip", "seed": 0, "model.bias": True, "rate": 1e-3})
    write(tmp_path / "plain")
    found = get(make_client(tmp_path), "runs").json
    options = {"method": "clip", "seed": 0.0, "model.bias": True, "rate": pytest.approx(1e-3)}
    assert found["options"] == {"clip/0": options}
    assert set(found["order"]) == {"clip/0", "plain"}


def test_what_kbptt_compare_writes(tmp_path):
    from kbptt.ablation import training

    config = {
        "method": {"name": "orthogonal"},
        "task": {"name": "adding", "options": {"timesteps": 20}},
        "seed": 3,
        "model": {"cell": "GRU", "layer": {"truncation": 8}},
        "optimizer": {"learning_rate": 0.01},
        "training": {"epochs": 2},
    }
    result = {"status": "ok", "test": {}, "cost": {"seconds_per_step": 0.1}}
    write(tmp_path / "run")
    training.write_hparams(str(tmp_path / "run"), config, result)
    options = get(make_client(tmp_path), "runs").json["options"]["run"]
    assert (options["method"], options["model.cell"], options["seed"]) == ("orthogonal", "GRU", 3)
    assert (options["task.timesteps"], options["layer.truncation"]) == (20, 8)


@pytest.mark.parametrize("content", [b"", b"\xff" * 200, b"{" * 5000, None])
def test_damaged_options_cost_their_run_alone(tmp_path, content):
    write(tmp_path / "good", {"method": "clip"})
    write(tmp_path / "bad")
    value = summary_v2.hparams_pb({"method": "x"}).value[0]
    if content is None:
        value.tensor.Clear()
        value.tag = "another tag"
    else:
        value.metadata.plugin_data.content = content
    events = event_pb2.Event(wall_time=1, step=0, summary=summary_pb2.Summary(value=[value]))
    writer.EventWriter(str(tmp_path / "bad")).write(0, list(events.summary.value))
    client = make_client(tmp_path)
    options = get(client, "runs").json["options"]
    assert options["good"] == {"method": "clip"} and options.get("bad", {}) == {}
    assert set(get(client, "tags").json) == {"good", "bad"}


def test_the_order_is_that_of_tensorboards_colors(tmp_path, monkeypatch):
    times = {"z": 1.0, "a": 2.0, "m": 2.0}
    for run, at in times.items():
        monkeypatch.setattr(writer.time, "time", lambda at=at: at)
        write(tmp_path / run)
    client = make_client(tmp_path)
    assert get(client, "runs").json["order"] == ["z", "a", "m"]


def test_every_kind_of_tensor_is_described(tmp_path, monkeypatch):
    kind = layout.Kind("z_norm", "State norm z", "‖zₜ‖", "‖zₜ‖ of every timestep", gradient=False)
    monkeypatch.setitem(layout.KINDS, "z_norm", kind)
    value = writer.profile_value("lstm", np.full(3, 0.5), b"")
    value.tag = "gradient_flow/lstm/z_norm"
    writer.EventWriter(str(tmp_path / "run")).write(1, [value])
    client = make_client(tmp_path)
    kinds = get(client, "runs").json["kinds"]
    assert [one["name"] for one in kinds] == ["dL_dh", "dL_dh_by_lag", "h_norm", "c_norm", "z_norm"]
    (tag,) = get(client, "tags").json["run"]
    (profile,) = get(client, "profiles", run="run", tag=tag).json
    assert tag == value.tag and profile["norms"] == pytest.approx([0.5] * 3)


def test_statistics_of_several_layers_and_of_none(tmp_path):
    names = ["lstm/decay", "gru/reach", "optimizer/clip/rate", "variables/lstm/kernel/norm"]
    values = [writer.scalar_value(f"gradient_flow_stats/{name}", 1.5) for name in names]
    writer.EventWriter(str(tmp_path / "run")).write(1, values)
    client = make_client(tmp_path)
    found = get(client, "statistics", layer=["lstm", "gru"]).json
    assert found == ["decay", "optimizer/clip/rate", "reach", "variables/lstm/kernel/norm"]
    assert get(client, "statistics", layer="lstm").json == [f for f in found if f != "reach"]
    trends = get(client, "trends", run="run", layer="lstm", name=found).json
    assert [trend.get("values") for trend in trends] == [[1.5], [1.5], [], [1.5]]
