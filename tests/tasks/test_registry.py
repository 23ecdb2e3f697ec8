"""Names, options, seeds: what every task promises."""

import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from kbptt import tasks
from kbptt.tasks import registry

SMALL = {"sizes": (40, 20, 20)}
OPTIONS = {
    "adding": {"length": 20},
    "multiplication": {"length": 20},
    "copy_memory": {"lag": 6, "items": 3},
    "temporal_order": {"length": 20},
    "random_permutation": {"length": 10},
    "influence_balancing": {},
    "digits": {"blank": 6},
}


@pytest.fixture(params=sorted(OPTIONS))
def task(request):
    return tasks.get(request.param, **OPTIONS[request.param], **SMALL)


class Own(tasks.Task):
    """A user's task; `changes` spoil it."""

    metric, mode, baseline = "accuracy", "max", 0.5
    outputs = tasks.Outputs(2)

    def __init__(self, **changes):
        super().__init__(5, (4, 4, 4))
        vars(self).update(changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mode": "maximum"}, "`mode` of task 'own'. Expected 'max' or 'min'. Received: 'maximum'"),
        ({"baseline": None}, "`baseline` of task 'own'. Expected a number"),
        ({"perfect": "1"}, "`perfect`"),
        ({"success": True}, "`success`"),
        ({"metric": 3}, "`metric`"),
        ({"outputs": 2}, r"`outputs` of task 'own'. Expected a `kbptt\.tasks\.Outputs`"),
        (
            {"outputs": tasks.Outputs(1)},
            "`outputs` of task 'own'. Expected one unit for each of two or more",
        ),
    ],
)
@mock.patch.dict(registry.factories)
def test_a_task_with_invalid_attributes_is_refused(changes, message):
    tasks.register("own")(lambda: Own(**changes))
    with pytest.raises(ValueError, match=message):
        tasks.get("own")


@mock.patch.dict(registry.factories)
def test_a_task_with_its_own_loss_may_have_one_output():
    class Binary(Own):
        outputs = tasks.Outputs(1, "sigmoid")

        def loss(self):
            raise NotImplementedError

    tasks.register("binary")(Binary)
    tasks.register("error")(lambda: Own(outputs=tasks.Outputs(1), metric="mse"))
    assert tasks.get("binary").outputs.units == tasks.get("error").outputs.units == 1


@mock.patch.dict(registry.factories)
def test_a_factory_must_return_a_task():
    tasks.register("own")(lambda: "adding")
    with pytest.raises(ValueError, match=r"return a `kbptt\.tasks\.Task`.*Received: 'adding'"):
        tasks.get("own")


def test_data_matches_what_the_task_declares(task):
    data = task.data(3)
    for (x, y), size in zip((data.train, data.validation, data.test), (40, 20, 20), strict=True):
        assert len(x) == len(y) == size
        if task.vocabulary is None:
            assert x.shape[1:] == (task.length, task.features) and x.dtype == np.float32
        else:
            assert x.shape[1:] == (task.length,) and x.dtype == np.int32
            assert x.min() >= 0 and x.max() < task.vocabulary
        if task.outputs.per_timestep:
            assert y.shape[1] == task.length
        if task.metric != "mse":
            assert y.dtype == np.int32 and y.min() >= 0 and y.max() < task.outputs.units
    assert np.isfinite(task.baseline) and task.mode in ("max", "min")


def test_data_is_a_function_of_the_seed(task):
    first, again, other = task.data(3), task.data(3), task.data(4)
    np.testing.assert_array_equal(first.train[0], again.train[0])
    np.testing.assert_array_equal(first.test[1], again.test[1])
    if task.name != "influence_balancing":
        assert (first.train[0] != other.train[0]).any()


@pytest.mark.parametrize("name", ["adding", "copy_memory", "temporal_order", "random_permutation"])
def test_splits_are_independent(name):
    """The test set is the same whatever the size of the training set, and shares no sequence."""
    few = tasks.get(name, sizes=(5, 20, 20)).data(0)
    many = tasks.get(name, sizes=(500, 20, 20)).data(0)
    np.testing.assert_array_equal(few.test[0], many.test[0])
    assert not {x.tobytes() for x in many.train[0]} & {x.tobytes() for x in many.test[0]}


def test_derived_seeds_do_not_move():
    """Frozen values: a change would silently change every seeded experiment."""
    assert tasks.derive_seed(0, "data/train") == 566862663
    assert tasks.derive_seed(1, "data/train") == 78479590
    derived = {tasks.derive_seed(s, f"layer {i}") for s in range(100) for i in range(100)}
    assert len(derived) == 10_000
    assert all(0 <= d < 2**31 for d in derived)


@pytest.mark.parametrize("seed", [-1, 2.0, True, "1", None])
def test_a_seed_is_a_non_negative_integer(seed):
    with pytest.raises(ValueError, match="non-negative integer"):
        tasks.derive_seed(seed, "x")


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"'addign' \(did you mean 'adding'\?\).*temporal_order"):
        tasks.get("addign")
    with pytest.raises(ValueError, match=r"no option 'lenght'.*'length'.*length, sizes"):
        tasks.get("adding", lenght=3)
    with pytest.raises(ValueError, match="needs the option `path`"):
        tasks.get("text")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adding", {"length": 0}),
        ("adding", {"length": 1}),
        ("adding", {"length": 2.5}),
        ("adding", {"length": True}),
        ("adding", {"sizes": (10, 10)}),
        ("adding", {"sizes": 10}),
        ("adding", {"sizes": (10, 0, 10)}),
        ("multiplication", {"length": 9}),
        ("copy_memory", {"lag": -1}),
        ("copy_memory", {"symbols": 1}),
        ("copy_memory", {"variable": "yes"}),
        ("temporal_order", {"symbols": 4}),
        ("temporal_order", {"length": 9}),
        ("random_permutation", {"symbols": 2}),
        ("influence_balancing", {"positive": 24}),
        ("digits", {"sizes": (1700, 90, 90)}),
        ("digits", {"blank": -1}),
        ("digits", {"repeat": 0}),
    ],
)
def test_invalid_options_are_refused_by_name(name, options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}"):
        tasks.get(name, **options)


@mock.patch.dict(registry.factories)
def test_a_registered_task_is_available_by_name():
    @tasks.register("parity")
    class Parity(tasks.Task):
        baseline, success = 0.5, 0.99
        outputs = tasks.Outputs(2)

        def __init__(self, length=50, sizes=(200, 50, 50)):
            super().__init__(length, sizes)

        def sample(self, generator, count):
            bits = generator.integers(0, 2, size=(count, self.length, 1))
            return bits.astype("float32"), bits.sum(axis=(1, 2)) % 2

    @tasks.register("long_parity")
    def long_parity(length=500):
        return Parity(length)

    x, y = tasks.get("parity", length=7).data(0).train
    np.testing.assert_array_equal(y, x.sum(axis=(1, 2)) % 2)
    assert tasks.get("long_parity").name == "long_parity" and tasks.get("parity").name == "parity"
    assert {"parity", "long_parity"} <= set(tasks.names())
    with pytest.raises(ValueError, match="Available options: length"):
        tasks.get("long_parity", size=3)
    with pytest.raises(ValueError, match="letters, digits and"):
        tasks.register("../etc")


def test_importing_the_tasks_is_light():
    code = (
        "import sys, kbptt.tasks; sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
