"""The command `kbptt` inside the test's process."""

import time

from typer.testing import CliRunner

from kbptt.cli.main import app


def kbptt(*arguments):
    """Runs the command and returns Click's result."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def refused(*arguments):
    """Runs the command, checks that it is refused with one sentence, and returns the sentence."""
    begun = time.process_time()
    result = kbptt(*arguments)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert len(result.stderr) < 700
    assert time.process_time() - begun < 20  # a typing error must not build for minutes
    return result.stderr
