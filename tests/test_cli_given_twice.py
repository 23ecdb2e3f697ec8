"""One setting under two names, or one name twice, is refused by `train` and `compare` alike."""

import pytest
from command_line import refused
from typer.testing import CliRunner

from kbptt.ablation import options
from kbptt.cli import train as command
from kbptt.cli.main import app
from kbptt.cli.options import Given

TRAIN = ["train", "adding"]
COMPARE = ["compare", "--tasks", "adding,multiplication", "--methods", "clip"]
BOTH = [
    (["-o", "task.length=20", "-o", "length=25"], "-o task.length and -o length"),
    (["-o", "adding.length=30", "-o", "length=20"], "-o adding.length and -o length"),
    (["-o", "length=20", "-o", "adding.length=30"], "-o length and -o adding.length"),
    (["--length", "25", "-o", "adding.length=20"], "--length and -o adding.length"),
    (["-o", "units=8", "-o", "model.units=9"], "-o units and -o model.units"),
    (["--units", "8", "-o", "model.units=8"], "--units and -o model.units"),
    (["--optimizer", "sgd", "-o", "optimizer.name=adam"], "--optimizer and -o optimizer.name"),
    (["-o", "layer.dropout=0.1", "-o", "dropout=0.1"], "-o layer.dropout and -o dropout"),
    (["-o", "dropout=0.1", "-o", "dropout=0.2"], "-o dropout is given twice"),
    (["--units", "8", "--units", "9"], "--units is given twice"),
    (["--learning-rate", "1", "--learning-rate", "1"], "--learning-rate is given twice"),
    (["--recurrent-initializer", "zeros"] * 2, "--recurrent-initializer is given twice"),
    (["--logdir", "a", "--logdir", "b"], "--logdir is given twice"),
]


pytestmark = pytest.mark.usefixtures("working_directory")


@pytest.mark.parametrize(("arguments", "names"), BOTH)
@pytest.mark.parametrize("begin", [TRAIN, COMPARE])
def test_both_commands_refuse_a_setting_given_twice(begin, arguments, names):
    message = refused(*begin, *arguments)
    assert names in message and "given twice" in message


@pytest.mark.parametrize("name", ["path", "task.path", "text.path"])
def test_a_file_and_its_option_together_are_refused(name):
    message = refused("train", "text", "t.txt", "-o", f"{name}=one.txt")
    assert "the file 't.txt' and -o path are the same" in message


@pytest.mark.parametrize("arguments", [["--seed", "1"], ["--method", "clip"], ["--clip", "1"]])
def test_other_options_of_train_are_refused_twice(arguments):
    assert f"{arguments[0]} is given twice" in refused(*TRAIN, *arguments, *arguments)


@pytest.mark.parametrize("arguments", [["--tasks", "adding"], ["--seeds", "1"], ["--workers", "1"]])
def test_other_options_of_compare_are_refused_twice(arguments):
    begin = ["compare", "--methods", "clip"]
    assert f"{arguments[0]} is given twice" in refused(*begin, *arguments, *arguments)
    assert "--reference is given twice" in refused("report", "x", *["--reference", "a"] * 2)


def configuration(task, assignments, **settings):
    given = Given(settings, assignments, [])
    return command.configuration(task, None, given, "baseline", 0)[0].trials()[0].config


@pytest.mark.parametrize("name", ["path", "task.path", "text.path"])
def test_a_file_can_be_given_as_an_option(name, tmp_path):
    (tmp_path / "t.txt").write_text("abcdefgh" * 100)
    config = configuration("text", [f"{name}=t.txt"])
    assert config["task"]["options"] == {"path": "t.txt"}


def test_options_with_one_name_can_differ():
    """The width of the network and that of a task that has one too; an option for each task."""
    config = configuration("influence_balancing", ["units=12"], units=5)
    assert (config["task"]["options"], config["model"]["units"]) == ({"units": 12}, 5)
    names = ["adding.length", "multiplication.length", "layer.length", "optimizer.length"]
    options.refuse_twice((name, name) for name in names)
    config = configuration("adding", ["layer.recurrent_initializer=zeros"])
    assert config["model"]["layer"]["recurrent_initializer"] == "zeros"


def test_what_is_given_once_reaches_the_command(monkeypatch):
    """The value itself, of the type that the command declares, and its own defaults."""
    found = []
    monkeypatch.setattr(command, "configuration", lambda *given: found.extend(given) or 1 / 0)
    CliRunner().invoke(app, [*TRAIN, "--units", "8", "--learning-rate", "1", "--seed", "3"])
    *_, given, method, seed = found
    assert (method, seed) == ("baseline", 3)
    assert given.flags == {"units": 8, "learning_rate": 1}
    help_text = " ".join(CliRunner().invoke(app, ["train", "--help"]).output.split())
    assert "[default: 300]" in help_text and "list[" not in help_text
