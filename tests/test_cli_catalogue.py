"""`kbptt tasks`, `kbptt methods`, the help on 80 columns, and what a shell completes."""

import os
import re
import subprocess
import sys

import pytest
import typer
from command_line import kbptt, refused
from typer.testing import CliRunner

from kbptt import methods, tasks
from kbptt.cli.main import COMMANDS, app

MINE = '''
import kbptt

@kbptt.tasks.register("mine_parity")
class Parity(kbptt.tasks.Task):
    """Parity of bits.

    Long ago.

    Args:
        length: Integer. Bits of a
            sequence. Defaults to `5`.
    """

    def __init__(self, length=5, other=None):
        pass

kbptt.methods.register(kbptt.methods.Method("mine_first", "does nothing"))
'''


@pytest.fixture
def mine(working_directory, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(tasks.registry, "factories", dict(tasks.registry.factories))
    monkeypatch.setattr(methods.registry, "registered", dict(methods.registry.registered))
    monkeypatch.delitem(sys.modules, "mine_lists", raising=False)
    (working_directory / "mine_lists.py").write_text(MINE)


def lines(*arguments):
    result = kbptt(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


@pytest.mark.parametrize(("command", "names"), [("tasks", tasks.names), ("methods", methods.names)])
def test_every_name_has_a_line(command, names):
    found = [re.split("  +", line) for line in lines(command)]
    listed = {row[0]: row[1] for row in found if len(row) == 2}
    assert list(listed) == names() and all(len(text) > 10 for text in listed.values())
    if command == "tasks":
        assert max(map(len, lines(command))) <= 80


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_in_detail_has_every_option_with_default_and_meaning(name):
    found = {row[0]: row[1:] for row in (re.split("  +", line) for line in lines("tasks", name))}
    for option, default in tasks.options(name).items():
        shown, meaning = found[option]
        assert len(meaning) > 8 and not meaning.endswith("Defaults to")
        assert (shown == "required") == (option == "path" and name != "mnist")
        if isinstance(default, int) and not isinstance(default, bool):
            assert shown == str(default)


def test_a_method_in_detail_shows_what_it_sets():
    text = "\n".join(lines("methods", "clip+chrono"))
    assert "kbptt.callbacks.ClipByGlobalNorm(threshold=1.0)" in text
    assert "max_timescale=<timesteps>" in text and re.search(r"cells +LSTM, GRU", text)
    assert "recurrent_kernel" not in text and "Gradient clipped" in text
    assert re.search(r"^nothing$", "\n".join(lines("methods", "baseline")), re.MULTILINE)
    assert "(did you mean 'clip'?)" in refused("methods", "clop")
    assert "(did you mean 'adding'?)" in refused("tasks", "addin")
    assert "see `kbptt tasks`" in refused("tasks", "addin")


def test_modules_of_the_user_are_listed_too(mine):
    assert "mine_parity          Parity of bits." in lines("tasks", "--import", "mine_lists")
    detail = lines("tasks", "mine_parity", "--import", "mine_lists")
    assert "length  5     Integer. Bits of a sequence." in detail and "other   none" in detail
    assert "mine_first          does nothing" in lines("methods", "--import", "mine_lists")


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_the_help_fits_80_columns_with_nothing_cut_off(command):
    arguments = [command, "--help"] if command else ["--help"]
    shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    words = set(re.split(r"[\s,│]+", shown))
    found = typer.main.get_command(app)
    for parameter in (found.commands[command] if command else found).params:
        assert {*parameter.opts, *parameter.secondary_opts} - {parameter.name} <= words


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """A bash that has the command and its completion."""
    folder = tmp_path_factory.mktemp("bash")
    (folder / "mine_lists.py").write_text(MINE)
    command = folder / "kbptt"
    code = (
        "import sys; from kbptt.cli import main\n"
        "try: main()\n"
        "finally: {'keras', 'tensorflow'} & sys.modules.keys() and print('keras!')\n"
    )
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "$CODE" "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "CODE": code}
    environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"  # the tests' parent is Python

    def complete(*lines):
        script = 'eval "$(kbptt --show-completion bash)"\n'
        for line in lines:
            words = line.split(" ")
            quoted = " ".join(f"'{word}'" for word in words)
            script += f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n"
            script += 'COMPREPLY=(); _kbptt_completion kbptt; echo "${COMPREPLY[*]}"\n'
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, env=environment, cwd=folder
        )
        assert done.stderr == ""
        return [line.split() for line in done.stdout.splitlines()]

    return complete


def test_bash_completes_names_without_importing_keras(shell):
    found = shell(
        "kbptt tr",
        "kbptt train ad",
        "kbptt train adding --method clip_v",
        "kbptt train adding --method orthogonal+autoc",
        "kbptt compare --methods baseline,layer",
        "kbptt compare --tasks adding,ad",
        "kbptt train adding --cell S",
        "kbptt train adding --recurrent-initializer he",
        "kbptt train adding --optimizer adamw",
        "kbptt train digits -o bla",
        "kbptt train --import mine_lists mine_",
        "kbptt methods irn",
    )
    assert found == [
        ["train"],
        ["adding"],
        ["clip_value"],
        ["orthogonal+autoclip"],
        ["baseline,layernorm"],
        [],
        ["SimpleRNN"],
        ["henaff", "he_normal", "he_uniform"],
        ["adamw"],
        ["blank="],
        ["mine_parity"],
        ["irnn"],
    ]
