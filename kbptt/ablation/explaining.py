"""How to read a report: what its numbers mean, of those that are in it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kbptt.ablation import statistics
from kbptt.ablation.early import TRIAL
from kbptt.ablation.results import Results
from kbptt.ablation.sections import Table

# What gives the score of a run, which the rest of its sentence is about.
_ORIGINS = {
    "file": "that of its line in the file",
    "script": "the number that its script reported",
    "function": "the number that the trial function returned",
    "task": (
        "the task's primary metric on its test data, at the epoch selected by the checkpoint rule "
        "(by default the best validation score)"
    ),
}
_SAME = ". The rule, seeds and tasks are the same for every method."
_SKILL = (
    "Skill is the score between the baseline of the task (0: the best predictor without memory, "
    "or worse) and a perfect answer (1)."
)
_WORST_RUN = " For a task without a baseline, 0 is the worst run."
_INTERVALS = (
    "Intervals: 95 %, BCa bootstrap over seeds within tasks (mean, IQM, Δ), Wilson (success)."
)
_NO_INTERVALS = (
    f"With fewer than {statistics.FEWEST_FOR_INTERVAL} seeds there is no interval; the runs "
    "themselves are in parentheses, by seed (averaged over several tasks)."
)
_GAP = (
    "Gap (optimality gap): by how much a run misses a perfect answer on average; runs that exceed "
    "it count as 0."
)
# Each by the column that it explains.
_COLUMNS = {
    "IQM": "IQM: mean of the middle half of the runs.",
    "Δ": "Δ: mean difference to the reference over the seeds that both have.",
    "P(better)": "P(better): probability that a run beats a run of the reference.",
    "gap": _GAP,
    "p": (
        "p: exact sign-flip test on the paired differences, two-sided, with Holm's correction for "
        "all comparisons in the table."
    ),
    "decay": (
        "Decay: factor of ‖∂L/∂h_t‖ per timestep into the past at the end of training, median."
    ),
    "ms/step": "Time per step is a median and depends on the other load of the machine.",
    "memory": (
        "Memory (by how much training raised the peak of its process) is a median and depends on "
        "what else the process did."
    ),
}


def rules(
    results: Results, tables: Sequence[Table], configuration: Mapping[str, Any], in_file: bool
) -> list[str]:
    """How the numbers of a report are computed, without those that it does not have.

    Args:
        results: The results.
        tables: The tables of the report.
        configuration: That of the study; empty if it is not known.
        in_file: Whether the scores come from a CSV file.
    """
    skill = results.sole is None
    score = f"The score of a run is {_ORIGINS[_origin(configuration, in_file)]}{_SAME}"
    bare = any(math.isnan(results.metric(task)[2]) for task in results.tasks)
    ranked = [results.table(), *map(results.task_table, results.tasks)]
    means = [row.mean for rows in ranked for row in rows]
    there = {name for table in tables for name in table.header}
    columns = dict(_COLUMNS)
    if len(results.tasks) > 1:
        columns["gap"] += " Skill is at most 1, so over all tasks the gap is 1 − skill."
    return [
        score,
        *([_SKILL + (_WORST_RUN if bare else "")] if skill else []),
        f"A diverged run is a failure: {'skill 0, and ' * skill}the worst score of its task.",
        *([_INTERVALS] if any(math.isfinite(e.low) for e in means) else []),
        *([_NO_INTERVALS] if any(e.runs for e in means) else []),
        *(text for name, text in columns.items() if name in there),
    ]


def _origin(configuration: Mapping[str, Any], in_file: bool) -> str:
    """What gave the scores, one of `_ORIGINS`."""
    if in_file:
        return "file"
    if configuration.get("script"):
        return "script"
    return "task" if configuration.get("trial", TRIAL) == TRIAL else "function"
