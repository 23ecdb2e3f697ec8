"""How often a study with tuning finds an effect that is not there, and one that is.

    python scripts/simulate_studies.py                       # 1,000 studies for each row
    python scripts/simulate_studies.py --studies 100 --drops 10

Each study is planned, tuned, controlled and tested by the code of `kbptt compare`; only the
training is replaced. The score of a run is f(learning rate) + what the seed does to all methods +
the run's own noise, the last two with a variance of 1 together. f is a parabola over the logarithm
whose top is at a different place in every study; `drop` is how far it falls from the top over half
of the range that is searched, 0 for a learning rate that does not matter. Validation and test
scores have independent noise. No method differs from another, unless there is an effect: then the
second is better by so much at every learning rate.

A study finds something if any p, after Holm's correction, is at most 5 %. The columns:

* kbptt: as `kbptt compare --tune` does it,
* no controls: the same without comparing at equal values,
* untuned baseline: the methods tuned, the baseline at the middle of the range,
* own scores: the same, and the methods tuned on the test scores of the comparison's own seeds,
  with these very scores as their result.
"""

import argparse
import math
import random
from typing import Any

from kbptt.ablation import Grid, Results, controls, stages, statistics
from kbptt.ablation.rows import Trial

LEVEL = 0.05
LOW, HIGH = 1e-4, 1e-2
OTHERS = ("clip", "clip_norm", "clip_value", "agc", "autoclip", "zclip")  # only names here
PROTOCOLS = ("kbptt", "no controls", "untuned baseline", "own scores")


class World:
    """What the runs of one study score.

    Args:
        study: Integer, the number of the study: it seeds everything.
        drop: Float, how far f falls over half of the range.
        effect: Float, by how much the second method is better. Defaults to `0.0`.
        shared: Float, the share of the variance that the seed has, for all methods alike. Defaults
            to `0.3`.
    """

    def __init__(self, study: int, drop: float, effect: float = 0.0, shared: float = 0.3):
        self.study, self.drop, self.effect, self.shared = study, drop, effect, shared
        self.top = random.Random(f"{study}").uniform(0.2, 0.8)  # as a share of the range

    def score(self, method: str, rate: float, seed: int, part: str) -> float:
        """The score of a run on a part of its data."""
        place = math.log(rate / LOW) / math.log(HIGH / LOW)
        own = random.Random(f"{self.study} {method} {rate} {seed} {part}").gauss()
        common = random.Random(f"{self.study} {seed} {part}").gauss()
        noise = math.sqrt(1 - self.shared) * own + math.sqrt(self.shared) * common
        return noise - self.drop * (2 * (place - self.top)) ** 2 + self.effect * (method == "clip")

    def run(self, trial: Trial) -> dict[str, Any]:
        """The result of a trial."""
        method, seed = trial.config["method"]["name"], trial.config["seed"]
        rate = trial.config["optimizer"]["learning_rate"]
        return {
            "status": "ok",
            "metric": "score",
            "mode": "max",
            "score": self.score(method, rate, seed, "test"),
            "validation_score": self.score(method, rate, seed, "validation"),
        }


def study(grid: Grid, world: World) -> list[Trial]:
    """The trials of a study that has run to its end."""
    known: dict[str, Trial] = {}
    while new := [t for t in stages.plan(grid, known.values()) if t.key not in known]:
        for trial in new:
            known[trial.key] = done(trial, world.run(trial))
    return list(known.values())


def done(trial: Trial, result: dict[str, Any]) -> Trial:
    return Trial(trial.key, trial.config, trial.directory, "done", 1, result)


def found(results: Results, p_values: dict[str, float], better: str | None = None) -> bool:
    """Whether any p is significant; with `better`, whether that method's is, as the better one."""
    arms = list(p_values)
    adjusted = dict(zip(arms, statistics.holm([p_values[arm] for arm in arms]), strict=True))
    if better is None:
        return min(adjusted.values()) <= LEVEL
    (task,) = results.tasks
    gain = results.scores(better, task).mean() - results.scores("baseline", task).mean()
    return bool(adjusted[better] <= LEVEL and gain > 0)


def outcomes(grid: Grid, world: World) -> dict[str, bool]:
    """What each protocol finds in one study."""
    better = "clip" if world.effect else None
    trials = study(grid, world)
    results = Results(trials)
    (task,) = results.tasks
    baseline = _untuned(results, world)
    methods = [t for (arm, *_), t in results.runs.items() if arm != "baseline"]
    untuned = Results([*baseline, *methods])
    own = Results([*baseline, *_own_scores(grid, results, world)])
    return {
        "kbptt": found(results, controls.p_values(results, task), better),
        "no controls": found(results, _uncontrolled(results, task), better),
        "untuned baseline": found(untuned, _uncontrolled(untuned, task), better),
        "own scores": found(own, _uncontrolled(own, task), better),
    }


def _uncontrolled(results: Results, task: str) -> dict[str, float]:
    """The p of every method, each at its own values."""
    return {arm: p for arm, (_, p) in controls.own_tests(results, task).items()}


def _untuned(results: Results, world: World) -> list[Trial]:
    """The runs of the baseline as they are at the middle of the range."""
    rate = math.sqrt(LOW * HIGH)
    return [
        done(t, {**world.run(t), "score": world.score(arm, rate, seed, "test")})
        for (arm, _, seed), t in results.runs.items()
        if arm == "baseline"
    ]


def _own_scores(grid: Grid, results: Results, world: World) -> list[Trial]:
    """The methods' runs at the rate whose mean test score over these very runs is the best."""
    rates = {t.config["tuned"]["learning_rate"] for ts in results.searches.values() for t in ts}
    best = {}
    for arm in set(results.arms) - {"baseline"}:
        scores = {r: [world.score(arm, r, s, "test") for s in grid.seeds] for r in sorted(rates)}
        best[arm] = max(scores.values(), key=sum)
    return [
        done(t, {**world.run(t), "score": best[arm][grid.seeds.index(seed)]})
        for (arm, _, seed), t in results.runs.items()
        if arm != "baseline"
    ]


def planned(methods: int, seeds: int, trials: int, tuning_seeds: int) -> Grid:
    """The grid of every study."""
    return Grid.make(
        "adding",
        ["baseline", *OTHERS[: methods - 1]],
        seeds,
        tune={"learning_rate": f"{LOW}..{HIGH}"},
        tuning_trials=trials,
        tuning_seeds=tuning_seeds,
    )


def simulate(grid: Grid, studies: int, drop: float, effect: float = 0.0) -> dict[str, int]:
    """In how many of the studies each protocol finds something."""
    count: dict[str, int] = dict.fromkeys(PROTOCOLS, 0)
    for number in range(studies):
        for protocol, positive in outcomes(grid, World(number, drop, effect)).items():
            count[protocol] += positive
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--methods", type=int, default=4, help="with the baseline (default: 4)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--tuning-seeds", type=int, default=2)
    parser.add_argument("--drops", type=float, nargs="+", default=[0.0, 3.0, 10.0, 30.0])
    parser.add_argument("--effect", type=float, default=2.0)
    a = parser.parse_args()
    grid = planned(a.methods, a.seeds, a.trials, a.tuning_seeds)
    print(
        f"{a.studies} studies a row, {a.methods} methods, {a.seeds} seeds, tuned at {a.trials} "
        f"points on {a.tuning_seeds} seeds"
    )
    print("effect  drop  " + "".join(f"{name:>24}" for name in PROTOCOLS))
    for effect in (0.0, a.effect):
        for drop in a.drops:
            cells = []
            for positive in simulate(grid, a.studies, drop, effect).values():
                rate = statistics.success_rate(positive, a.studies)
                shares = [100 * share for share in (rate.value, rate.low, rate.high)]
                cells.append("{:.1f} % [{:.1f}, {:.1f}]".format(*shares))
            print(f"{effect:6g}{drop:6g}  " + "".join(f"{c:>24}" for c in cells), flush=True)


if __name__ == "__main__":
    main()
