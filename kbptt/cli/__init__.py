"""The command line: `kbptt train`, `kbptt compare`, `kbptt report`."""

import signal
import sys

try:
    from kbptt.cli.main import main
except KeyboardInterrupt:  # so early that `main`, which handles it, is not there yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one changes nothing
    print("Interrupted.", file=sys.stderr)
    sys.exit(130)

__all__ = ["main"]
