"""The order of methods, by seeds that all of them have.

A mean over the seeds that a method happens to have says little: one that crashed on the difficult
seeds would have the better mean. So methods are ranked over the seeds that all of them have. One
that has fewer than half of these would leave little to rank the others by: it has no place.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kbptt.ablation.resampling import unscaled


class Ranking(NamedTuple):
    """The methods that have a place, and the seeds that it comes from."""

    means: dict[str, float]  # over these seeds, best first; larger is better
    seeds: np.ndarray  # which of all seeds, booleans
    beyond: bool  # whether one of them has a run on a seed beyond these
    placeless: tuple[str, ...]  # methods with some runs, but too few on the same seeds


def rank(tables: Mapping[str, np.ndarray]) -> Ranking:
    """Ranks methods by their means over shared seeds; of equals the first one stays first.

    Args:
        tables: Scores of each method, arrays `(seeds, tasks)`; larger is better, NaN where there is
            no result. A method has a seed if it has all its tasks, but for those that nobody has.
    """
    there = {arm: found for arm, table in tables.items() if (found := np.isfinite(table)).any()}
    if not there:
        return Ranking({}, np.zeros(0, bool), False, ())
    tasks = np.logical_or.reduce([found.any(axis=0) for found in there.values()])
    has = {arm: found[:, tasks].all(axis=1) for arm, found in there.items()}
    most = max(int(seeds.sum()) for seeds in has.values())
    shared, kept = np.ones(len(next(iter(tables.values()))), bool), set()
    for arm in sorted(has, key=lambda arm: -has[arm].sum()):
        if 2 * (shared & has[arm]).sum() >= max(1, most):
            shared &= has[arm]
            kept.add(arm)
    # By task, as `statistics.mean` adds up: the mean of all runs is the same number there and here.
    means = {a: unscaled(np.mean, tables[a][shared][:, tasks].T.ravel()) for a in has if a in kept}
    ordered = dict(sorted(means.items(), key=lambda mean: -mean[1]))
    beyond = any(there[arm][~shared].any() for arm in kept)
    return Ranking(ordered, shared, beyond, tuple(arm for arm in there if arm not in kept))
