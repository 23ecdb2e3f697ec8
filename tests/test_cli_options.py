"""`train` and `compare` read options the same way, and refuse numbers that nobody means."""

import importlib
import json
import sys
import time
import warnings
from unittest import mock

import pytest
from command_line import refused
from typer.testing import CliRunner

from kbptt import tasks
from kbptt.ablation import Grid, limits, runner, trial
from kbptt.cli.main import app

pytestmark = pytest.mark.usefixtures("working_directory")


@pytest.fixture
def configurations(tmp_path, monkeypatch):
    """A function from a command line to the configurations that it would train."""
    found = []

    class Stop(Exception):
        pass

    def trained(run):
        found.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr("kbptt.ablation.training.build", trained)
    monkeypatch.setattr(
        runner, "run", lambda ledger, **_: trained([t.config for t in ledger.trials()])
    )

    def of(*arguments):
        found.clear()
        logdir = tmp_path / f"logs-{time.monotonic_ns()}"
        result = CliRunner().invoke(app, [*map(str, arguments), "--logdir", str(logdir)])
        assert result.exit_code == 130 and found, result.output
        return found[0]

    return of


SAME = [
    (["-o", "held_out=1e-1"], ("task", "options", "held_out"), 0.1),
    (["-o", "target='b'"], ("task", "options", "target"), "b"),
    (["--set", "sizes=[20,5,5]"], ("task", "options", "sizes"), [20, 5, 5]),
    (["--length", "12"], ("task", "options", "length"), 12),
    (["--truncation", "artbp"], ("model", "truncation"), "artbp"),
    (["--truncation", "snap1"], ("model", "truncation"), "snap1"),
    (["--truncation", "full"], ("model", "truncation"), None),
    (["--truncation", " 7 "], ("model", "truncation"), 7),
    (
        ["--truncation", "{name: windowed, length: 64, stride: 16}"],
        ("model", "truncation"),
        {"name": "windowed", "length": 64, "stride": 16},
    ),
    (
        ["-o", "truncation={name: randomized, keep_probability: 9e-1}"],
        ("model", "truncation"),
        {"name": "randomized", "keep_probability": 0.9},
    ),
    (["--normalization", "layer"], ("model", "layer", "normalization"), "layer"),
    (["-o", "normalization=layer"], ("model", "layer", "normalization"), "layer"),
    (["-o", "dropout=1e-1"], ("model", "layer", "dropout"), 0.1),
    (["--recurrent-initializer", "henaff"], ("model", "layer", "recurrent_initializer"), "henaff"),
    (["--optimizer", "sgd"], ("optimizer", "name"), "sgd"),
    (["--optimizer", "sgd", "-o", "optimizer.momentum=9e-1"], ("optimizer", "momentum"), 0.9),
    (["--learning-rate", "1e-1"], ("optimizer", "learning_rate"), 0.1),
    (["-o", "learning_rate=1e-1"], ("optimizer", "learning_rate"), 0.1),
    (["-o", "epochs=3"], ("training", "epochs"), 3),
    (["--batch-size", "5"], ("training", "batch_size"), 5),
    (["--clip", "5e-1"], ("training", "clip"), 0.5),
    (["-o", "clip=2"], ("training", "clip"), 2.0),
    (["--checkpoint", "last"], ("training", "checkpoint"), "last"),
    (["-o", "checkpoint=best"], ("training", "checkpoint"), "best"),
    (["--cell", "gru"], ("model", "cell"), "GRU"),
]


def part(config, path):
    for name in path:
        config = config[name]
    return config


@pytest.mark.parametrize(("arguments", "path", "expected"), SAME)
def test_both_commands_read_an_option_alike(arguments, path, expected, configurations, tmp_path):
    (tmp_path / "f.csv").write_text("a,b\n" + "".join(f"{i % 7},{i % 5}\n" for i in range(600)))
    single = configurations("train", "csv", "f.csv", *arguments)
    (many,) = configurations(
        *("compare", "--tasks", "csv", "--methods", "baseline", "--seeds", "0,1"),
        *("--set", "csv.path=f.csv", *arguments),
    )[:1]
    assert part(single, path) == part(many, path) == expected
    assert type(part(single, path)) is type(expected)


def test_every_method_trains_alone_and_in_a_comparison(configurations):
    single = configurations(
        *("train", "adding", "--method", "orthogonal+clip", "--seed", 3, "--checkpoint", "best")
    )
    arguments = ("--tasks", "adding", "--methods", "orthogonal+clip", "--seeds", "3,4")
    many = configurations("compare", *arguments)[0]
    assert single == many
    # Alone, Keras's own recurrent initializer is the default; the method's comes first.
    assert single["model"]["layer"]["recurrent_initializer"]["object"].endswith("PerGate")
    plain = configurations("train", "adding", "--method", "clip")
    assert plain["model"]["layer"]["recurrent_initializer"] == "orthogonal"


def test_clip_is_an_axis_of_a_comparison(configurations):
    arguments = ("--tasks", "adding", "--method", "orthogonal", "--seeds", 1, "-o", "clip=none,1,5")
    found = configurations("compare", *arguments)
    assert [config["training"]["clip"] for config in found] == [None, 1.0, 5.0]


def test_a_file_keeps_its_name_whatever_it_looks_like(configurations, tmp_path):
    for name in ("1e3", "true", "[x]", "a,b"):
        (tmp_path / name).write_text("abcdefgh" * 100)
        assert configurations("train", "text", name)["task"]["options"] == {"path": name}


def test_yaml_reads_numbers_as_the_command_line_does(configurations, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "tasks: [adding]\nmethods: [clip]\nseeds: 1\nlearning_rate: 1e-1\n"
        "truncation: {name: randomized, keep_probability: 9e-1}\n"
    )
    config = configurations("compare", "--config", "c.yaml")[0]
    assert config["optimizer"]["learning_rate"] == 0.1
    assert config["model"]["truncation"]["keep_probability"] == 0.9


HUGE = [10**9 + 1, 10**20, int("9" * 3000)]
COMPARE = ("compare", "--tasks", "adding", "--methods", "clip")


@pytest.mark.parametrize("number", HUGE)
@pytest.mark.parametrize(
    "option", ["--units", "--layers", "--epochs", "--batch-size", "--length", "-o units"]
)
@pytest.mark.parametrize("command", [("train", "adding"), COMPARE])
def test_absurdly_large_numbers_are_refused(command, option, number):
    given = ["-o", f"units={number}"] if option == "-o units" else [option, number]
    assert "Expected" in refused(*command, *given)


@pytest.mark.parametrize("number", HUGE)
@pytest.mark.parametrize(
    "option", ["--seeds", "--threads", "--workers", "--retries", "--set length"]
)
def test_numbers_of_a_comparison_have_limits(option, number):
    given = ["--set", f"length=5,{number}"] if option == "--set length" else [option, number]
    assert "Expected" in refused(*COMPARE, *given)


def test_other_numbers_have_limits():
    assert "`--sample`" in refused("train", "text", "f", "--sample", 10**7)
    assert "`seed`" in refused("train", "digits", "--seed", 2**63)
    assert "`seeds`" in refused(*COMPARE, "--seeds", f"1,{2**63}")
    assert "50,000" in refused(*COMPARE, "--seeds", "3000", "--set", f"units={axis(1, 21)}")
    assert "GiB" in refused("train", "adding", "--length", 10**8)
    assert "GiB" in refused("train", "digits", "-o", "sizes=[900,400,400]", "-o", "blank=900000000")
    assert "GiB" in refused("train", "adding", "--units", 2**16)
    assert "GiB" in refused("train", "copy_memory", "-o", "symbols=1000000000")
    assert "GiB" in refused(
        "train",
        "adding",
        "--length",
        10**6,
        "-o",
        "sizes=[400,1,1]",
        "--batch-size",
        400,
        "--units",
        10_000,
        "--cell",
        "GRU",
    )


def axis(start, stop):
    return ",".join(map(str, range(start, stop)))


def test_a_worker_refuses_what_does_not_fit_into_its_memory():
    grid = Grid.make("adding", "clip", 1, units=2**16)
    with pytest.raises(ValueError, match=r"a model of 1 × 65536 units: it needs at least \d+ GiB"):
        trial.build(grid.trials()[0].config)


def test_limits_allow_what_is_used():
    assert limits.integer("seed", 0, least=0) == 0
    for name, value in {"units": 4096, "layers": 16, "epochs": 100_000, "trials": 5_000}.items():
        assert limits.integer(name, value) == value
    with pytest.raises(ValueError, match="positive integer"):
        limits.integer("units", True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "units=3,4"], "has 2 values, but a run takes one"),
        (["-o", "units=3", "-o", "units=4"], "given twice"),
        (["--logdir", "x", "--resume", "--checkpoint", "best"], "cannot be combined"),
        (["--units", "3", "-o", "units=3"], "given twice"),
        (["--method", "clp"], "Unknown method: 'clp' (did you mean 'clip'?)"),
        (["--method", "orthogonal", "--recurrent-initializer", "zeros"], "use one of them"),
        (["--optimizer", "adm"], "Unknown optimizer: 'adm'"),
        (["-o", "drpout=0.1"], "did you mean 'dropout'?"),
        (["--truncation", "{name: windowed}"], "length"),
        (["--truncation", "artbpp"], "`--truncation`"),
        (["-o", "path=/dev/zero"], "path"),
    ],
)
def test_what_train_refuses(arguments, message):
    assert message in refused("train", "adding", *arguments)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "."])
def test_devices_and_directories_are_no_files(path):
    assert "Cannot read" in refused("train", "text", path)
    assert "Cannot read" in refused("compare", "--config", path)
    assert "Cannot read" in refused(
        "compare", "--tasks", "text", "--methods", "clip", "--set", f"text.path={path}"
    )


def test_compare_without_tasks_or_methods_names_option_and_choice():
    message = refused("compare")
    assert "--tasks" in message and all(name in message for name in tasks.names())
    message = refused("compare", "--tasks", "adding")
    assert "--methods" in message and "orthogonal" in message


def test_warnings_are_sentences(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "warns.py").write_text(
        "import logging, warnings\n"
        "warnings.warn('this is\\nold')\n"
        "logging.getLogger('kbptt').warning('a step was skipped')\n"
        "logging.getLogger('tensorflow').warning('5 out of the last 5 calls …')\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = CliRunner().invoke(app, ["train", "nope", "--import", "warns"])
    first, second, third, *rest = result.stderr.splitlines()
    assert (first, second) == ("Warning: this is", "old")
    assert third == "Warning: a step was skipped"
    assert len(rest) == 1 and rest[0].startswith("Error: Unknown task")


@mock.patch.dict(tasks.registry.factories)
def test_an_unexpected_error_is_a_sentence(monkeypatch):
    main = importlib.import_module("kbptt.cli.main")

    @tasks.register("mistaken")
    class Mistaken(tasks.Task):
        baseline, outputs = 0.5, tasks.Outputs(2)

        def __init__(self):
            super().__init__(4, (8, 8, 8))

        def sample(self, generator, count):
            return {}["absent"]

    result = CliRunner().invoke(app, ["train", "mistaken"])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "Error: KeyError: 'absent' (test_cli_options.py, line" in result.stderr
    monkeypatch.setenv(main.TRACEBACK, "1")
    assert isinstance(CliRunner().invoke(app, ["train", "mistaken"]).exception, KeyError)


def test_train_prints_what_it_forecasts(tmp_path):
    rows = "".join(f"{i % 7},{i % 5 * 10}\n" for i in range(300))
    (tmp_path / "f.csv").write_text("load,price\n" + rows)
    arguments = ["train", "csv", "f.csv", "--length", "8", "--epochs", "1", "--units", "2"]
    result = CliRunner().invoke(app, [*arguments, "--cell", "SimpleRNN"])
    assert result.exit_code == 0, result.output
    note = " ".join(result.stdout.split())
    assert "Forecasts 'price', the next row, from load, price. The unit of the" in note
    assert "its standard deviation in the training part, 14.1" in note
    assert json.loads((tmp_path / "runs/csv-1/run.json").read_text())["path"] == "f.csv"
