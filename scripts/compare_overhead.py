"""The overhead of `kbptt compare` over its trials, and the gain of a second worker.

    python scripts/compare_overhead.py                         # trials of 20 s: 7 minutes a round
    python scripts/compare_overhead.py --trials 2 --seconds 1  # a quick check

The same trials, each pinned to one thread, run four times in every round:

* plain: one after the other in one process, without scheduler, ledger and report;
* twice plain: half of them in each of two such processes at once;
* one worker and two workers: the command `kbptt compare`, from start to end.

Overhead is one worker over plain, gain is one worker over two, and the most that the machine allows
is plain over twice plain, because its cores share memory and heat. Quote only medians, and only
from an otherwise idle machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kbptt.ablation import Grid, Ledger, trial

GRID = {
    "tasks": ["adding"],
    "methods": ["baseline", "clip"],
    "threads": 1,
    "set": {"length": 100, "sizes": [[1000, 200, 200]]},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=6, help="an even number; default: 6")
    parser.add_argument("--seconds", type=float, default=20.0, help="of one trial; default: 20")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        configs = json.load(sys.stdin)
        print(json.dumps([trial.execute(config)["cost"]["seconds"] for config in configs]))
        return

    epochs = epochs_of(arguments.seconds)
    grid = {**GRID, "seeds": max(1, arguments.trials // 2), "epochs": epochs}
    count = len(Grid.make(**grid).trials())
    print(f"{count} trials of about {arguments.seconds:g} s ({epochs} epochs), one thread each")
    print(
        f"{'round':>6}{'plain':>10}{'2 x plain':>10}{'1 worker':>10}{'2 workers':>10}"
        f"{'overhead':>10}{'gain':>8}{'machine':>9}"
    )
    overheads, gains, machine = [], [], []
    for number in range(1, arguments.rounds + 1):
        plain, twice = run_plain(grid)[0], run_plain(grid, processes=2)[0]
        one, two = run_compare(grid, 1), run_compare(grid, 2)
        overheads.append(one / plain - 1)
        gains.append(one / two)
        machine.append(plain / twice)
        times = "".join(f"{seconds:>8.1f} s" for seconds in (plain, twice, one, two))
        ratios = f"{overheads[-1]:>+10.1%}{gains[-1]:>7.2f}x{machine[-1]:>8.2f}x"
        print(f"{number:>6}{times}{ratios}", flush=True)
    median = statistics.median
    print(
        f"median overhead {median(overheads):+.1%}, median gain {median(gains):.2f}x "
        f"where the machine gives {median(machine):.2f}x"
    )


def epochs_of(seconds: float) -> int:
    """How many epochs a trial of this length has, extrapolated from two shorter ones."""
    few, more = (run_plain({**GRID, "methods": ["clip"], "epochs": e})[1][0] for e in (2, 6))
    return max(1, 2 + round((seconds - few) / ((more - few) / 4)))


def run_plain(grid: dict, processes: int = 1) -> tuple[float, list[float]]:
    """Seconds of processes that run the trials one after the other, and of each trial."""
    configs = [trial.config for trial in Grid.make(**grid).trials()]
    started = time.perf_counter()
    running = [
        subprocess.Popen(
            [sys.executable, __file__, "--plain"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # as Dask sets it for its workers
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for number, process in enumerate(running):
        process.stdin.write(json.dumps(configs[number::processes]))
        process.stdin.close()
    seconds = [one for process in running for one in json.loads(process.stdout.read())]
    if any(process.wait() for process in running):
        sys.exit("Error: a plain process failed.")
    return time.perf_counter() - started, seconds


def run_compare(grid: dict, workers: int) -> float:
    """Seconds of the command `kbptt compare`."""
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "grid.yaml")
        config.write_text(json.dumps(grid))  # JSON is YAML
        options = ("--config", config, "--logdir", directory, "--workers", str(workers))
        started = time.perf_counter()
        command = [sys.executable, "-m", "kbptt", "compare", *options]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds = time.perf_counter() - started
        with Ledger(directory, read_only=True) as ledger:
            done = [t.config for t in ledger.trials("done")]
    if done != [trial.config for trial in Grid.make(**grid).trials()]:
        sys.exit("Error: kbptt compare did not run the same trials.")
    return seconds


if __name__ == "__main__":
    main()
