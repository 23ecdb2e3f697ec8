"""`kbptt.data.Streams`: what is read when, and that nothing is left out or read twice."""

import collections
import itertools
from typing import ClassVar

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import kbptt
from kbptt.data import Streams

settings.register_profile("streams", deadline=None, max_examples=150)
SETTINGS = settings.get_profile("streams")


@st.composite
def streams(draw, **fixed):
    """A stream of numbered steps, and how many sequences it was made of."""
    sizes = draw(st.lists(st.integers(2, 23), min_size=1, max_size=9))
    number, sequences = 0, []
    for size in sizes:
        sequences.append(np.arange(number, number + size) + 1)
        number += size
    options = {
        "length": draw(st.integers(1, 12)),
        "batch_size": draw(st.integers(1, 6)),
        "context": draw(st.integers(0, 14)),
        "offset": draw(st.sampled_from(["random", 0])),
        "order": draw(st.sampled_from(["given", "shuffled"])),
        "pack": draw(st.booleans()),
        "seed": draw(st.integers(0, 3)),
    }
    options |= fixed
    if draw(st.booleans()):
        sequences = sequences[:1]
        return Streams(sequences[0], **options), sequences
    return Streams(sequences, **options), sequences


def inputs(x):
    return x if isinstance(x, np.ndarray) else x[0]


@SETTINGS
@given(streams(), st.integers(0, 3))
def test_every_step_is_read_once_an_epoch_with_its_target(given_streams, epoch):
    data, sequences = given_streams
    data.seek(epoch * len(data))
    read, real = collections.Counter(), []
    for x, y, weight in data:
        x = inputs(x)
        assert x.shape == y.shape == weight.shape == (data.rows, data.context + data.length)
        assert np.all((weight == 0) | (weight == 1))
        assert np.all(y[weight == 1] == x[weight == 1] + 1)
        read.update(x[weight == 1].tolist())
        real.append(np.count_nonzero(weight))
    np.testing.assert_array_equal(real, data.epoch.places.real)
    expected = [step for s in sequences for step in s[:-1]]
    if isinstance(data.sequences.x, list) and len(data.sequences.x) == 1:
        expected = sequences[0][:-1]
    assert read == collections.Counter([int(step) for step in expected])


@SETTINGS
@given(streams())
def test_all_epochs_have_as_many_windows(given_streams):
    data, _ = given_streams
    lengths = set()
    for epoch in range(6):
        data.seek(epoch * len(data))
        assert data.position == epoch * len(data)
        lengths.add(len(list(data)))
    assert lengths == {len(data)}


def walk(data):
    """What each row reads, in order: (step, whether states were initial before it)."""
    rows = [[] for _ in range(data.rows)]
    places = data.epoch.places
    for index, (x, _, _) in enumerate(data):
        resets = np.zeros(inputs(x).shape, bool) if isinstance(x, np.ndarray) else x[1]
        for row in range(data.rows):
            first, stop = places.first[index, row], places.stop[index, row]
            for t in range(first, stop):
                fresh = (t == first and places.fresh[index, row]) or resets[row, t]
                rows[row].append((int(inputs(x)[row, t]), bool(fresh)))
    return rows


@SETTINGS
@given(streams(context=0), st.integers(0, 2))
def test_rows_go_on_where_they_stopped(given_streams, epoch):
    """Read in order, a row is whole sequences, and states are initial where each begins."""
    data, _ = given_streams
    data.seek(epoch * len(data))
    starts = data.sequences.start[: len(data.sequences)]
    begins = {
        int(data.sequences.x[of][start])
        for of, start in zip(data.sequences.of, starts, strict=True)
    }
    for row in walk(data):
        for (before, _), (step, fresh) in itertools.pairwise([(None, None), *row]):
            assert fresh == (step in begins)
            assert fresh or step == before + 1


@SETTINGS
@given(streams(pack=False))
def test_the_context_is_what_came_before(given_streams):
    data, _ = given_streams
    places, seen = data.epoch.places, [{} for _ in range(data.rows)]
    for index, (x, _, weight) in enumerate(data):
        for row in range(data.rows):
            first, stop = places.first[index, row], places.stop[index, row]
            steps = x[row, first:stop]
            assert np.all(np.diff(steps) == 1)
            assert np.all(weight[row, :first] == 0) and np.all(weight[row, stop:] == 0)
            assert np.all(weight[row, max(first, data.context) : stop] == 1)
            # All of the context is there, or the beginning of the sequence is.
            assert first == 0 or stop == first or places.fresh[index, row] or first == data.context
            if first < min(stop, data.context):
                assert all(int(s) in seen[row] for s in x[row, first : data.context])
            seen[row].update(dict.fromkeys(map(int, steps)))


@pytest.mark.parametrize("offset", [0, "random"])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_one_target_for_each_sequence(batch_size, offset):
    sequences = [np.full((n, 2), n, "float32") for n in (3, 8, 1, 12, 5)]
    labels = np.array([3, 8, 1, 12, 5])
    data = Streams(sequences, labels, 4, batch_size, target="last", offset=offset)
    found = []
    for x, y, weight in data:
        assert y.shape == weight.shape == (batch_size,)
        found += y[weight == 1].tolist()
        assert np.all(x.max(axis=(1, 2))[weight == 1] == y[weight == 1])
    assert sorted(found) == sorted(labels)


def test_targets_that_are_given():
    x, y = np.arange(20.0)[:, None], np.arange(20) * 3
    for inputs_, targets, weight in Streams(x, y, 6, 3, target=None):
        np.testing.assert_array_equal((inputs_[..., 0] * 3)[weight == 1], targets[weight == 1])


def test_shuffled_sequences_differ_from_epoch_to_epoch_and_repeat_by_seed():
    sequences = [np.arange(3) + 10 * i for i in range(40)]

    def read(seed, epoch):
        data = Streams(sequences, length=4, batch_size=4, order="shuffled", seed=seed)
        data.seek(epoch * len(data))
        return [x.tolist() for x, _, _ in data]

    assert read(0, 0) == read(0, 0)
    assert read(0, 0) != read(0, 1)
    assert read(0, 0) != read(1, 0)


def test_offsets_are_drawn():
    data = Streams(np.arange(1000), length=10, batch_size=1)
    first = {tuple(data[0][2][0]) for epoch in range(20) if data.seek(epoch * len(data)) is None}
    assert len(first) > 4


def test_tensors_and_lists_of_numbers():
    for x in (keras.ops.arange(9), list(map(np.asarray, ([1, 2, 3], [4, 5])))):
        assert Streams(x, length=2, batch_size=1)[0][0].dtype in (np.int32, np.int64)


def test_seek():
    data = Streams(np.arange(100), length=10, batch_size=2)
    assert len(data) in (5, 6)
    data.seek(2 * len(data) + 3)
    assert data.position == 2 * len(data) + 3
    read = [x for x, _, _ in data.get_numpy_iterator()]
    assert len(read) == len(data) - 3
    data.seek(2 * len(data))
    np.testing.assert_array_equal(read, [x for x, _, _ in data][3:])
    assert data.position == 2 * len(data)  # reading does not advance it


def test_a_memory_mapped_array_is_not_read_at_once(tmp_path):
    path = tmp_path / "tokens.npy"
    np.save(path, np.arange(1000, dtype="int32"))
    mapped = np.load(path, mmap_mode="r")
    data = Streams(mapped, length=10, batch_size=4)
    assert data.sequences.x[0] is mapped
    read = np.concatenate([x[w == 1] for x, _, w in data])
    assert sorted(read) == list(range(999))


def test_keras_takes_it_as_it_is():
    """`fit` shuffles what a PyDataset yields, unless told not to."""
    data = Streams(np.arange(60), length=5, batch_size=2, offset=0)
    assert isinstance(data, keras.utils.PyDataset)
    seen = []

    class Seen(keras.Model):
        def train_step(self, batch):
            seen.append(batch[0].numpy())
            return {"loss": 0.0}

    model = Seen()
    model.compile(run_eagerly=True, loss="mse")
    model.fit(data, epochs=2, verbose=0)
    expected = [x for x, _, _ in data]
    assert len(seen) == 2 * len(data)
    np.testing.assert_array_equal(seen, expected * 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.arange(9), "length": 0}, "length"),
        ({"x": np.arange(9), "batch_size": 2.5}, "batch_size"),
        ({"x": np.arange(9), "context": -1}, "context"),
        ({"x": np.arange(9), "offset": 3}, "offset"),
        ({"x": np.arange(9), "order": "random"}, "order"),
        ({"x": np.arange(9), "target": "first"}, "target"),
        ({"x": np.arange(9), "seed": -1}, "seed"),
        ({"x": np.arange(9), "y": np.arange(9)}, "no `y`"),
        ({"x": np.arange(9), "target": None}, "expect `y`"),
        ({"x": np.arange(9), "y": np.arange(8), "target": None}, "as many"),
        ({"x": np.arange(9), "y": [1], "target": "last"}, "list of sequences"),
        ({"x": [np.arange(9)], "y": [1, 2], "target": "last"}, "one target per sequence"),
        ({"x": [np.arange(9), np.zeros((3, 2))]}, "same dtype and shape"),
        ({"x": []}, "at least one sequence"),
        ({"x": [np.arange(1)]}, "2 or more"),
        ({"x": np.float32(3)}, "timesteps"),
        ({"x": [np.arange(9)], "y": [1], "target": "last", "pack": True}, "exclude"),
    ],
)
def test_errors_say_what_was_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        kbptt.data.Streams(**arguments)


def test_a_subclass_that_changes_what_is_read():
    class Doubled(Streams):
        def __getitem__(self, index):
            x, y, weight = super().__getitem__(index)
            return 2 * x, y, weight

    data = Doubled(np.arange(60), length=5, batch_size=2)
    for (x, _, _), (doubled, _, _) in zip(
        Streams(np.arange(60), length=5, batch_size=2), data.get_tf_dataset(), strict=True
    ):
        np.testing.assert_array_equal(2 * x, doubled)


def test_a_window_reads_its_own_steps_and_no_others():
    """An array may be larger than memory: it is never read as a whole."""

    class Recorded:
        shape, dtype = (10**9, 3), np.dtype("float32")
        read: ClassVar[list] = []

        def __len__(self):
            return self.shape[0]

        def __getitem__(self, steps):
            self.read.append((steps.start, steps.stop))
            return np.zeros((steps.stop - steps.start, 3), self.dtype)

    x = Recorded()
    data = Streams(x, x, target=None, length=100, batch_size=4, context=20)
    assert x.read == []
    data[5]
    assert len(x.read) == 8 and all(0 < stop - start <= 120 for start, stop in x.read)
