"""How long the command line takes to answer: help, lists, first output, and every kind of mistake.

    python scripts/benchmark_cli.py --rounds 5

Wall times of whole processes, all of them in turn in every round; medians. Beside them the time on
a processor, which depends less on what else the machine does. The first output of `train` and
`compare` is the first byte on a terminal.
"""

import argparse
import contextlib
import os
import pathlib
import pty
import resource
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ADDING = ("--tasks", "adding", "--methods", "clip")
ANSWERS = {
    "--version": ("--version",),
    "--help": ("--help",),
    "train --help": ("train", "--help"),
    "compare --help": ("compare", "--help"),
    "tasks": ("tasks",),
    "tasks adding": ("tasks", "adding"),
    "methods": ("methods",),
    "methods orthogonal+clip": ("methods", "orthogonal+clip"),
}
MISTAKES = {
    "no such command": ("trian",),
    "no such option": ("train", "adding", "--unitz", "3"),
    "no value of the type": ("train", "adding", "--units", "many"),
    "no such task": ("train", "addin"),
    "no such cell": ("train", "adding", "--cell", "LTSM"),
    "no such method": ("train", "adding", "--method", "clop"),
    "no such option of the task": ("train", "adding", "-o", "lenght=3"),
    "value out of range": ("train", "adding", "--units", "0"),
    "missing file": ("train", "text", "missing.txt"),
    "unreadable file": ("train", "csv", "words.txt"),
    "no such initializer": ("train", "adding", "--recurrent-initializer", "orthogonl"),
    "no such activation": ("train", "adding", "-o", "activation=tahn"),
    "no such normalization": ("train", "adding", "--normalization", "leyer"),
    "no such optimizer": ("train", "adding", "--optimizer", "adamm"),
    "no such argument of it": ("train", "adding", "-o", "optimizer.momentm=0.9"),
    "wrong type of an argument": ("train", "adding", "-o", "use_bias=3"),
    "argument out of range": ("train", "adding", "-o", "dropout=2"),
    "wrong truncation": ("train", "adding", "--truncation", "{name: windowed, lenght: 8}"),
    "methods exclude each other": ("train", "adding", "--method", "henaff+cayley"),
    "method for another cell": ("train", "adding", "--method", "irnn"),
    "resume without a directory": ("train", "adding", "--resume"),
    "directory holds a run": ("train", "adding", "--logdir", "taken"),
    "compare: no tasks": ("compare",),
    "compare: no such method": ("compare", "--tasks", "adding", "--methods", "clop"),
    "compare: no such optimizer": ("compare", *ADDING, "--optimizer", "adamm"),
    "compare: no such activation": ("compare", *ADDING, "--set", "activation=tanh,rleu"),
    "compare: too many trials": ("compare", *ADDING, "--seeds", "9999999"),
    "compare: no such file": ("compare", "--config", "missing.yaml"),
}
# Found by building a layer or making a step, which needs TensorFlow.
LATE = {
    "argument that a layer judges": ("train", "adding", "-o", "gradient_clip=-1"),
    "argument that a step judges": ("train", "adding", "-o", "optimizer.clipnorm=much"),
    "more memory than there is": ("train", "adding", "--units", "60000"),
}
FIRST_OUTPUT = {
    "train": ("train", "adding", "--epochs", "1"),
    "train a file": ("train", "text", "long.txt", "--epochs", "1"),
    "compare": ("compare", *ADDING, "--epochs", "1"),
}


def finish(command: list[str], expected: int) -> tuple[float, float]:
    """Seconds until a process ends, and those on a processor."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True)
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != expected:
        raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stderr.decode()}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_byte(command: list[str]) -> tuple[float, float]:
    """Seconds until a process shows something on its terminal; it is then ended."""
    ours, theirs = pty.openpty()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    select.select([ours], [], [])
    took = time.perf_counter() - begun
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    os.close(ours)
    os.close(theirs)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--late", action="store_true", help="also mistakes that are found late")
    arguments = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[1]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    os.environ["COLUMNS"] = "80"
    groups = {
        "answers": (ANSWERS, lambda command: finish(command, 0)),
        "mistakes": (MISTAKES, lambda command: finish(command, 2)),
        "first output": (FIRST_OUTPUT, first_byte),
    }
    if arguments.late:
        groups["mistakes that TensorFlow finds"] = (LATE, lambda command: finish(command, 2))
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        pathlib.Path("words.txt").write_text("no numbers\nat all\n" * 99)
        pathlib.Path("long.txt").write_text("The cat sat on the mat. " * 400_000)
        pathlib.Path("taken").mkdir()
        pathlib.Path("taken", "run.json").write_text("{}")
        for _ in range(arguments.rounds):
            for group, (commands, measure) in groups.items():
                for name, command in commands.items():
                    took = measure([sys.executable, "-m", "kbptt", *command])
                    times.setdefault((group, name), []).append(took)
    group = None
    for (one, name), seconds in times.items():
        if one != group:
            group = one
            print(f"\n{group}")
        wall, processor = (statistics.median(part) for part in zip(*seconds, strict=True))
        print(f"  {name:30} {wall:6.2f} s   (processor {processor:.2f} s)")


if __name__ == "__main__":
    main()
