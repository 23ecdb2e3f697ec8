"""How the tab's server side reads and keeps the records of runs."""

import threading

import grpc
import numpy as np
import pytest
from gradient_flow_tab import decaying, write_run
from plugin_client import get, make_client, read_grid
from tensorboard.util import tensor_util

from kbptt.tensorboard import decode, source
from kbptt.tensorboard.ragged import Ragged
from kbptt.tensorboard.series import Cache, Records


def test_more_than_tensorboard_sends_at_once_is_thinned_out():
    asked = []

    class TooLarge(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.RESOURCE_EXHAUSTED

    def read_tensors(downsample, **_):
        asked.append(downsample)
        if downsample > 1500:
            raise TooLarge
        return "data"

    assert source.read(read_tensors, {}) == ("data", 1024)
    assert asked == [2**31 - 1, 4096, 2048, 1024]
    TooLarge.code = lambda self: grpc.StatusCode.UNAVAILABLE
    with pytest.raises(grpc.RpcError):
        source.read(read_tensors, {})
    assert len(asked) == 5


def test_cache_loads_a_version_once_and_forgets_the_longest_unused():
    loads = []

    def get(cache, *keys, version=1, size=50):
        def load(missing):
            loads.extend((key, version) for key in missing)
            table = Ragged([np.zeros(size, np.float32)])
            return {key: Records(np.zeros(1), table) for key in missing}

        found = cache.get(dict.fromkeys(keys, version), load)
        assert set(found) == set(keys)

    cache = Cache(size=1000)
    get(cache, "a")
    get(cache, "b", "a")  # reads what is missing
    get(cache, "a")
    get(cache, "b", version=2)
    get(cache, "c")
    get(cache, "b", version=2)
    assert loads == [("a", 1), ("b", 1), ("b", 2), ("c", 1)]
    get(cache, "a")  # fell out when c came
    get(cache, "huge", size=1000)
    get(cache, "huge", size=1000)  # the latest stays, however large
    assert loads[4:] == [("a", 1), ("huge", 1)]


def test_cache_does_not_keep_what_failed():
    cache, error = Cache(), ValueError()
    for _ in range(2):
        assert cache.get({"a": 1}, lambda missing: dict.fromkeys(missing, error)) == {"a": error}


def tensor(norms):
    return tensor_util.make_tensor_proto(np.asarray(norms, np.float32))


@pytest.mark.parametrize("by_lag", [False, True])
@pytest.mark.parametrize("last", [[5, 6], [5.0], [5, -6], [[5, 6]]])
def test_records_are_the_same_one_by_one_and_at_once(by_lag, last):
    """Equal vectors are read as one buffer; a single other one must change nothing else."""
    steps, profiles = [7, 3, 7], [[1, 2], [3, 4], [np.nan, 0]]
    whole = decode.records(steps, list(map(tensor, profiles)), by_lag)
    mixed = decode.records([*steps, 9], list(map(tensor, [*profiles, last])), by_lag)
    assert whole.steps.tolist() == [3, 7] and whole.damaged == 0  # the last of equal steps
    expected = [[3, 4], [np.nan, 0]]
    for one, other, norms in zip(whole.norms.vectors, mixed.norms.vectors, expected, strict=False):
        np.testing.assert_array_equal(one, norms[::-1] if by_lag else norms)
        np.testing.assert_array_equal(one, other)
    good = np.ndim(last) == 1 and min(last) >= 0
    assert (len(mixed.steps), mixed.damaged) == ((3, 0) if good else (2, 1))


def test_what_the_page_asks_for_first_is_read_when_tensorboard_opens(tmp_path, monkeypatch):
    """Between the list of plugins and the first request of the tab a browser takes a second."""
    reads = []
    read = source.Source._read
    monkeypatch.setattr(source.Source, "_read", lambda *a: reads.append(a[2]) or read(*a))
    client = make_client(tmp_path)
    assert client.get("/data/plugins_listing").status_code == 200
    write_run(tmp_path / "a", lambda step: decaying(0.9), layers=("lower", "upper"))
    write_run(tmp_path / "b", lambda step: decaying(0.9), layers=("lower", "upper"))
    client = make_client(tmp_path)
    assert client.get("/data/plugins_listing").status_code == 200
    for thread in threading.enumerate():
        if thread.name == "gradient_flow_warm":
            thread.join()
    (keys,) = reads
    tag = "gradient_flow/lower/dL_dh"
    assert {(run, tag) for _, run, tag in keys} == {("a", tag), ("b", tag)}
    assert get(client, "profiles", run=["a", "b"], tag=tag).json[0]["step"] == 100
    assert len(reads) == 1


LONG = 1000  # records


@pytest.fixture
def data_server(monkeypatch):
    """Sends at most as many records as it is asked for, as TensorBoard's data server does."""

    def tensors(data, arguments):
        most = arguments["downsample"]
        for run, tag, steps, values in everything(data, arguments):
            yield run, tag, steps[-most:], values[-most:]

    everything = source.guard.tensors
    monkeypatch.setattr(source.guard, "tensors", tensors)


@pytest.mark.usefixtures("data_server")
def test_a_long_run_is_shown_from_a_sample_until_it_is_asked_for_as_a_whole(tmp_path):
    tag = "gradient_flow/lstm/dL_dh"
    write_run(tmp_path / "long", lambda step: decaying(0.9), steps=range(LONG))
    write_run(tmp_path / "short", lambda step: decaying(0.9), steps=range(20))
    client = make_client(tmp_path)

    def records(sample, run="long"):
        header, _ = read_grid(get(client, "grid", run=run, tag=tag, sample=sample))
        (profile,) = get(client, "profiles", run=run, tag=tag, sample=sample).json
        assert profile["sampled"] is header["sampled"]
        assert profile["step"] == header["last_steps"][-1]  # the latest, also of a sample
        return header["sampled"], header["records"], header["last_steps"][-1]

    assert records(1) == (True, 400, LONG - 1)
    assert records(1, "short") == (False, 20, 19)
    assert records(0) == (False, LONG, LONG - 1)
    assert records(1) == (False, LONG, LONG - 1)
    assert get(client, "summary", run="long", tag=tag, sample=1).json[0]["records"] == LONG
    get(client, "grid", 400, run="long", tag=tag, sample=2)


@pytest.mark.usefixtures("data_server")
def test_a_sample_in_which_nothing_can_be_read_is_not_the_last_word(tmp_path, monkeypatch):
    """All but one record are damaged, and a sample of two holds none that is not."""
    tag = "gradient_flow/lstm/dL_dh"
    sound = decaying(0.9)
    write_run(tmp_path / "a", lambda step: sound if step == 1 else -sound, steps=range(30))
    monkeypatch.setattr(source, "_SAMPLE", 2)
    header, _ = read_grid(get(make_client(tmp_path), "grid", run="a", tag=tag, sample=1))
    assert (header["records"], header["damaged"], header["sampled"]) == (1, 29, False)
