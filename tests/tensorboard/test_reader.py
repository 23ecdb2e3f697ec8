"""Files written, torn and read back; all of it without TensorFlow."""

import os
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from kbptt.tensorboard import layout, reader, writer
from kbptt.tensorboard.history import History

CONTENT = layout.content("rnn", "last", None, None, "end")


def write(log_dir, steps, timesteps=3, scale=1.0):
    file = writer.EventWriter(str(log_dir), reader.SUFFIX)
    for step in steps:
        norms = np.full(timesteps, scale * step, np.float32)
        file.write(step, [writer.profile_value("rnn", norms, CONTENT)])
    return next(iter(log_dir.glob("*.gradient_flow")))


@pytest.mark.parametrize("steps", [[0], [0, 1, 127, 128, 300, 2**31, 2**40 + 5]])
def test_last_step_from_the_heads_of_the_records(tmp_path, steps):
    assert reader.last_step(str(tmp_path)) == -1
    write(tmp_path, steps)
    assert reader.last_step(str(tmp_path)) == steps[-1]
    read, norms = reader.read(tmp_path)["rnn"]
    assert read.tolist() == steps
    np.testing.assert_array_equal(norms[:, 0], np.float32(steps))


def test_a_file_torn_anywhere_keeps_its_complete_records(tmp_path):
    path = write(tmp_path, [1, 2, 3])
    whole = path.read_bytes()
    seen = set()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        last = reader.last_step(str(tmp_path))
        read = reader.read(tmp_path).get("rnn", (np.array([]), None))[0]
        assert read.tolist() == list(range(1, max(last, 0) + 1))
        seen.add(last)
    assert seen == {-1, 1, 2}


def test_a_damaged_file_keeps_what_stands_before_the_damage(tmp_path):
    path = write(tmp_path, [1, 2, 3])
    whole = path.read_bytes()
    at = whole.rindex(b"gradient_flow/rnn")
    path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    assert reader.read(tmp_path)["rnn"][0].tolist() == [1, 2]


def test_after_a_failed_write_the_next_one_starts_another_file(tmp_path, monkeypatch):
    file = writer.EventWriter(str(tmp_path), reader.SUFFIX)
    values = [writer.profile_value("rnn", np.ones(3), CONTENT)]
    file.write(1, values)
    (path,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:

        def torn(name):
            with open(name, "ab") as stream:
                stream.write(b"\x07 half a record")
            raise OSError("disk full")

        patch.setattr(writer, "_open", torn)
        with pytest.raises(OSError, match="disk full"):
            file.write(2, values)
    file.write(3, values)
    assert len(list(tmp_path.iterdir())) == 2 and path.read_bytes().endswith(b"half a record")
    assert reader.read(tmp_path)["rnn"][0].tolist() == [1, 3]
    assert reader.last_step(str(tmp_path)) == 3


def test_of_equal_steps_the_later_file_counts(tmp_path):
    first = write(tmp_path, [1, 2])
    os.utime(first, (0, 0))
    write(tmp_path, [2, 3], scale=10)
    steps, norms = reader.read(tmp_path)["rnn"]
    assert steps.tolist() == [1, 2, 3]
    assert norms[:, 0].tolist() == [1, 20, 30]


def test_different_lengths_are_aligned_at_the_end(tmp_path):
    write(tmp_path, [1], timesteps=2)
    write(tmp_path, [5], timesteps=4)
    _, norms = reader.read(tmp_path)["rnn"]
    assert norms.tolist() == [[None, None, 1, 1], [5, 5, 5, 5]]


def test_by_lag_from_whichever_callback(tmp_path):
    for step, lags, suffix in ((1, [4, 2], reader.SUFFIX), (2, [8, 4, 2], reader.OTHER_SUFFIX)):
        file = writer.EventWriter(str(tmp_path), suffix)
        file.write(step, [writer.lag_value("rnn", lags, CONTENT)])
    steps, norms = reader.read(tmp_path, by_lag=True)["rnn"]
    assert steps.tolist() == [1, 2]
    assert norms.tolist() == [[4, 2, None], [8, 4, 2]]
    assert reader.read(tmp_path) == {}


def test_other_callbacks_do_not_count_as_another_run(tmp_path):
    """They may log step 0 before `GradientFlow` opens, which tells runs apart by their steps."""
    file = writer.EventWriter(str(tmp_path))
    file.write(7, [writer.lag_value("rnn", [1.0], CONTENT)])
    assert reader.last_step(str(tmp_path)) == -1


def damaged(kind):
    """A value of a profile's tag that holds no profile."""
    value = writer.profile_value("rnn", np.ones(3), CONTENT)
    tensor = value.tensor
    if not isinstance(kind, str):
        tensor.CopyFrom(tensor_util.make_tensor_proto(kind))
    elif kind == "content":
        tensor.tensor_content = tensor.tensor_content[:-1]
    elif kind == "dtype":
        tensor.dtype = 999
    elif kind == "shape":
        tensor.tensor_shape.dim[0].size = 7
    elif kind == "huge":
        tensor.ClearField("tensor_content")
        tensor.float_val.append(1.0)
        tensor.tensor_shape.dim[0].size = 2**60
    return value


@pytest.mark.parametrize(
    "kind",
    [
        *("content", "dtype", "shape", "huge"),
        *(
            np.float32(3),
            np.ones((3, 1)),
            np.ones(3, complex),
            np.array(["a", "b"]),
            np.ones(3) > 0,
        ),
        np.float32([1, -1, 1]),
    ],
    ids=str,
)
def test_a_damaged_record_costs_only_itself(tmp_path, kind):
    file = writer.EventWriter(str(tmp_path), reader.SUFFIX)
    file.write(1, [writer.profile_value("rnn", np.ones(3), CONTENT)])
    file.write(2, [damaged(kind)])
    file.write(3, [writer.profile_value("rnn", np.ones(3), CONTENT)])
    with pytest.warns(UserWarning, match=r"Skipped 1 damaged record\(s\)"):
        steps, norms = reader.read(tmp_path)["rnn"]
    assert steps.tolist() == [1, 3] and norms.tolist() == [[1, 1, 1]] * 2


def test_other_number_types_are_read(tmp_path):
    file = writer.EventWriter(str(tmp_path), reader.SUFFIX)
    for step, dtype in enumerate((np.float64, np.float16, np.int32)):
        value = writer.profile_value("rnn", np.ones(3), CONTENT)
        value.tensor.CopyFrom(tensor_util.make_tensor_proto(np.array([1, 0, 2], dtype)))
        file.write(step, [value])
    assert reader.read(tmp_path)["rnn"][1].tolist() == [[1, 0, 2]] * 3


def test_directory_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run directory"):
        reader.read(tmp_path / "none")
    assert reader.read(tmp_path) == {}
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        writer.check_log_dir(tmp_path / "file" / "run")
    assert writer.check_log_dir(tmp_path / "new" / "run") == str(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_a_directory_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ValueError, match="no permission"):
        writer.check_log_dir(tmp_path / "run")


def test_history_is_bounded_and_evenly_spread(monkeypatch):
    history = History(max_records=10)
    for step in range(1000):
        history.add(step, {"a": np.ones(4, np.float32)})
    steps, norms = history.get("a")
    assert 5 <= len(steps) <= 10 and norms.shape == (len(steps), 4)
    assert len(set(np.diff(steps))) == 1 and steps[0] == 0 and steps[-1] >= 800

    monkeypatch.setattr("kbptt.tensorboard.history.MAX_VALUES", 100)
    history = History(max_records=1000)
    for step in range(1000):
        history.add(step, {"a": np.ones(9, np.float32), "b": np.ones(1, np.float32)})
    assert 5 <= len(history) <= 10


def test_neither_tensorflow_nor_pyplot_is_imported(tmp_path):
    code = (
        "import sys, numpy, kbptt, kbptt.analysis\n"
        "from kbptt.tensorboard import writer, read, heatmap_figure\n"
        "value = writer.profile_value('a', numpy.ones(2), b'{}')\n"
        f"writer.EventWriter({str(tmp_path)!r}).write(1, [value])\n"
        f"heatmap_figure(*read({str(tmp_path)!r})['a'])\n"
        "kbptt.analysis.summarize([1, 2])\n"
        "heavy = ('keras', 'tensorflow', 'matplotlib.pyplot')\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_of_one_second_are_read_in_the_order_they_were_written(tmp_path, monkeypatch):
    """TensorBoard goes by their names, in which 10 comes before 9."""
    monkeypatch.setattr(writer.time, "time", lambda: 1e9)
    for step in range(120):
        file = writer.EventWriter(str(tmp_path), reader.SUFFIX)
        file.write(step, [writer.profile_value("rnn", np.ones(3, np.float32), CONTENT)])
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    (tag,) = events.Tags()["tensors"]
    assert [event.step for event in events.Tensors(tag)] == list(range(120))
