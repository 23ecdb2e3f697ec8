"""The same study here and on two machines without a shared file system, compared bit by bit.

    python scripts/scale_out.py                # 8 trials on the adding problem, some minutes
    python scripts/scale_out.py --seeds 1 --epochs 1

The machines are two `dask worker` processes on loopback. Each has directories of its own for work,
home and temporary files, and, where `unshare` may be used (as root, under Linux), a mount namespace
in which the log directory and the other machine's directories are empty: what is not sent does not
get there. Prints the wall time of both runs (starting the processes and importing TensorFlow
included) and what was gathered.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from distributed import Client

from kbptt.ablation import Ledger, compare

MACHINES = ("first", "second")
STUDY = {"tasks": "adding", "methods": "baseline,clip", "length": 50, "sizes": [1000, 200, 200]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    study = {**STUDY, "seeds": arguments.seeds, "epochs": arguments.epochs}

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        started = time.perf_counter()
        compare(**study, logdir=root / "local", workers=len(MACHINES), verbose=False)
        here = time.perf_counter() - started
        logdir = root / "gathered"
        logdir.mkdir()
        started = time.perf_counter()
        with cluster(root, hidden=[root / "local", logdir]) as (address, separation):
            compare(**study, logdir=logdir, scheduler=address, verbose=False)
        there = time.perf_counter() - started
        report(root / "local", logdir, here, there, separation)


def report(local: Path, gathered: Path, here: float, there: float, separation: str) -> None:
    """Prints what both runs took and brought; ends with an error if they differ."""
    expected, found = results(local), results(gathered)
    files = [path for path in gathered.rglob("events.out.tfevents.*") if path.is_file()]
    processes = {path.name.split(".")[-3] for path in files if path.name.endswith(".v2")}
    if found != expected:
        sys.exit("Error: the results differ.")
    if len(files) != len(list(local.rglob("events.out.tfevents.*"))):
        sys.exit("Error: event files are missing.")
    print(f"{len(found)} trials on {len(MACHINES)} workers, {separation}")
    print(f"on this machine       {here:8.1f} s")
    print(f"on two machines       {there:8.1f} s, in {len(processes)} processes")
    size = sum(path.stat().st_size for path in files)
    print(f"gathered              {len(files):8} event files, {size / 2**20:.2f} MiB")
    stored = sum(map(len, found.values()))
    print(f"results               {stored / 2**20:8.2f} MiB, equal bit by bit")


def results(logdir: Path) -> dict[str, str]:
    """The results of all trials as JSON, without what is measured of the machine."""
    with Ledger(logdir, read_only=True) as ledger:
        trials = ledger.trials("done")
    measured = ("cost", "environment")
    return {
        trial.directory: json.dumps(
            {n: v for n, v in (trial.result or {}).items() if n not in measured}
        )
        for trial in trials
    }


@contextlib.contextmanager
def cluster(root: Path, hidden: list[Path]) -> Iterator[tuple[str, str]]:
    """Address of a scheduler with two workers, and how these are kept apart."""
    address_file, separate = root / "scheduler.json", may_unshare()
    processes = [start("scheduler", "--scheduler-file", address_file, "--port", "0", cwd=root)]
    try:
        while not address_file.exists():
            time.sleep(0.05)
        address = json.loads(address_file.read_text())["address"]
        for name in MACHINES:
            directory = root / name
            directory.mkdir()
        for name in MACHINES:
            others = [root / other for other in MACHINES if other != name]
            processes.append(machine(root / name, address, [*hidden, *others] if separate else []))
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(len(MACHINES))
        how = "mount namespaces of their own" if separate else "directories of their own"
        yield address, how
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            process.wait()


def machine(directory: Path, address: str, hidden: list[Path]) -> subprocess.Popen:
    """A worker that has nothing but its directory, and finds nothing in the hidden ones."""
    for name in ("home", "tmp"):
        (directory / name).mkdir()
    own = {"HOME": str(directory / "home"), "TMPDIR": str(directory / "tmp")}
    return start("worker", address, "--nthreads", "1", cwd=directory, hidden=hidden, **own)


def start(name: str, *arguments, cwd: Path, hidden=(), **environment: str) -> subprocess.Popen:
    """Starts `dask NAME …`."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{name}", "--no-dashboard"]
    command += [*map(str, arguments)]
    if name == "scheduler":
        command += ["--host", "127.0.0.1"]
    if hidden:
        mounts = "".join(f"mount -t tmpfs none {shlex.quote(str(path))} && " for path in hidden)
        command = ["unshare", "--mount", "sh", "-c", f"{mounts}exec {shlex.join(command)}"]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def may_unshare() -> bool:
    """Whether a process here can hide a directory from itself alone."""
    if shutil.which("unshare") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        hide = f"mount -t tmpfs none {shlex.quote(folder)}"
        tried = subprocess.run(["unshare", "--mount", "sh", "-c", hide], capture_output=True)
    return tried.returncode == 0


if __name__ == "__main__":
    main()
