"""The command line: `kbptt train`, `kbptt compare`, `kbptt report`."""


def main() -> None:
    """Runs the command line; the entry point of the command `kbptt`.

    Until there is anything to clean up, Ctrl-C ends the process at once: raised in the middle of an
    import, an exception may turn into any other.
    """
    import os
    import signal
    import threading

    def end(*_):
        os.write(2, b"Interrupted.\n")
        os._exit(130)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, end)
    from kbptt.cli.main import main as run

    run()
