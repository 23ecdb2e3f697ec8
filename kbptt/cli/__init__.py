"""The command line: `kbptt train`, `kbptt compare`, `kbptt report`."""

from kbptt.cli.main import main

__all__ = ["main"]
