"""The command line: `kbptt train`, `kbptt compare`, `kbptt report`."""


def main() -> None:
    """Runs the command line; the entry point of the command `kbptt`.

    As long as there is nothing to clean up, Ctrl-C ends the process at once: an exception that is
    raised in the middle of an import may surface as any other.
    """
    import os
    import signal
    import sys
    import threading

    from kbptt._extras import MissingExtra, optional_imports

    def end(*_):
        os.write(2, b"Interrupted.\n")
        os._exit(130)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, end)
    try:
        with optional_imports():
            from kbptt.cli.main import main as run
    except MissingExtra as error:
        sys.exit(f"Error: {error}")
    run()
