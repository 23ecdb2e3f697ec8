"""The command line: `kbptt train`, `kbptt compare`, `kbptt report`."""

import sys

try:
    from kbptt.cli.main import main
except KeyboardInterrupt:  # so early that `main`, which handles it, is not there yet
    print("Interrupted.", file=sys.stderr)
    sys.exit(130)

__all__ = ["main"]
