"""Controls: whether tuned methods differ, or only the values that were found for them.

A search is a matter of luck, and its luck is in every seed of the comparison: two equal methods
that were given different learning rates do differ, and with enough seeds the test says so. So where
the comparison shows a difference, the better of the two is compared with the other one *at the same
values* as well, on the same seeds. Methods count as different if both tests say so: the p of the
comparison is the larger of the two. This intersection-union test (Berger, 1982) has the level of
the exact test: methods that are equal at equal values are told apart in at most 5 % of the studies,
whatever the searches found.

Controls are run only where the first p is at most 5 %; elsewhere it decides alone.

Reference: [Berger, 1982, Multiparameter hypothesis testing and acceptance sampling](
    https://doi.org/10.1080/00401706.1982.10487790).
"""

import math
from typing import TYPE_CHECKING

from kbptt.ablation import spaces, statistics
from kbptt.ablation.resampling import CONFIDENCE
from kbptt.ablation.rows import Trial

if TYPE_CHECKING:
    from kbptt.ablation.results import Results

STAGE = "control"  # the `stage` of these trials
LEVEL = 1 - CONFIDENCE


def p_values(results: "Results", task: str | None) -> dict[str, float]:
    """The p of every arm against its reference, controls included, before Holm's correction."""
    tests = own_tests(results, task)
    found = {arm: p for arm, (_, p) in tests.items()}
    for arm, control in _controlled(results, tests).items():
        found[arm] = max(found[arm], _p_of_control(results, task, *control))
    return found


def needed(results: "Results") -> list[Trial]:
    """The controls of every difference that a table shows, for all seeds of the comparison."""
    found: dict[str, Trial] = {}
    for task in (None, *results.tasks):
        for control in _controlled(results, own_tests(results, task)).values():
            for name in results.tasks if task is None else [task]:
                found |= {t.key: t for t in _trials(results, *control, name)}
    there = {trial.key for _, _, trial in results.controls()}
    return [trial for trial in found.values() if trial.key not in there]


def unconfirmed(results: "Results", task: str | None = None) -> list[tuple[str, str, str]]:
    """Differences that no control confirms: the arm, its reference, and which is the weaker."""
    pairs = _controlled(results, own_tests(results, task))
    return [
        (arm, results.reference_of(arm) or "", weaker)
        for arm, (weaker, stronger) in pairs.items()
        if _p_of_control(results, task, weaker, stronger) > LEVEL
    ]


def own_tests(results: "Results", task: str | None) -> dict[str, tuple[float, float]]:
    """Mean difference and p of every arm's comparison at its own values."""
    references = {arm: results.reference_of(arm) for arm in results.arms}
    pairs = {arm: reference for arm, reference in references.items() if reference is not None}
    tables = [(results.values(a, task), results.values(r, task)) for a, r in pairs.items()]
    return dict(zip(pairs, statistics.sign_tests(tables), strict=True))


def _controlled(
    results: "Results", tests: dict[str, tuple[float, float]]
) -> dict[str, tuple[str, str]]:
    """The weaker and the stronger of every arm and its reference that a control is to decide on.

    Args:
        results: The results.
        tests: From `own_tests`.
    """
    return {
        arm: control
        for arm, (difference, p) in tests.items()
        if p <= LEVEL and (control := _control(results, arm, difference))
    }


def _p_of_control(results: "Results", task: str | None, weaker: str, stronger: str) -> float:
    """The p at equal values; 1 unless the stronger one is the better there too."""
    table = results.values(stronger, task), results.values(weaker, task, at=stronger)
    ((difference, p),) = statistics.sign_tests([table])
    return p if difference > 0 else 1.0  # NaN: there is no control yet


def _control(results: "Results", arm: str, difference: float) -> tuple[str, str] | None:
    """The weaker and the stronger of an arm and its reference; `None` if both have one tuning."""
    reference = results.reference_of(arm)
    if reference is None or not math.isfinite(difference) or not results.tuned:
        return None
    return (reference, arm) if difference > 0 else (arm, reference)


def _trials(results: "Results", weaker: str, stronger: str, task: str) -> list[Trial]:
    """The weaker arm at the values of the stronger one, unless they are its own."""
    values, own = (results.tuned_values(arm, task) for arm in (stronger, weaker))
    if values is None or own is None or values == own:
        return []
    found = []
    for seed in results.seeds:
        if trial := results.runs.get((weaker, task, seed)):
            found.append(spaces.at(trial, values, seed, STAGE))
    return found
