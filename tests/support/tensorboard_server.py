"""The `tensorboard` command as a user starts it."""

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def serve(
    logdir: Path, *arguments: str, data: bool = True
) -> Iterator[tuple[str, subprocess.Popen]]:
    """Yields (address, process), once it has found data of the tab (unless there are none)."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
    command += ["--host", "127.0.0.1", "--port", "0", "--reload_interval", "1", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S*", line):
                break
        else:
            raise RuntimeError("TensorBoard did not start: " + "".join(said))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        while data and not _active(found[0]):
            time.sleep(0.1)
        yield found[0], process
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def _active(address: str) -> bool:
    # Not by the list of plugins: at that the tab begins to read what it will show.
    with urllib.request.urlopen(f"{address}data/plugin/gradient_flow/tags") as response:
        return bool(json.load(response))
