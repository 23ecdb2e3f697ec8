"""The grid: what is asked for becomes exactly those trials, or one clear sentence."""

import datetime
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from kbptt import methods, truncation
from kbptt.ablation import options, trial
from kbptt.ablation.grid import Grid, difference, read_yaml
from kbptt.ablation.options import show
from kbptt.ablation.rows import trial_key
from kbptt.ablation.values import parse_assignment
from kbptt.truncation import Randomized, Windowed


def make(**changes):
    arguments = {"tasks": ["adding"], "methods": ["baseline", "clip"], "seeds": 2}
    return Grid.make(**{**arguments, **changes})


def test_trials_are_the_product():
    grid = make(
        tasks="adding,copy_memory", set={"truncation": [16, "full"], "adding.length": [50, 60]}
    )
    planned = grid.trials()
    assert len(planned) == 2 * 2 * 2 * (2 + 1)  # seeds × methods × truncation × task lengths
    assert len({trial_key(c.config) for c in planned}) == len(planned)
    assert len({c.directory for c in planned}) == len(planned)
    assert planned[0].directory == "baseline,truncation=16/adding,length=50/0"
    assert planned[0].config["model"]["truncation"] == 16
    assert planned[0].config["task"] == {"name": "adding", "options": {"length": 50}}
    assert {c.config["seed"] for c in planned[: len(planned) // 2]} == {0}  # a seed fills up first


def test_baseline_is_not_orthogonal():
    for one in make().trials():
        assert one.config["model"]["layer"]["recurrent_initializer"] == "glorot_uniform"


def test_every_truncation_can_be_an_axis():
    name, values = parse_assignment(
        "truncation=8,artbp,{name: windowed, length: 8, stride: 2},"
        "{name: randomized, keep_probability: 0.9}"
    )
    planned = make(methods=["clip"], seeds=1, set={name: values, "length": 9}, units=2).trials()
    assert [show(one.config["model"]["truncation"]) for one in planned] == [
        "8",
        "artbp",
        "windowed(length=8,stride=2)",
        "randomized(keep_probability=0.9)",
    ]
    found = [trial.build(one.config)[1].layers[1].truncation for one in planned]
    expected = [8, "artbp", Windowed(8, 2), Randomized(0.9)]
    assert found == [truncation.get(value) for value in expected]


def test_designs():
    names = ["orthogonal", "clip", "layernorm"]
    assert make(methods=names, design="add-one-in").methods == ("baseline", *names)
    assert make(methods=names, design="leave-one-out").methods == (
        "orthogonal+clip+layernorm",
        "clip+layernorm",
        "orthogonal+layernorm",
        "orthogonal+clip",
    )
    with pytest.raises(ValueError, match="besides the baseline"):
        make(methods=["baseline"], design="add-one-in")
    with pytest.raises(ValueError, match="at least two methods"):
        make(methods=["clip"], design="leave-one-out")
    with pytest.raises(ValueError, match="one of 'grid', 'add-one-in', 'leave-one-out'"):
        make(design="latin")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tasks": ["addin"]}, r"Unknown task: 'addin' \(did you mean 'adding'\?\).*copy_memory"),
        ({"methods": ["clipp"]}, r"Unknown method: 'clipp' \(did you mean 'clip'\?\).*baseline"),
        ({"methods": ["clip", "clip"]}, "'clip' is listed twice among the methods"),
        ({"methods": ["clip", "baseline+clip"]}, "are the same trial"),
        ({"methods": ["clip+clip"]}, "named twice"),
        ({"tasks": ["adding", "adding"]}, "'adding' is listed twice among the tasks"),
        ({"tasks": []}, "grid is empty: `tasks`"),
        ({"methods": ""}, "grid is empty: `methods`"),
        ({"seeds": 0}, "positive integer"),
        ({"seeds": "1e3"}, "positive integer.*'1e3'"),
        ({"seeds": 1e3}, "positive integer.*1000.0"),
        ({"seeds": True}, "positive integer"),
        ({"seeds": []}, "grid is empty"),
        ({"seeds": [0, 0]}, "0 is listed twice among the seeds"),
        ({"seeds": [0, -1]}, "non-negative"),
        ({"seeds": "1 2"}, "positive integer.*'1 2'"),
        ({"seeds": "3,x"}, "positive integer.*'3,x'"),
        ({"set": {"unitz": [1]}}, r"Unknown option: 'unitz' \(did you mean 'units'\?\)"),
        ({"set": {"units": [8, 8]}}, "8 is listed twice among the values of axis 'units'"),
        ({"set": {"units": []}}, "has no values"),
        ({"set": {"units": [8]}, "units": 9}, "units is given twice"),
        ({"length": 20, "adding.length": 30}, "length and adding.length are the same"),
        ({"units": 2.5}, "positive integer"),
        ({"epochs": 0}, "positive integer"),
        ({"learning_rate": "nan"}, "finite number above 0"),
        ({"cell": "Transformer"}, "'LSTM', 'GRU', 'SimpleRNN'"),
        ({"truncation": 0}, "Or 'full'"),
        ({"checkpoint": "first"}, "'best', 'last'"),
        ({"length": "long"}, "length"),
        ({"tasks": "adding,digits", "length": 20}, "adding.length=…"),
        ({"methods": ["irnn"]}, "for SimpleRNN, not for LSTM"),
        ({"methods": ["orthogonal"], "recurrent_initializer": "zeros"}, "use one of them"),
        ({"methods": ["orthogonal+identity"]}, "both set the layer argument `recurrent_init"),
        ({"dropout": float("nan")}, "not a plain value"),
        ({"length": datetime.date(2020, 1, 1)}, "not a plain value"),
        ({"set": ["units"]}, "Expected a mapping from options"),
        ({"set": {"threads": [1, 2]}}, "`threads` cannot be an axis"),
        ({"set": {"sizes": [64, 32, 32]}}, r"nest it in a list: \[\[100, 20, 20\]\]"),
        ({"imports": ["no_such_module"]}, "Cannot import the module 'no_such_module'"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("given", "seeds"), [("3", (0, 1, 2)), ("3, 5,9", (3, 5, 9)), ([7], (7,)), (2, (0, 1))]
)
def test_seeds(given, seeds):
    assert make(seeds=given).seeds == seeds


@pytest.mark.parametrize("digits", [20, 30, 5000])  # of 5,000 Python reads none
@pytest.mark.parametrize("before", ["", "1,"])
def test_seeds_beyond_every_limit(digits, before):
    with pytest.raises(ValueError, match=r"`seeds`. Expected at most [\d,]+. Received a larger"):
        make(seeds=before + "9" * digits)
    assert make(seeds="2, " + "0" * digits + "3").seeds == (2, 3)


def test_seeds_cost_next_to_nothing(monkeypatch):
    """What does not depend on the seed is made and checked once, not for each of 50,000 trials."""
    found, get = [], methods.get
    monkeypatch.setattr(methods, "get", lambda name: found.append(name) or get(name))
    few = make(seeds=2)
    few.trials(), few.notes(), few.configuration()
    expected, found[:] = len(found), []
    many = make(seeds=1000)
    planned = many.trials()
    many.notes(), many.configuration()
    assert len(found) == expected
    assert [c.config["seed"] for c in planned] == [seed for seed in range(1000) for _ in range(2)]
    assert [(c.config, c.directory) for c in planned[:4]] == [
        (c.config, c.directory) for c in few.trials()
    ]
    assert planned[-1].directory == "clip/adding/999"
    assert planned[0].config["model"] is planned[-2].config["model"]


def test_values():
    assert parse_assignment("truncation=16,64,full") == ("truncation", [16, 64, "full"])
    assert parse_assignment("learning_rate=1e-3,0.1") == ("learning_rate", [1e-3, 0.1])
    assert parse_assignment("sizes=[9,5,5],[8,4,4]") == ("sizes", [[9, 5, 5], [8, 4, 4]])
    assert parse_assignment("use_bias=true,False,none") == ("use_bias", [True, False, None])
    for text in ("units", "=3", "units="):
        with pytest.raises(ValueError, match="NAME=VALUE"):
            parse_assignment(text)
    with pytest.raises(ValueError, match="Cannot read the value"):
        parse_assignment("sizes=[1,{]")
    grid = make(units=np.int64(8), sizes=(20, 10, 10), truncation="full")
    config = grid.trials()[0].config
    assert config["model"]["units"] == 8 and config["model"]["truncation"] is None
    assert config["task"]["options"] == {"sizes": [20, 10, 10]}


@pytest.mark.parametrize(
    "label", ["../../etc", "a/b", "<script>", "Ω µ", "", ".", "x" * 300, "a b"]
)
def test_slug_is_one_folder(label, tmp_path):
    name = options.slug(label)
    assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    assert 0 < len(name) <= 100


def test_yaml(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(
        "tasks: [adding]\nmethods: [baseline, clip]\nseeds: 3\nlearning_rate: 1e-3\n"
        "set:\n  truncation: [16, full]\n  length: 40\n"
    )
    grid = Grid.from_yaml(path, seeds=2)
    assert len(grid.trials()) == 2 * 2 * 2
    assert grid.trials()[0].config["optimizer"]["learning_rate"] == 1e-3
    assert grid.trials()[0].config["task"]["options"] == {"length": 40}
    for text, message in [
        ("task: [adding]", "Unknown key in .*'task'. Valid keys: tasks, methods"),
        ("- adding", "Expected a mapping"),
        ("tasks: [", "not valid YAML"),
        ("tasks: [adding]\nepochs: 1\nepochs: 2", "'epochs' occurs twice"),
        ("set: {units: 1, units: 2}", "'units' occurs twice"),
        ("tasks: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_yaml(path)
    with pytest.raises(ValueError, match="Cannot read"):
        read_yaml(tmp_path / "absent.yaml")


def test_difference_names_what_changed():
    before, now = make(epochs=5), make(epochs=10, seeds=3, units=8)
    lines = list(difference(before.configuration(), now.configuration()))
    assert lines == [
        "seeds: [0, 1] → [0, 1, 2]",
        "settings.epochs: 5 → 10",
        "settings.units: + 8",
    ]


def test_content_of_a_users_file_is_part_of_the_configuration(tmp_path):
    path = tmp_path / "book.txt"

    def planned(text):
        path.write_text(text)
        grid = make(tasks="text,adding", set={"text.path": path, "text.length": 5})
        return grid.configuration(), [one.config for one in grid.trials()]

    before, configs = planned("abcd " * 10)
    assert configs[0]["task"]["file"] == hashlib.sha256(b"abcd " * 10).hexdigest()
    assert "file" not in configs[2]["task"]
    assert planned("abcd " * 10) == (before, configs)
    now, changed = planned("efgh " * 10)
    (line,) = difference(before, now)
    assert line.startswith("files.text")
    same = [trial_key(a) == trial_key(b) for a, b in zip(configs, changed, strict=True)]
    assert same == [False, False, True, True] * 2
    with pytest.raises(ValueError, match="not the file with which the ablation was planned"):
        trial.build(configs[0])


def test_planning_needs_no_tensorflow():
    code = (
        "import sys; from kbptt.ablation.grid import Grid;"
        "Grid.make(['adding'], ['baseline', 'clip'], 2).trials();"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
