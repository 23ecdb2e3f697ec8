"""Samplers: which points of a search space are tried, given those that have been.

A sampler has no state: what it suggests follows from the space, the history and a fixed seed. So a
search that was killed goes on with the same suggestions, and every method whose history is the
same, above all an empty one, is offered the same points.

Reference:
- [Bousquet et al., 2017, Critical hyper-parameters: no random, no cry](
    https://arxiv.org/abs/1706.03200): low-discrepancy sequences in place of random points.
- [Bergstra et al., 2011, Algorithms for hyper-parameter optimization](
    https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization): TPE.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from kbptt._extras import optional_imports, require
from kbptt.ablation.spaces import Choice, Space, Values, size

SEED = 0
NAMES = ("quasi-random", "tpe")
# TPE suggests so many points at a time, which run in parallel, before it looks at their scores.
ROUND = 4
DRAWS = 1000  # after so many repetitions of known points a space counts as exhausted


def check(name: str) -> None:
    """Refuses now a sampler whose library is missing."""
    if name == "tpe":
        require("optuna")


def suggest(
    name: str, space: Space, trials: int, history: Sequence[tuple[Values, float]]
) -> list[Values]:
    """The points to try next; none when the budget is used up or the space exhausted.

    Args:
        name: One of `NAMES`. "quasi-random" suggests all points at once. "tpe" begins with half of
            the budget quasi-random, and then follows the scores.
        space: The search space.
        trials: Integer, the budget: the number of points in all.
        history: The points tried so far with their scores, larger is better.
    """
    known = [values for values, _ in history]
    left = min(trials, size(space)) - len(known)
    first = left if name == "quasi-random" else math.ceil(trials / 2) - len(known)
    if left <= 0:
        return []
    if size(space) <= trials:
        return list(_new(_all(space), known, int(left)))
    if first > 0:
        return list(_new(quasi_random(space), known, int(min(first, left))))
    return list(_new(_tpe(space, history), known, int(min(ROUND, left))))


def _new(drawn: Iterator[Values], known: Sequence[Values], count: int) -> Iterator[Values]:
    """The first `count` points that are neither known nor drawn already."""
    seen = list(known)
    for values in itertools.islice(drawn, DRAWS + count):
        if count == 0:
            return
        if values not in seen:
            seen.append(values)
            count -= 1
            yield values


def quasi_random(space: Space) -> Iterator[Values]:
    """The points of a scrambled Halton sequence, without an end."""
    from scipy.stats import qmc

    engine = qmc.Halton(len(space), scramble=True, rng=SEED)
    while True:
        shares = engine.random(1)[0].tolist()
        yield {name: d.at(share) for (name, d), share in zip(space.items(), shares, strict=True)}


def _all(space: Space) -> Iterator[Values]:
    """Every point of a small space, in order."""
    for values in itertools.product(*(d.all() for d in space.values())):
        yield dict(zip(space, values, strict=True))


def _tpe(space: Space, history: Sequence[tuple[Values, float]]) -> Iterator[Values]:
    """Suggestions of Optuna's tree-structured Parzen estimator, which expects each one's failure.

    (Its constant liar keeps points that are tried at the same time apart.)
    """
    with optional_imports():
        import optuna

    distributions = {name: _distribution(optuna, d) for name, d in space.items()}
    with _silent(optuna):
        sampler = optuna.samplers.TPESampler(seed=SEED + len(history), n_startup_trials=0)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for values, score in history:
            params = {
                name: d.values.index(values[name]) if isinstance(d, Choice) else values[name]
                for name, d in space.items()
            }
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, value=score)
            )
    while True:
        with _silent(optuna):
            params = study.ask(distributions).params
        yield {
            name: d.values[params[name]] if isinstance(d, Choice) else d.nearest(params[name])
            for name, d in space.items()
        }


def _distribution(optuna: Any, dimension: Any) -> Any:
    """A dimension as Optuna's; choices by index, because they may be lists or mappings."""
    if isinstance(dimension, Choice):
        return optuna.distributions.CategoricalDistribution(range(len(dimension.values)))
    if dimension.integer:
        kind = optuna.distributions.IntDistribution
    else:
        kind = optuna.distributions.FloatDistribution
    return kind(dimension.low, dimension.high, log=dimension.log)


@contextlib.contextmanager
def _silent(optuna: Any) -> Iterator[None]:
    """Without Optuna's messages on each study; its level is the user's afterwards."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
