"""Wrong invocations of every command: an exit code that says so and a message of one screen."""

import importlib
import os
import random
import unicodedata

import pytest
import typer
from typer.testing import CliRunner

from kbptt import methods, tasks
from kbptt.ablation import runner, trial
from kbptt.cli import training

main = importlib.import_module("kbptt.cli.main")
LINES, COLUMNS = 24, 80
NUMBERS = ["-1", "0", "1.5", "nan", "inf", "-inf", "1e309", "1e-400", "0x10", "9" * 25, "9" * 5000]
NUMBERS += ["1_0", "٣", "1e9", "2147483648", "99999999999", "--", "-", "True", "none", " 7", "1,2"]
WORDS = ["", " ", "=", ",", ",,,", "+", "a+a", "clip+clip", "x" * 100_000, "word " * 20_000]
WORDS += [
    "\x1b[2J\x1b]0;title\x07",
    "\x00",
    "a\nb\n" * 500,
    "\u202eevil",
    "𝔘\u0301" * 300,
    "\udcff",
]
WORDS += ["%s%n%d", "${HOME}", "$(true)", "../..", "~", "'", '"', "\\", "[red]x[/red]", "a:b:c"]
YAML = ["[" * 5000, "{" * 5000, "[[1]", "{a: 1, a: 2}", "{[1]: 2}", "&a [*a]", "[&a [1], *a, *a]"]
YAML += [
    "{name: windowed, length: 0}",
    "{name: nothing}",
    "{class_name: X}",
    "!!python/object:os []",
]
YAML += ["[!!binary x]", "[2020-01-01]", "{name: windowed, length: [1]}", "[.nan, .inf]", "{?: 1}"]
YAML += [f"[{'9' * 5000}]", "[" + ", ".join(["1"] * 20_000) + "]"]
NAMES = [
    "units",
    "length",
    "sizes",
    "truncation",
    "path",
    "layer.x",
    "optimizer.y",
    "adding.length",
]
NAMES += ["task.length", "digits.blank", "threads", "name", "cell", ".", "x.", "seed", "text.path"]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Names of files that cannot be used, in a new working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directory").mkdir()
    (tmp_path / "empty").write_text("")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "unreadable").write_text("x: 1")
    (tmp_path / "unreadable").chmod(0)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("link")
    aliases = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))
    (tmp_path / "bomb.yaml").write_text(f"a0: &a0 [x]\n{aliases}\n")
    (tmp_path / "deep.yaml").write_text("tasks: " + "[" * 20_000)
    (tmp_path / "wrong.yaml").write_text(
        "tasks: {adding: 3}\nmethods: [[1]]\nseeds: {a: 1}\nset: 5"
    )
    (tmp_path / "types.yaml").write_text(
        "tasks: [adding]\nmethods: [clip]\nseeds: 1e99\nunits: [x]"
    )
    (tmp_path / "set.yaml").write_text("tasks: [adding]\nmethods: [clip]\nset: {1: 2, ~: [3]}")
    names = [path.name for path in tmp_path.iterdir()]
    return [*names, "missing", "empty/below", "/dev/zero", "/dev/null", "/", "x" * 5000, "a\x00b"]


def commands():
    found = typer.main.get_command(main.app).commands
    return {name: [p for p in command.params if p.opts] for name, command in found.items()}


def invocation(chance, command, parameters, places):
    """A command line with some wrong arguments, the rest possibly right."""
    anything = lambda: chance.choice(chance.choice([NUMBERS, WORDS, YAML, places]))  # noqa: E731
    arguments = [command]
    if command == "train":
        arguments += [chance.choice([*tasks.names(), *tasks.names(), anything()])]
        arguments += [anything()] * chance.choice([0, 0, 1, 2])
    elif command == "report":
        arguments += [anything()] * chance.choice([0, 1, 1, 1, 2])
    else:
        arguments += ["--tasks", chance.choice(["adding", "digits", "adding,digits", anything()])]
        arguments += ["--methods", chance.choice([*methods.names(), "clip,baseline", anything()])]
    options = [p for p in parameters if p.param_type_name == "option"]
    for parameter in chance.sample(options, min(len(options), chance.randint(1, 3))):
        arguments.append(chance.choice(parameter.opts))
        if chance.random() < 0.3 and parameter.multiple:
            arguments.append(f"{chance.choice(NAMES)}={anything()}")
        elif not parameter.is_flag or chance.random() < 0.1:
            arguments.append(anything())
    if chance.random() < 0.05:
        arguments.append(f"--{anything()}")
    return arguments


def problem_of(result):
    """What is not as it should be about the end of a command."""
    if not isinstance(result.exception, SystemExit | None):
        return repr(result.exception)[:500]
    if result.exit_code not in (0, 1, 2):
        return f"exit code {result.exit_code}"
    if not result.exit_code or "Usage:" in result.output:
        return None
    lines = result.output.splitlines()
    if "Error: " not in result.output or "Traceback" in result.output:
        return "no message"
    if sum(max(1, -(-len(line) // COLUMNS)) for line in lines) > LINES:
        return "longer than a screen"
    hidden = {c for c in result.output if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - {"\n"}
    return f"control characters {hidden!a}" if hidden else None


def test_wrong_invocations_end_with_a_message(places, monkeypatch):
    """None of them is to train: what would be a run ends where training would begin."""

    def would_run(*args, **kwargs):
        raise typer.Exit(0)

    monkeypatch.setenv(main.TRACEBACK, "1")  # an error that nobody foresaw comes through
    monkeypatch.setattr(runner, "run", would_run)
    monkeypatch.setattr(training, "run", would_run)
    # TensorFlow may run here already, with as many threads as it likes.
    monkeypatch.setattr(trial, "set_threads", lambda threads: None)
    chance, codes, problems = random.Random(16), [], []
    found = commands()
    for number in range(300):
        command = chance.choice(["train", "train", "compare", "compare", "report", "nothing"])
        arguments = invocation(chance, command, found.get(command, found["report"]), places)
        logdir = [] if command == "report" or chance.random() < 0.1 else ["--logdir", f"l{number}"]
        result = CliRunner().invoke(main.app, [*arguments, *logdir])
        if problem := problem_of(result):
            shown = [a if len(a) < 60 else a[:60] + "…" for a in arguments]
            problems.append(f"{number}: {shown!a}: {problem}\n{result.output[:500]!a}")
        codes.append(result.exit_code)
    assert not problems, "\n".join(problems)
    assert codes.count(2) > 240  # nearly all of them are wrong


@pytest.mark.parametrize("size", [10, 200, 5_000, 1_000_000])
@pytest.mark.parametrize("character", ["x", "x ", "\x1b", "語", "a\n"])
def test_a_message_fits_on_a_screen(size, character):
    from kbptt.cli.terminal import readable

    text = readable(f"Error: begins. {character * size} ends.")
    assert sum(max(1, -(-len(line) // COLUMNS)) for line in text.splitlines()) <= LINES
    assert text.startswith("Error: begins.") and text.endswith("ends.")
    assert all(c.isprintable() or c == "\n" for c in text)
