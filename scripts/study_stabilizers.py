"""Which stabilizers help, where, and how sure: every method at its own learning rate.

    python scripts/study_stabilizers.py                          # everything; interrupt at will
    python scripts/study_stabilizers.py --tasks digits --methods orthogonal,clip
    python scripts/study_stabilizers.py --list                   # the plan, and how far it is
    python scripts/study_stabilizers.py --report                 # the tables of what there is

Two ablations for each task, in LOGDIR/TASK/tuning and LOGDIR/TASK/claim:

1. Tuning: every method at every learning rate of the task's grid, with seeds of its own. The best
   mean of the validation scores decides; the test data are not looked at.
2. Claim: every method at the rate that was chosen for it, with further seeds, judged on test data.

The same command continues where it stopped. Later calls may name further methods; the baseline is
always among them. Trials write no event files. The tables are also in LOGDIR/report.md.
"""

import argparse
import dataclasses
import math
import statistics
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import kbptt
from kbptt.ablation import Ledger, Results, environment
from kbptt.ablation.rows import Trial
from kbptt.ablation.statistics import fewest_seeds, smallest_p
from kbptt.ablation.tables import number, table
from kbptt.ablation.trial import set_up_process

TUNING_SEEDS = (100, 101)  # the claim's are 0, 1, 2, …


@dataclasses.dataclass(frozen=True)
class Study:
    """What one task is studied with."""

    rates: tuple[float, ...]  # ascending
    model: dict[str, Any]  # and its training
    options: dict[str, Any]
    # Beside the baseline. Of methods that are near each other one or two: each further comparison
    # makes Holm's correction stricter, and ten seeds can be significant among at most 25.
    methods: tuple[str, ...]


# Budgets at which the baseline is between failing and solving, so that methods can help or harm.
STUDIES = {
    "digits": Study(
        (1e-4, 3e-4, 1e-3, 3e-3),
        {"cell": "SimpleRNN", "units": 64, "epochs": 12, "batch_size": 32},
        {"permuted": True, "blank": 64},
        (
            *("orthogonal", "exp_kernel", "henaff", "legendre", "polar", "band_0.1"),
            *(
                "layernorm",
                "rmsnorm",
                "omega",
                "orthogonality",
                "norm_stabilizer",
                "ar_tar",
                "flossing",
            ),
            *("zoneout", "recurrent_dropout", "timestep_clip", "timestep_clip_norm"),
            *("clip", "agc", "autoclip", "zclip", "adagc", "stabilizer"),
        ),
    ),
    "adding": Study(
        (3e-3, 1e-2, 3e-2, 1e-1),
        {"cell": "LSTM", "units": 32, "epochs": 8, "batch_size": 8},
        {"length": 300, "sizes": [2000, 200, 500]},
        ("chrono", "uniform_gate", "h_detach", "stabilizer"),
    ),
    "copy_memory": Study(
        (3e-3, 1e-2, 3e-2, 1e-1),
        {"cell": "GRU", "units": 32, "epochs": 6, "batch_size": 16},
        {"lag": 300, "items": 2, "symbols": 4, "sizes": [2000, 200, 500]},
        (
            *("orthogonal", "exp_kernel", "chrono", "uniform_gate", "zoneout"),
            *("recurrent_dropout", "h_detach", "layernorm", "rmsnorm", "flossing"),
            *("clip", "adagc", "stabilizer"),
        ),
    ),
    "text": Study(
        (3e-3, 1e-2, 3e-2, 1e-1),
        {"cell": "LSTM", "units": 64, "epochs": 4, "batch_size": 16},
        {"length": 128, "sizes": [1600, 150, 150]},
        ("layernorm", "zoneout", "recurrent_dropout", "stabilizer"),
    ),
}


def trial(config: dict[str, Any]) -> dict[str, Any]:
    """A trial of `kbptt compare` without what takes time or room and is not asked here.

    That is the gradients by lag, the event files, and the norms that figures are drawn from.
    """
    from kbptt.ablation.training import Training

    threads = config["training"]["threads"]
    set_up_process(threads)  # the time of the imports is no method's
    started = time.process_time()
    training = Training(config)
    with tempfile.TemporaryDirectory() as scratch:
        training.fit(scratch, heatmap_freq=None, lag_data=None)
    result = training.result()
    result["cost"]["processor_seconds"] = time.process_time() - started
    for layer in result["gradient"].values():
        for name in ("start", "end", "record"):
            del layer[name]
    return result | {"environment": environment.describe(threads)}


@dataclasses.dataclass(frozen=True)
class Stages:
    """The two ablations of one task, and the methods that are asked for."""

    task: str
    methods: list[str]
    seeds: int
    logdir: Path

    @property
    def study(self) -> Study:
        return STUDIES[self.task]

    def trials(self, stage: str) -> list[Trial]:
        """The trials of a stage that its ledger has."""
        directory = self.logdir / self.task / stage
        if not (directory / "ledger.sqlite").exists():
            return []
        with Ledger(directory, read_only=True) as ledger:
            return ledger.trials()

    def run(self, workers: int) -> None:
        """Tunes every method, then runs it at the learning rate that was chosen for it."""
        rates = {"learning_rate": list(self.study.rates)}
        self._run("tuning", self.methods, TUNING_SEEDS, workers, rates)
        chosen = self.chosen()
        arms = [arm(method, chosen[method]) for method in self.methods]
        self._run("claim", arms, range(self.seeds), workers, {})

    def _run(self, stage, methods, seeds, workers, axes) -> None:
        """Runs an ablation, together with the methods and seeds that its ledger has already."""
        before = self.trials(stage)
        names = [t.config["method"]["name"] for t in before]
        for method, _, rate in (name.partition("+rate=") for name in names):
            if rate:  # registered by an earlier process
                arm(method, float(rate))
        study, options = self.study, dict(self.study.options)
        if self.task == "text":
            options["path"] = write_text(self.logdir)
        kbptt.ablation.compare(
            [self.task],
            list(dict.fromkeys([*names, *methods])),
            list(dict.fromkeys([*(t.config["seed"] for t in before), *seeds])),
            self.logdir / self.task / stage,
            set=axes | {f"{self.task}.{name}": [value] for name, value in options.items()},
            trial="study_stabilizers:trial",
            workers=workers,
            extend=True,
            verbose=False,
            **study.model,
        )

    def chosen(self) -> dict[str, float]:
        """The best learning rate of each method whose tuning is complete, on equality the lower."""
        scores: dict[str, dict[float, list[float]]] = {}
        for found in self.trials("tuning"):
            if found.state in ("done", "failed"):
                rate = float(found.config["optimizer"]["learning_rate"])
                of_method = scores.setdefault(found.config["method"]["name"], {})
                of_method.setdefault(rate, []).append(validation_score(found))
        trials = len(self.study.rates) * len(TUNING_SEEDS)
        return {
            method: max(by_rate, key=lambda rate: (statistics.mean(by_rate[rate]), -rate))
            for method, by_rate in scores.items()
            if sum(map(len, by_rate.values())) == trials
        }

    def report(self) -> list[str]:
        """The claim as paragraphs of Markdown; empty before there is a result of the baseline."""
        study, chosen = self.study, self.chosen()
        arms = {arm(method, rate): (method, rate) for method, rate in chosen.items()}
        found = [t for t in self.trials("claim") if t.config["method"]["name"] in arms]
        reference = arm("baseline", chosen.get("baseline", 1.0))
        if not any(t.state == "done" and t.config["method"]["name"] == reference for t in found):
            return []
        results = Results(found, reference)
        (task,) = results.tasks
        header, lines = table(results.task_table(task), results.metric(task)[0])
        kept = ("mean", "success", "Δ", "p", "runs", "diverged", "crashed")
        kept = [i for i, name in enumerate(header) if name.split()[0] in kept]
        rows = [["method", "rate", *(header[i] for i in kept), "time"]]
        rows.append(["---"] * len(rows[0]))
        for line in lines:
            name = line[header.index("method")]
            method, rate = arms[name]
            edge = {study.rates[0]: " (lowest)", study.rates[-1]: " (highest)"}.get(rate, "")
            cost = number(relative_time(results, name, reference))
            rows.append([f"`{method}`", f"{rate:g}{edge}", *(line[i] for i in kept), cost])
        missing = sum(t.state in ("pending", "running") for t in found)
        seeds, pairs = len(results.seeds), results.comparisons
        return [
            f"## {self.task}",
            f"{', '.join(f'{k}={v}' for k, v in (study.model | study.options).items())}. "
            f"Learning rates: {', '.join(f'{rate:g}' for rate in study.rates)}. "
            f"Without memory: {number(results.metric(task)[2])}.",
            f"{seeds} seeds, {pairs} comparisons: after Holm's correction p is at least "
            f"{number(smallest_p(seeds, pairs))}; 5 % takes {fewest_seeds(pairs)} seeds."
            + (f" Not finished: {missing} of {len(found)} runs are missing." if missing else ""),
            "\n".join(f"| {' | '.join(row)} |" for row in rows),
        ]

    def show(self) -> None:
        """Prints what there is to do, and how much of it is done."""
        methods, study = len(self.methods), self.study
        print(f"{self.task}, {study.model['cell']}, {methods} methods: {', '.join(self.methods)}")
        tuning = methods * len(study.rates) * len(TUNING_SEEDS)
        for stage, asked in (("tuning", tuning), ("claim", methods * self.seeds)):
            done = [t.result for t in self.trials(stage) if t.result is not None]
            cost = [result["cost"]["processor_seconds"] for result in done]
            mean = f", {statistics.mean(cost):.1f} s of processor time each" if done else ""
            print(f"  {stage}: {asked} trials; done {len(done)}{mean}")


def arm(method: str, rate: float) -> str:
    """A method at a learning rate: both are methods, joined by "+"."""
    part = kbptt.methods.Method(f"rate={rate:g}", optimizer={"learning_rate": rate})
    return f"{method}+{kbptt.methods.register(part).name}"


def validation_score(found: Trial) -> float:
    """The validation score of the epoch that is tested, larger is better; −∞ for a failure."""
    if found.result is None or found.result["status"] != "ok":
        return -math.inf
    score = found.result["curve"]["validation"][found.result["best_epoch"] - 1]
    return score if found.result["mode"] == "max" else -score


def relative_time(results: Results, name: str, reference: str) -> float:
    """Processor time of a trial relative to the baseline's of the same seed, the median."""
    own, others = (
        {
            t.config["seed"]: t.result["cost"]["processor_seconds"]
            for t in results.done(arm=one)
            if t.result is not None
        }
        for one in (name, reference)
    )
    ratios = [own[seed] / others[seed] for seed in own.keys() & others.keys()]
    return statistics.median(ratios) if ratios else math.nan


def write_text(logdir: Path) -> Path:
    """The text of the task `text`: Python's own documentation, so that nothing is downloaded."""
    path = logdir.resolve() / "text.txt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(topics[name] for name in sorted(topics)), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default=",".join(STUDIES))
    parser.add_argument("--methods", help="default: those of each task, which --list shows")
    parser.add_argument("--seeds", type=int, default=10, help="of the claim (default: 10)")
    parser.add_argument("--logdir", type=Path, default=Path("runs/stabilizers"))
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--list", action="store_true", help="show the plan; run nothing")
    parser.add_argument("--report", action="store_true", help="show the results; run nothing")
    a = parser.parse_args()
    for task in a.tasks.split(","):
        if task not in STUDIES:
            parser.error(f"unknown task {task!r}: expected some of {', '.join(STUDIES)}")
        asked = STUDIES[task].methods if a.methods is None else a.methods.split(",")
        cells = {name: kbptt.methods.get(name).cells for name in ("baseline", *asked)}
        methods = [m for m, of in cells.items() if of is None or STUDIES[task].model["cell"] in of]
        stages = Stages(task, methods, a.seeds, a.logdir)
        if a.list:
            stages.show()
        elif not a.report:
            stages.run(a.workers)
            write_report(a.logdir)
    if not a.list:
        print(write_report(a.logdir))


def write_report(logdir: Path) -> str:
    """Writes the tables of all tasks as LOGDIR/report.md, and returns them."""
    parts = [part for task in STUDIES for part in Stages(task, [], 0, logdir).report()]
    text = "\n\n".join(parts or ["There is no result yet."])
    logdir.mkdir(parents=True, exist_ok=True)
    (logdir / "report.md").write_text(text + "\n", encoding="utf-8")
    return text


if __name__ == "__main__":
    main()
