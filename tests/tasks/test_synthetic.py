"""The answer really depends on what the task says, and the baseline is what forgetting scores."""

import math

import numpy as np
import pytest

from kbptt import tasks


def train(name, count=4000, seed=0, **options):
    task = tasks.get(name, sizes=(count, 1, 1), **options)
    return task, *task.data(seed).train


@pytest.mark.parametrize(
    ("name", "combine", "ranges"),
    [
        ("adding", np.sum, [(0, 25), (25, 51)]),
        ("multiplication", np.prod, [(0, 5), (5, 25)]),
    ],
)
def test_two_marked_numbers(name, combine, ranges):
    task, x, y = train(name, length=51)
    values, marks = x[:, :, 0], x[:, :, 1]
    assert (marks.sum(axis=1) == 2).all() and set(np.unique(marks)) == {0, 1}
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.01
    for sequence, mark, answer in zip(values, marks, y, strict=True):
        np.testing.assert_allclose(answer, combine(sequence[mark == 1]), rtol=1e-6)
    positions = np.stack([np.flatnonzero(mark) for mark in marks])
    for column, (low, high) in zip(positions.T, ranges, strict=True):
        assert set(column) == set(range(low, high))
    # The best constant answer is the mean; its squared error is the variance.
    assert y.var() == pytest.approx(task.baseline, rel=0.05)


def test_adding_baseline_is_that_of_answering_one():
    task, _, y = train("adding", count=100_000, length=10)
    assert np.mean((y - 1) ** 2) == pytest.approx(task.baseline, rel=0.01)


@pytest.mark.parametrize("variable", [False, True])
def test_copy_memory_repeats_the_items_after_the_request(variable):
    task, x, y = train("copy_memory", count=500, lag=20, items=4, symbols=5, variable=variable)
    assert task.length == 28
    lags = []
    for sequence, answer in zip(x, y, strict=True):
        (request,) = np.flatnonzero(sequence == 6)
        np.testing.assert_array_equal(answer[request + 1 : request + 5], sequence[:4])
        assert np.count_nonzero(answer) == 4
        assert not sequence[4:request].any() and not sequence[request + 1 :].any()
        lags.append(request - 3)
    assert set(lags) == (set(range(1, 21)) if variable else {20})


@pytest.mark.parametrize(
    ("lag", "published"), [(100, 0.1733), (200, 0.0945), (300, 0.0650), (500, 0.0400)]
)
def test_copy_memory_baseline_is_the_published_one(lag, published):
    assert tasks.get("copy_memory", lag=lag).baseline == pytest.approx(published, abs=5e-5)


@pytest.mark.parametrize("variable", [False, True])
def test_copy_memory_baseline_is_what_forgetting_the_items_scores(variable):
    """Blank for certain while there is nothing to answer, uniform over the symbols afterwards."""
    task, _, y = train("copy_memory", count=300, variable=variable)
    nats = np.where(y == 0, 0.0, math.log(8))
    assert nats.mean() == pytest.approx(task.baseline)
    symbols = np.bincount(y[y > 0], minlength=9)[1:]
    assert symbols.min() / symbols.max() > 0.8


@pytest.mark.parametrize(
    ("symbols", "ranges"),
    [(2, [(10, 20), (50, 60)]), (3, [(10, 20), (30, 40), (60, 70)])],
)
def test_temporal_order(symbols, ranges):
    task, x, y = train("temporal_order", symbols=symbols)
    marked = x < 2
    assert (marked.sum(axis=1) == symbols).all()
    for sequence, mark, answer in zip(x, marked, y, strict=True):
        assert answer == sum(int(bit) << i for i, bit in enumerate(sequence[mark]))
    positions = np.stack([np.flatnonzero(mark) for mark in marked])
    for column, (low, high) in zip(positions.T, ranges, strict=True):
        assert set(column) == set(range(low, high))
    assert set(np.unique(x[~marked])) == {2, 3, 4, 5}
    # The most frequent class is what a predictor without memory can do.
    assert np.bincount(y).max() / len(y) == pytest.approx(task.baseline, abs=0.03)


def test_random_permutation_asks_for_the_first_symbol():
    task, x, y = train("random_permutation", length=12, symbols=20)
    np.testing.assert_array_equal(x[:, 0], y)
    assert set(np.unique(y)) == {0, 1} and set(np.unique(x[:, 1:])) == set(range(2, 20))
    assert np.bincount(y).max() / len(y) == pytest.approx(task.baseline, abs=0.03)
    # Nothing between the first and the last timestep tells the answer.
    for t in range(1, 12):
        given = [y[x[:, t] == symbol].mean() for symbol in range(2, 20)]
        assert max(abs(np.array(given) - 0.5)) < 0.2


@pytest.mark.parametrize("name", ["adding", "temporal_order", "random_permutation"])
def test_the_baseline_is_beaten_only_by_remembering(name):
    """The last timestep alone predicts nothing: least squares on it stays at the baseline."""
    task, x, y = train(name)
    if task.vocabulary:
        x = np.eye(task.vocabulary)[x]
        y = np.eye(task.outputs.units)[y]
    last = np.column_stack([x[:, -1], np.ones(len(x))]).astype(float)
    weights = np.linalg.lstsq(last, y, rcond=None)[0]
    fresh = tasks.get(name, sizes=(1, 4000, 1)).data(1).validation
    x, answers = fresh
    x = np.eye(task.vocabulary)[x] if task.vocabulary else x
    predicted = np.column_stack([x[:, -1], np.ones(len(x))]) @ weights
    if task.metric == "mse":
        assert np.mean((predicted - answers) ** 2) > 0.93 * task.baseline
    else:
        assert np.mean(predicted.argmax(axis=1) == answers) < task.baseline + 0.03
