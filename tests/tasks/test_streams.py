"""Tasks whose sequences follow each other in time, read as streams."""

import keras
import numpy as np
import pytest
from csv_files import NUMERIC, WAVE

import kbptt
from kbptt import tasks
from kbptt.callbacks import StreamState

TEXT = "Quick brown foxes — señor Čapek's robots — jump.\nOver 7 lazy dogs!\n" * 40


@pytest.fixture
def text(tmp_path):
    """A function from options to the task over `TEXT`."""
    path = tmp_path / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return lambda **options: tasks.get("text", path=path, **options)


@pytest.fixture(params=["text", "csv"])
def task(request, text, load):
    options = {"length": 20, "sizes": (9, 3, 3)}
    if request.param == "text":
        return text(**options)
    return load(WAVE, columns=NUMERIC, horizon=3, **options)


def model_of(task, length=None, learning_rate=0.0):
    """A model of a task, for sequences of a length, that learns nothing."""
    own, task.length = task.length, length or task.length
    model = tasks.build_model(task, cell="GRU", units=5, seed=3)
    task.length = own
    model.compile(keras.optimizers.SGD(learning_rate), task.loss(), metrics=task.metrics())
    return model


def in_one_pass(task, x, y):
    """Loss and metrics of `model_of` over sequences that it reads from end to end."""
    return model_of(task, x.shape[1]).evaluate(x, y, verbose=0, return_dict=True)


def test_series_are_the_steps_of_the_windows(task):
    data, series = task.data(0), task.series(0)
    for part in ("validation", "test"):
        for windows, steps in zip(getattr(data, part), getattr(series, part), strict=True):
            np.testing.assert_array_equal(windows.reshape(steps.shape), steps)
    (x, y), (windows, targets) = series.train, data.train
    np.testing.assert_array_equal(windows[0], x[:20])
    np.testing.assert_array_equal(windows[-1], x[-20:])
    np.testing.assert_array_equal(targets[-1], y[-20:])
    # Windows for training may overlap, steps of a stream do not.
    assert len(x) == (180 if task.name == "text" else 20 + 8 * 5)


def test_a_stream_has_the_targets_of_its_steps(task):
    x, y = task.series(0).train
    if task.name == "text":
        assert task.decode(x) == TEXT[:180] and task.decode(y) == TEXT[1:181]
    else:
        np.testing.assert_array_equal(y[:-3, 0], x[3:, 1])


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_score_is_that_of_one_pass_over_the_steps(task, part):
    found = kbptt.evaluate_stream(model_of(task), getattr(task.streams(0), part))
    x, y = getattr(task.series(0), part)
    assert found == pytest.approx(in_one_pass(task, x[None], y[None]), rel=1e-5)
    windows = model_of(task).evaluate(*getattr(task.data(0), part), verbose=0, return_dict=True)
    assert found != pytest.approx(windows, rel=1e-5)  # each of which forgets what was before


def test_a_training_reads_each_step_once_and_no_other(task):
    """Means of an epoch are those of the rows from end to end, though no window begins with one."""
    streams = task.streams(seed=1, batch_size=2 if task.name == "csv" else 4)
    train = streams.train
    assert train.rows == (1 if task.name == "csv" else 4)
    history = (
        model_of(task)
        .fit(
            train,
            validation_data=streams.validation,
            epochs=2,
            callbacks=[StreamState(train)],
            verbose=0,
        )
        .history
    )
    x, y = (np.stack(np.split(part, train.rows)) for part in task.series(0).train)
    expected, tested = (
        in_one_pass(task, x, y),
        kbptt.evaluate_stream(model_of(task), streams.validation),
    )
    for name, value in expected.items():
        assert history[name] == pytest.approx([value] * 2, rel=1e-5)
        assert history[f"val_{name}"] == pytest.approx([tested[name]] * 2, rel=1e-5)


def test_windows_begin_elsewhere_in_every_epoch_as_the_seed_says(text):
    def leads(seed, *epochs):
        train = text(length=20).streams(seed, 4).train
        found = []
        for epoch in epochs:
            train.seek(epoch * len(train))
            found.append(train.epoch.schedule.position[0].tolist())
        return found

    first, second, again = leads(0, 0, 1, 0)
    assert first == again != second and leads(1, 0) != [first]
    assert leads(0, 1) == [second]


def test_there_are_fewer_rows_where_they_would_be_short(text):
    def rows(training, batch_size=32):
        return text(length=20, sizes=(training, 1, 1)).streams(0, batch_size).train.rows

    assert [rows(n) for n in (1, 2, 3, 4, 64, 80)] == [1, 1, 1, 2, 32, 32]
    assert rows(80, batch_size=7) == 7


def test_the_shortest_files_train(tmp_path, load):
    (tmp_path / "short.txt").write_text("abcdefghij" * 3 + "a")
    for task in (
        tasks.get("text", path=tmp_path / "short.txt", length=10),
        load("a\n" + "1\n2\n4\n7\n" * 3, length=3),
    ):
        data = task.streams(0)
        history = (
            model_of(task, learning_rate=0.1)
            .fit(data.train, epochs=2, callbacks=[StreamState(data.train)], verbose=0)
            .history
        )
        assert history["loss"][1] < history["loss"][0]


def test_only_tasks_with_series_have_streams():
    names = {"adding", "copy_memory", "digits", "influence_balancing", "temporal_order"}
    assert not any(tasks.get(name).has_streams for name in names)
    with pytest.raises(NotImplementedError, match="Adding must override `series`"):
        tasks.get("adding").streams(0)


def test_a_task_of_ones_own():
    class Delay(tasks.Task):
        metric, mode, baseline, outputs = "mse", "min", 1.0, tasks.Outputs(1, per_timestep=True)

        def __init__(self):
            super().__init__(8, (40, 2, 2))

        def series(self, seed):
            generator = np.random.default_rng(seed)
            x = [generator.normal(size=(8 * n, 1)).astype("float32") for n in self.sizes]
            return tasks.TaskData(*((part, np.roll(part, 1)) for part in x))

    task = Delay()
    assert task.has_streams
    train = task.streams(seed=5, batch_size=4).train
    assert len(train) == 11 and train[0][0].shape == (4, 8, 1)
    with pytest.raises(ValueError, match="batch_size"):
        task.streams(0, 0)
