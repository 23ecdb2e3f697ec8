"""The cost of `kbptt.ablation` for large studies, measured with trials that do nothing.

    python scripts/benchmark_study.py                  # 500 trials
    python scripts/benchmark_study.py --trials 5000

Prints, each measured in a separate process,

* start-up: from the call of `kbptt.ablation.compare` to the first trial,
* per trial: from then to the end of the last trial, divided by the number of trials (with the live
  table, as in a terminal); both also as processor time of the planning process, which depends less
  on the machine's other load, and the processor time of all workers,
* the memory of the planning process after a tenth of the trials and after all of them, and
* time and peak memory of the report, with the sizes of its files.

Shapes: `seeds` (five methods), `methods` (five seeds, one arm for each number of units) and `tasks`
(five methods, five seeds, one task for each length).
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPES = ("seeds", "methods", "tasks")


def trial(config: dict) -> dict:
    """A trial without training: a score that depends on method and seed, and a short curve."""
    import random

    rng = random.Random(f"{config['method']['name']} {config['model']['units']} {config['seed']}")
    return {
        "status": "ok",
        "metric": "accuracy",
        "mode": "max",
        "baseline": 0.25,
        "success_threshold": 0.7,
        "score": 0.6 + 0.1 * rng.gauss(0, 1),
        "curve": {"validation": [rng.random() for _ in range(10)]},
    }


def grid(shape: str, trials: int) -> dict:
    """Arguments of `kbptt.ablation.compare` for about that many trials."""
    arguments = {"tasks": "adding", "seeds": 5, "trial": "benchmark_study:trial"}
    methods = "baseline,clip,orthogonal,layernorm,orthogonal+clip"
    if shape == "seeds":
        return {**arguments, "methods": methods, "seeds": max(1, trials // 5)}
    if shape == "methods":
        units = list(range(1, max(2, trials // 5) + 1))
        return {**arguments, "methods": "clip", "set": {"units": units}}
    lengths = list(range(10, max(2, trials // 25) + 10))
    return {**arguments, "methods": methods, "set": {"length": lengths}}


def run(shape: str, trials: int, logdir: str, workers: int) -> dict:
    """Plans and runs the trials as `kbptt.ablation.compare` does, and times it."""
    import psutil
    import rich.console

    from kbptt.ablation import Grid, progress, runner

    process, moments, memory = psutil.Process(), [], []
    console = rich.console.Console(file=io.StringIO(), force_terminal=True, width=120)
    started, worked = time.perf_counter(), time.process_time()
    a_grid = Grid.make(**grid(shape, trials))
    with runner.open_ledger(a_grid, logdir) as ledger:
        count = sum(ledger.counts().values())
        with progress.Progress(ledger, console=console) as shown:

            def on_event(event: runner.Event) -> None:
                shown.event(event)
                moments.append((time.perf_counter(), time.process_time()))
                memory.append(process.memory_info().rss)
                console.file.seek(0)  # discards the output
                console.file.truncate()

            runner.run(ledger, workers=workers, on_event=on_event, on_wait=shown.refresh)
    workers_worked = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "trials": count,
        "start_up": [moments[0][0] - started, moments[0][1] - worked],
        "per_trial": [
            (now - first) / count
            for now, first in zip(
                (time.perf_counter(), time.process_time()), moments[0], strict=True
            )
        ],
        "workers": workers_worked.ru_utime + workers_worked.ru_stime,
        "memory_early": memory[len(memory) // 10],
        "memory_end": memory[-1],
    }


def report(logdir: str) -> dict:
    """Writes the report in this process, and times it."""
    from kbptt.ablation import Report

    started, worked = time.perf_counter(), time.process_time()
    paths = Report(logdir).write()
    return {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time() - worked,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "sizes": {path.name: path.stat().st_size for path in paths},
    }


def measure(*arguments: str) -> dict:
    """Runs this file in a new process and parses the JSON that it prints."""
    command = [sys.executable, __file__, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--shape", choices=SHAPES, default="seeds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    given = ("--shape", arguments.shape, "--trials", str(arguments.trials))
    if arguments.part:
        part, logdir = arguments.part
        if part == "run":
            found = run(arguments.shape, arguments.trials, logdir, arguments.workers)
        else:
            found = report(logdir)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as logdir:
        workers = ("--workers", str(arguments.workers))
        ran = measure(*given, *workers, "--part", "run", logdir)
        wrote = measure("--part", "report", logdir)
    mib = 2**20
    print(f"{ran['trials']} trials, shape {arguments.shape}, {arguments.workers} workers")
    wall, processor = ran["start_up"]
    print(f"start-up            {wall:8.1f} s ({processor:.1f} s of processor time)")
    wall, processor = (1000 * seconds for seconds in ran["per_trial"])
    print(f"per trial           {wall:8.1f} ms ({processor:.1f} ms of processor time)")
    print(f"workers             {ran['workers']:8.1f} s of processor time")
    early, end = ran["memory_early"] / mib, ran["memory_end"] / mib
    print(f"memory, planning    {early:8.0f} MiB after a tenth, {end:.0f} MiB at the end")
    print(
        f"report              {wrote['seconds']:8.1f} s ({wrote['processor']:.1f} s of processor "
        f"time), {wrote['peak'] / mib:.0f} MiB at most"
    )
    for name, size in wrote["sizes"].items():
        print(f"{name:<20}{size / mib:8.2f} MiB")


if __name__ == "__main__":
    main()
