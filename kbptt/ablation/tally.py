"""What a study lacks, stage by stage: trials that crashed or have no result yet."""

import collections
import dataclasses

from kbptt.ablation.results import Results


@dataclasses.dataclass(frozen=True)
class Tally:
    """Trials without a result: of comparison and controls, and of the searches of a tuning.

    A trial of a search that crashed has used up its part of the budget, and nothing is missing
    in the comparison; but a method of which all have crashed could not be tuned and is not in it.
    """

    unfinished: int
    crashed: int
    searching: int  # trials of searches without a result yet
    crashed_points: int  # trials of searches that crashed, but for those of `lost`
    lost: dict[tuple[str, str], int]  # by arm and task, if every trial of a search crashed


def of(results: Results) -> Tally:
    """The tally of a study, finished or not."""
    compared = [*results.runs.values(), *(trial for *_, trial in results.controls())]
    states = collections.Counter(trial.state for trial in compared)
    searched = {
        search: collections.Counter(trial.state for trial in trials)
        for search, trials in results.searches.items()
    }
    begun = {(arm, task) for arm, task, _ in results.runs}
    lost = {
        search: found["failed"]
        for search, found in searched.items()
        if found.keys() == {"failed"} and search not in begun
    }
    points = sum(searched.values(), collections.Counter())
    return Tally(
        unfinished=states["pending"] + states["running"],
        crashed=states["failed"],
        searching=points["pending"] + points["running"],
        crashed_points=points["failed"] - sum(lost.values()),
        lost=lost,
    )
