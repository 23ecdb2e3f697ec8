"""The stages of a study: searches, then the comparison at the best values, then its controls.

What there is to run follows from the grid and the ledger alone, so a study that was killed at any
moment goes on with the same trials. Without tuning the comparison is the only stage.
"""

import collections
import functools
from collections.abc import Iterable, Sequence

from kbptt.ablation import controls, options, spaces, tuning
from kbptt.ablation.grid import Grid
from kbptt.ablation.ledger import Ledger
from kbptt.ablation.outcome import readable
from kbptt.ablation.results import Results
from kbptt.ablation.rows import Trial, trial_key
from kbptt.ablation.spaces import Values


def plan(grid: Grid, known: Iterable[Trial] = (), reference: str | None = None) -> list[Trial]:
    """Every trial that can be planned now, those among `known` included.

    Args:
        grid: What to compare.
        known: The trials of the ledger, each as `readable` returns it; needed only with tuning.
        reference: Label of the arm that controls compare with. Defaults to that of `Results`.
    """
    if grid.tuning is None:
        return grid.trials()
    known = [trial for trial in known if trial.config]
    searches: list[list[Trial]] = []
    comparison: list[Trial] = []
    complete = True
    for search in searches_of(grid, known):
        found = [*(point.values for point in search.points), *search.next]
        searches.append([search.trial(v, s) for v in found for s in grid.tuning.seeds])
        complete = complete and search.over and not search.next
        if (values := search.chosen) is not None:
            comparison += [search.at(values).with_seed(seed) for seed in grid.seeds]
    comparison.sort(key=lambda trial: grid.seeds.index(trial.config["seed"]))
    # The first point of every search comes first, so that all get on equally fast.
    most = max(map(len, searches))
    planned = [search[i] for i in range(most) for search in searches if i < len(search)]
    return [*planned, *comparison, *_controls(comparison, known, reference, complete)]


def advance(grid: Grid, ledger: Ledger, reference: str | None = None) -> list[Trial]:
    """Plans what the results of the ledger allow, and returns the trials that are new."""
    if grid.tuning is None:
        return []
    known = list(map(readable, ledger.each()))
    keys = {trial.key for trial in known}
    planned = plan(grid, known, reference)
    if all(trial.key in keys for trial in planned):
        return []
    ledger.plan(grid.configuration(), [(trial.config, trial.directory) for trial in planned])
    return [trial for trial in ledger.each("pending") if trial.key not in keys]


def unplanned(grid: Grid, ledger: Ledger) -> int:
    """How many trials are still to be planned; controls, which may be none, are not counted."""
    return 0 if grid.tuning is None else max(0, grid.size() - sum(ledger.counts().values()))


def closed(grid: Grid, ledger: Ledger) -> set[str]:
    """Keys of the trials of searches that are over: the values are chosen, the budget is spent."""
    if grid.tuning is None:
        return set()
    found = searches_of(grid, [t for t in map(readable, ledger.each()) if t.config])
    return {t.key for s in found if s.compared for point in s.points for t in point.trials}


class Search:
    """The search of one arm: a method on a task, with its values of the axes.

    Args:
        tuned: The tuning of the grid.
        arm: The planned trial of the grid for this arm.
        known: The trials of the ledger for this arm.

    Attributes:
        points: The points so far.
        compared: The trials of the comparison so far.
    """

    def __init__(self, tuned: tuning.Tuning, arm: Trial, known: Sequence[Trial]):
        self.tuning, self.arm = tuned, arm
        mine = [t for t in known if t.config.get("stage") == tuning.STAGE]
        self.points: list[tuning.Point] = tuning.points_of(
            t for t in mine if t.config["seed"] in tuned.seeds
        )
        self.compared: list[Trial] = [t for t in known if "stage" not in t.config]

    @property
    def over(self) -> bool:
        """Whether nothing of the search is left to run."""
        return all(point.settled for point in self.points) or bool(self.compared)

    @functools.cached_property
    def next(self) -> list[Values]:
        """The points to try next."""
        return [] if self.compared else self.tuning.next(self.points)

    @property
    def chosen(self) -> Values | None:
        """The values of the comparison; `None` before they are known, or if every trial crashed.

        They stay what they were when the comparison began.
        """
        if self.compared:
            return self.compared[0].config["tuned"]
        if not self.over or self.next:
            return None
        found = tuning.best(self.points)
        return found.values if found else None

    def at(self, values: Values) -> Trial:
        """The arm's trial of the comparison, at values."""
        return Trial.planned(options.with_values(self.arm.config, values), self.arm.directory)

    def trial(self, values: Values, seed: int) -> Trial:
        """A trial of the search."""
        return spaces.at(self.arm, values, seed, tuning.STAGE)


def searches_of(grid: Grid, known: Iterable[Trial]) -> list[Search]:
    """The searches of a grid with tuning, one for each arm."""
    assert grid.tuning is not None
    of_arm: dict[str, list[Trial]] = collections.defaultdict(list)
    for trial in known:
        of_arm[trial_key(options.of_arm(trial.config, grid.tuning.paths))].append(trial)
    return [
        Search(grid.tuning, arm, of_arm[trial_key(options.of_arm(arm.config, grid.tuning.paths))])
        for arm in grid.arms
    ]


def _controls(
    comparison: Sequence[Trial], known: Sequence[Trial], reference: str | None, complete: bool
) -> list[Trial]:
    """The controls that there are and, once all results of the comparison are there, are needed."""
    arms = set(map(arm_key, comparison))
    seeds = {trial.config["seed"] for trial in comparison}
    found = [
        trial
        for trial in known
        if trial.config.get("stage") == controls.STAGE
        and trial.config["seed"] in seeds
        and arm_key(trial) in arms
    ]
    keys = {trial.key for trial in comparison}
    ended = [t for t in known if t.key in keys and t.state in ("done", "failed")]
    if complete and ended and len(ended) == len(keys):
        found += controls.needed(Results([*ended, *found], reference))
    return found


def arm_key(trial: Trial) -> str:
    """The same text for all trials of an arm, whatever their seed, stage and tuned values."""
    return trial_key(options.of_arm(trial.config, options.tuned_paths(trial.config)))
