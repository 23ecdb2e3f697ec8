"""The heatmap of a group of runs: the geometric mean at the same step and the same lag."""

import numpy as np
import pytest
from plugin_client import get, make_client, read_grid, read_grids

from kbptt.tensorboard import combine, grid, layout, writer

TAG = layout.profile_tag("lstm")
LAG_TAG = layout.lag_tag("lstm")


def placed(values, steps=None, columns=None):
    values = np.array(values, np.float32)
    rows, cols = values.shape
    steps = np.arange(rows + 1.0) if steps is None else np.array(steps, float)
    columns = np.arange(-cols, 1.0) if columns is None else np.array(columns, float)
    first = np.ceil(steps[:-1]).astype(np.int64)
    return combine.Placed(values, steps, columns, first, first)


@pytest.mark.parametrize(("how", "expected"), [("mean", 2), ("max", 3), ("min", 1)])
def test_cells_of_equal_grids(how, expected):
    cells = np.array([[1, -np.inf, -np.inf], [np.nan, np.inf, grid.MISSING]])
    other = np.array([[3, -np.inf, 5], [1, 1, 7]])
    found = combine.combine([placed(cells), placed(other)], how)
    # A zero is left out, unless all are; NaN and infinite norms are not averaged away.
    np.testing.assert_array_equal(
        found.values, [[expected, -np.inf, 5], [np.nan, np.inf, 7]], strict=False
    )


def test_one_run_is_returned_as_it_is():
    one = placed([[1, 2]])
    assert combine.combine([one]) is one


def test_other_steps_and_lengths():
    early = placed([[1.0], [2.0], [4.0]], steps=[0, 10, 20, 30])
    late = placed([[10.0, 20.0]], steps=[10, 30])
    # Lag 0 is at the end of both; before its start the shorter run is missing.
    found = combine.combine([early, late])
    assert found.steps.tolist() == [0, 10, 20, 30] and found.columns.tolist() == [-2, -1, 0]
    np.testing.assert_array_equal(found.values, [[grid.MISSING, 1], [10, 11], [10, 12]])
    assert (found.first.tolist(), found.last.tolist()) == ([0, 10, 10], [0, 10, 20])


def test_no_finer_than_the_finest_run():
    rng = np.random.default_rng(0)
    grids = [
        placed(np.full((50, 20), level), steps=np.sort(rng.uniform(0, 100, 51)))
        for level in (1.0, 3.0)
    ]
    found = combine.combine(grids)
    assert found.values.shape[0] <= 50
    inside = (found.steps[:-1] > 5) & (found.steps[1:] < 95)
    np.testing.assert_allclose(found.values[inside], 2)


def write(directory, layer="lstm", steps=(10, 20), scale=1.0, length=4, **content):
    fields = {"window": None, "stride": None, "align": "end", **content}
    encoded = layout.content(layer, "last", **fields)
    events = writer.EventWriter(str(directory))
    for step in steps:
        norms = np.full(length, scale, np.float32)
        events.write(step, [writer.profile_value(layer, norms, encoded)])


def test_grids_of_groups(tmp_path):
    for seed, scale in enumerate((1e-2, 1e-4, 1e-6)):
        write(tmp_path / f"a/{seed}", scale=scale)
    write(tmp_path / "b/0", scale=1.0, steps=(10, 30), window=2)
    write(tmp_path / "b/1", scale=1e-2, length=2, window=2)
    runs = ["a/0", "a/1", "a/2", "b/0", "b/1", "gone"]
    groups = ["a", "a", "a", "b", "b", "b"]
    response = get(make_client(tmp_path), "grid", run=runs, tag=TAG, group=groups)
    (a, values), (b, mixed) = read_grids(response)
    assert a["runs"] == runs[:3] and a["failed"] == [] and a["records"] == 6
    np.testing.assert_allclose(values, -4, rtol=1e-6)
    assert b["runs"] == ["b/0", "b/1"] and [one["run"] for one in b["failed"]] == ["gone"]
    assert b["timesteps"] == 4 and b["timestep_edges"] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(mixed[0], [0, 0, -1, -1], atol=1e-6)
    assert b["cuts"] == []  # at different timesteps
    assert a["cuts"] == [[0, []]]


def test_layers_are_asked_for_by_run(tmp_path):
    write(tmp_path / "x", layer="lstm", scale=1e-1)
    write(tmp_path / "y", layer="gru_1", scale=1e-3)
    client = make_client(tmp_path)
    tags = [TAG, layout.profile_tag("gru_1")]
    _, values = read_grid(get(client, "grid", run=["x", "y"], tag=tags, group=["0", "0"]))
    np.testing.assert_allclose(values, -2, rtol=1e-6)
    found = get(client, "profiles", run=["x", "y"], tag=tags).json
    assert [one["norms"][0] for one in found] == pytest.approx([1e-1, 1e-3])
    found = get(client, "profiles", run=["x", "y"], tag=tags[::-1]).json
    assert ["missing" in one for one in found] == [True, True]


def test_many_runs_are_read_at_once(tmp_path, monkeypatch):
    """Not one request to TensorBoard's data server for each, of which each takes milliseconds."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider

    for seed in range(30):
        write(tmp_path / str(seed))
    client = make_client(tmp_path)
    calls = []
    for name in ("list_tensors", "read_tensors", "read_scalars"):
        original = getattr(MultiplexerDataProvider, name)

        def counted(self, *arguments, _original=original, _name=name, **more):
            calls.append(_name)
            return _original(self, *arguments, **more)

        monkeypatch.setattr(MultiplexerDataProvider, name, counted)
    runs = [str(seed) for seed in range(30)]
    assert len(read_grids(get(client, "grid", run=runs, tag=TAG))) == 30
    assert sorted(calls) == ["list_tensors", "read_scalars", "read_tensors"]


def positions(client):
    found = get(client, "tags").json
    return {run: {t["layer"]: t["position"] for t in of.values()} for run, of in found.items()}


def test_positions_of_layers(tmp_path):
    for index, layer in enumerate(("zebra", "ant")):
        write(tmp_path / "new", layer=layer, index=index)
    for layer in ("lstm_10", "lstm_2", "lstm"):
        write(tmp_path / "old", layer=layer)
    for layer, index in (("b", 0), ("a", None)):  # damaged, or of two programs
        write(tmp_path / "both", layer=layer, index=index)
    client = make_client(tmp_path)
    assert positions(client) == {
        "new": {"zebra": 0, "ant": 1},
        "old": {"lstm": 0, "lstm_2": 1, "lstm_10": 2},
        "both": {"a": 0, "b": 1},
    }


def test_the_lag_profiles_of_a_layer_are_at_its_position(tmp_path):
    write(tmp_path / "run", layer="lstm", index=1)
    write(tmp_path / "run", layer="zoo", index=0)
    content = layout.content("lstm", "all", None, None, "end")  # as `AdaptiveTruncation` writes
    writer.EventWriter(str(tmp_path / "run")).write(1, [writer.lag_value("lstm", [1.0], content)])
    tags = get(make_client(tmp_path), "tags").json["run"]
    assert tags[LAG_TAG]["position"] == tags[TAG]["position"] == 1
