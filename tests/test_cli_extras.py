"""Without an optional dependency, Python and the command line answer with one sentence."""

import subprocess
import sys

import pytest

COMPARE = "import kbptt; kbptt.ablation.compare('adding', 'clip', 1)"
COMMAND = "from kbptt.cli import main; main()"


def without(module, code, *arguments, cwd):
    """Runs `code` in a process where `module` cannot be imported; returns code and stderr."""
    command = [sys.executable, "-c", f"import sys; sys.modules[{module!r}] = None\n{code}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=cwd)
    return done.returncode, done.stderr


def sentence(module, extra):
    return (
        f"This part of kbptt needs '{module}', which is not installed. "
        f"Install it with: pip install 'kbptt[{extra}]'"
    )


@pytest.mark.parametrize(
    ("module", "extra", "code"),
    [
        ("rich", "compare", COMPARE),
        ("jinja2", "compare", COMPARE),
        ("matplotlib", "plot", COMPARE),
        ("sklearn", "compare", "import kbptt; kbptt.tasks.get('digits')"),
    ],
)
def test_python_names_the_extra(module, extra, code, tmp_path):
    returncode, stderr = without(module, code, cwd=tmp_path)
    assert returncode == 1
    assert stderr.splitlines()[-1] == f"kbptt._extras.MissingExtra: {sentence(module, extra)}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("typer", "compare", ["--version"]),
        ("distributed", "compare", ["train", "adding"]),
        ("matplotlib", "plot", ["compare", "--tasks", "adding", "--methods", "clip"]),
        ("sklearn", "compare", ["train", "digits"]),
    ],
)
def test_the_command_names_the_extra(module, extra, arguments, tmp_path):
    expected = (1, f"Error: {sentence(module, extra)}\n")
    assert without(module, COMMAND, *arguments, cwd=tmp_path) == expected


def test_tasks_methods_and_statistics_need_no_extra(tmp_path):
    code = (
        "for name in ('rich', 'typer', 'yaml', 'distributed', 'jinja2', 'matplotlib', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "import kbptt\n"
        "kbptt.tasks.get('adding').data(0); kbptt.methods.get('orthogonal+clip')\n"
        "kbptt.ablation.statistics.mean([[1.0]] * 6); kbptt.ablation.Ledger('.')\n"
    )
    assert without("sklearn", code, cwd=tmp_path)[0] == 0
