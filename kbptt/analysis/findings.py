"""What is wrong with a training run, what to try, and where to read more: one table of findings.

`find_faults` applies `RULES` to what a run has recorded (`Evidence`). What was not measured, or
does not exist in the model, such as gates, cannot be judged: `unjudged` returns these rules and the
reasons.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from kbptt._checks import did_you_mean
from kbptt.analysis import gradient_flow
from kbptt.analysis.evidence import Evidence, LayerEvidence
from kbptt.analysis.thresholds import DEFAULT, Thresholds

# Share of the gradient by lag that a window has to hold.
NEEDED = 0.99
# Gates that carry the state on: open they are meant to be.
_CARRYING = ("f", "z")


class Finding(NamedTuple):
    """A problem found in a run.

    Attributes:
        name: The rule's name, one of `RULES`.
        where: The layer, with the gate if it concerns one, or the clip; empty for the whole model.
        value: What was measured.
        threshold: The bound that it passed.
        reason: A sentence with the numbers.
        advice: What to try.
        docs: The page and section that explain it, relative to the project's root.
    """

    name: str
    where: str
    value: float
    threshold: float
    reason: str
    advice: str
    docs: str

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        return f"{self.name}{where}: {self.reason} Try: {self.advice} See {self.docs}."


class Unjudged(NamedTuple):
    """Why a rule could not be applied.

    Attributes:
        why: A clause: what it needs, or what the model does not have.
        applies: Whether more records could be judged. False if there is nothing to judge, whatever
            is recorded.
    """

    why: str
    applies: bool = True


# Where, value, threshold and reason of what a rule has found.
_Found = tuple[str, float, float, str]
_Outcomes: TypeAlias = Iterator[_Found | Unjudged | None]


class Rule(NamedTuple):
    """A row of the table.

    Attributes:
        needs: Which evidence it reads, for those who wonder why nothing was found.
        judge: Yields what is wrong; for every place that could be judged None, for every other an
            `Unjudged`.
        advice: What to try.
    """

    needs: str
    judge: Callable[[Evidence, Thresholds], _Outcomes]
    advice: str


# What to ask for.
_HEALTH = "the health of the states, from GradientFlow(health=True) or --health"
_LAGS = "from GradientFlow(health=True), --health or lag_data"
_ALL_ZERO = Unjudged("every norm is exactly 0")
_NOT_FINITE = Unjudged("the norms are NaN or infinite")
_NEEDS_LAGS = Unjudged(f"needs gradients by lag for layers that return sequences, {_LAGS}")


def _reach(layer: LayerEvidence, thresholds: Thresholds) -> np.ndarray | Unjudged:
    """How strongly a loss reaches back in a layer, by lag, within the truncation window."""
    count, lags = len(layer.profiles), layer.lags()
    if count < thresholds.records:
        return Unjudged(f"needs {thresholds.records:g} profiles; here {count}")
    if lags is not None:
        kept = lags[: layer.window]
        return kept if np.isfinite(kept).all() else _NOT_FINITE
    norms = layer.recent()
    if norms is not None and not np.isfinite(norms).all():
        return _NOT_FINITE
    if norms is not None and not norms.any():
        return _ALL_ZERO
    return _NEEDS_LAGS


def _judged(layer: LayerEvidence, thresholds: Thresholds) -> gradient_flow.Judged | Unjudged:
    """The verdict on how a layer's gradient changes on its way back."""
    reach, on = _reach(layer, thresholds), layer.verdict_on()
    if isinstance(reach, Unjudged) or on is None:
        return reach if isinstance(reach, Unjudged) else _NEEDS_LAGS
    profiles, windows = on
    judged = gradient_flow.judge(gradient_flow.latest(profiles), windows[-1], thresholds)
    return _ALL_ZERO if judged.word == "no gradient" else judged


def _vanishing(evidence: Evidence, thresholds: Thresholds) -> _Outcomes:
    for layer in evidence.layers:
        judged = _judged(layer, thresholds)
        if isinstance(judged, Unjudged):
            if judged is _ALL_ZERO:
                yield layer.name, 0.0, thresholds.vanishing, "Every norm is exactly 0."
            yield judged
            continue
        yield None
        if judged.word == "vanishing":
            factor = 10**judged.log10_factor
            dark = factor >= thresholds.vanishing
            value = judged.dark if dark else factor
            bound = thresholds.dark if dark else thresholds.vanishing
            yield layer.name, value, bound, judged.reason


def _exploding(evidence: Evidence, thresholds: Thresholds) -> _Outcomes:
    for layer in evidence.layers:
        judged = _judged(layer, thresholds)
        if isinstance(judged, Unjudged):
            yield judged
            continue
        yield None
        if judged.word == "exploding":
            with np.errstate(over="ignore"):
                factor = float(np.float64(10) ** judged.log10_factor)
            yield layer.name, factor, thresholds.exploding, judged.reason


def _in_windows(
    judge: Callable[[LayerEvidence, int, np.ndarray, Thresholds], _Outcomes],
    evidence: Evidence,
    thresholds: Thresholds,
) -> _Outcomes:
    """Judges each layer by its truncation window, and how strongly a loss reaches back in it."""
    for layer in evidence.layers:
        if layer.window is None:
            yield Unjudged("no truncation window of a fixed length", applies=False)
            continue
        reach = _reach(layer, thresholds)
        if isinstance(reach, Unjudged):
            yield reach
        elif not reach.any():
            yield _ALL_ZERO
        else:
            yield from judge(layer, layer.window, reach, thresholds)


def _too_few_lags(window: int, kept: np.ndarray) -> Unjudged:
    here = f"here {len(kept)} lags"
    return Unjudged(f"needs gradients by lag up to the window of {window}, {_LAGS}; {here}")


def _cut_too_short(
    layer: LayerEvidence, window: int, kept: np.ndarray, thresholds: Thresholds
) -> _Outcomes:
    if len(layer.profiles[-1]) <= window:
        yield Unjudged("the window is as long as the sequences: nothing is cut", applies=False)
        return
    if len(kept) < window:
        yield _too_few_lags(window, kept)
        return
    yield None
    left = float(kept[-1] / kept.max())
    if left > thresholds.cut:
        yield (
            layer.name,
            left,
            thresholds.cut,
            f"At the end of the window of {window} timesteps, the gradient of a loss still has "
            f"{left:.0%} of its largest norm; at most {thresholds.cut:.0%} is acceptable.",
        )


def _window_too_long(
    layer: LayerEvidence, window: int, kept: np.ndarray, thresholds: Thresholds
) -> _Outcomes:
    needed = int(gradient_flow.horizon(kept[::-1], NEEDED))
    if len(kept) < min(window, thresholds.window * needed):  # further lags may hold more
        yield _too_few_lags(window, kept)
        return
    yield None
    if window > thresholds.window * needed:
        yield (
            layer.name,
            window / needed,
            thresholds.window,
            f"{NEEDED:.0%} of the gradient is within {needed} timesteps of the loss, but the "
            f"window has {window} timesteps, {window / needed:.0f} times as many; more than "
            f"{thresholds.window:g} times is wasted work.",
        )


def _unknown_health(layer: LayerEvidence) -> Unjudged:
    """Why the health of a layer's states is not known."""
    norms = layer.recent()
    if norms is not None and not np.isfinite(norms).all():
        return _NOT_FINITE
    return Unjudged(f"needs {_HEALTH}")


def _saturated_gates(evidence: Evidence, thresholds: Thresholds) -> _Outcomes:
    for layer in evidence.layers:
        gates = {n.split("_")[1] for n in layer.statistics if n.startswith("gate_")}
        if not layer.statistics:
            yield _unknown_health(layer)
        elif not gates:
            yield Unjudged("no gates, or none that kbptt can read", applies=False)
        for gate in sorted(gates):
            yield None
            closed = layer.statistics[f"gate_{gate}_closed"]
            opened = layer.statistics[f"gate_{gate}_open"]
            share = closed if gate in _CARRYING else closed + opened
            if share > thresholds.gates:
                yield (
                    f"{layer.name}, gate {gate}",
                    share,
                    thresholds.gates,
                    f"Gate {gate} is below 0.05 in {closed:.0%} and above 0.95 in {opened:.0%} of "
                    f"all timesteps, samples and units; more than {thresholds.gates:.0%} "
                    f"{'below 0.05' if gate in _CARRYING else 'outside'} counts as saturated.",
                )


def _dead_units(evidence: Evidence, thresholds: Thresholds) -> _Outcomes:
    for layer in evidence.layers:
        dead = layer.statistics.get("dead_units")
        if dead is None:
            yield _unknown_health(layer)
            continue
        yield None
        saturated = layer.statistics.get("saturated_units", 0.0)
        if dead + saturated > thresholds.units:
            yield (
                layer.name,
                dead + saturated,
                thresholds.units,
                f"{dead:.0%} of the units have the same output at all timesteps and {saturated:.0%}"
                f" are at the bounds of their activation; at most {thresholds.units:.0%} in total "
                "is acceptable.",
            )


def _clip_always(evidence: Evidence, thresholds: Thresholds) -> _Outcomes:
    records = evidence.records()
    if records < thresholds.records:
        yield Unjudged(f"needs {thresholds.records:g} profiles; here {records}")
        return
    if not evidence.clip_rates and evidence.nonfinite_steps is not None:
        yield Unjudged("nothing clips", applies=False)
    for name, rate in evidence.clip_rates.items():
        if math.isnan(rate):
            continue
        yield None
        if rate > thresholds.clip_rate:
            yield (
                name,
                rate,
                thresholds.clip_rate,
                f"The clip acts in {rate:.0%} of the steps, more than {thresholds.clip_rate:.0%}: "
                "it, and not the gradient, sets the size of the steps.",
            )


def _nonfinite(evidence: Evidence, thresholds: Thresholds) -> _Outcomes:
    if evidence.nonfinite_steps is not None:
        yield None
        if evidence.nonfinite_steps > thresholds.nonfinite_steps:
            steps = int(evidence.nonfinite_steps)
            reason = (
                f"{steps} step{'s' if steps != 1 else ''} had a NaN or infinite gradient; "
                f"at most {thresholds.nonfinite_steps:g} is acceptable."
            )
            yield "", steps, thresholds.nonfinite_steps, reason
    for layer in evidence.layers:
        norms = layer.recent()
        if norms is None:
            continue
        yield None
        bad = int(np.count_nonzero(~np.isfinite(norms)))
        if bad:
            reason = f"The gradient is NaN or infinite at {bad} of {norms.size} timesteps."
            yield layer.name, bad, 0, reason


RULES: dict[str, Rule] = {
    "vanishing": Rule(
        f"profiles; of layers that return sequences, gradients by lag, {_LAGS}",
        _vanishing,
        "an orthogonal recurrent initializer, an LSTM with chrono-initialized gates, "
        "normalization='layer', or VanishingGradient as gradient_regularizer.",
    ),
    "exploding": Rule(
        f"profiles; of layers that return sequences, gradients by lag, {_LAGS}",
        _exploding,
        "ClipByGlobalNorm(1.0), gradient_clip inside the layer, an orthogonal recurrent "
        "initializer, or a smaller learning rate.",
    ),
    "cut-too-short": Rule(
        f"a single loss, or gradients by lag up to the window, {_LAGS}",
        functools.partial(_in_windows, _cut_too_short),
        "a longer window (kbptt.analysis.suggest_truncation estimates it), or AdaptiveTruncation.",
    ),
    "window-too-long": Rule(
        f"a truncation window; a single loss, or gradients by lag, {_LAGS}",
        functools.partial(_in_windows, _window_too_long),
        "a shorter window, unless the task needs what the network does not yet remember: then see "
        "vanishing.",
    ),
    "saturated-gates": Rule(
        _HEALTH, _saturated_gates,
        "inputs scaled to unit variance, a smaller learning rate, gate biases nearer to 0 (or the "
        "uniform gate initializer), or normalization='layer'.",
    ),
    "dead-units": Rule(
        _HEALTH, _dead_units,
        "inputs scaled to unit variance, a smaller recurrent initializer or learning rate, or "
        "normalization='layer'; for relu units, the identity initializer.",
    ),
    "clip-always": Rule(
        "steps of `fit` that are taken by its optimizer", _clip_always,
        "a larger threshold (start with the median of global_norm), AutoClip or ZClip, or a "
        "smaller learning rate.",
    ),
    "non-finite": Rule(
        "profiles", _nonfinite,
        "ClipByGlobalNorm(1.0), which skips such steps, a smaller learning rate, and a look at the "
        "inputs for NaN.",
    ),
}  # fmt: skip

# The page with a section for every rule.
PAGE = "docs/findings.md"


def rule_name(name: str) -> str:
    """Returns `name` if it is one of `RULES`, or raises `ValueError`."""
    if name not in RULES:
        raise ValueError(
            f"There is no finding {name!r}.{did_you_mean(name, RULES)} Expected one or more of "
            f"{', '.join(RULES)}."
        )
    return name


def find_faults(evidence: Evidence, thresholds: Thresholds = DEFAULT) -> list[Finding]:
    """Returns everything that is wrong, in the order of `RULES`."""
    return [
        Finding(name, *found, rule.advice, f"{PAGE}#{name}")
        for name, rule in RULES.items()
        for found in rule.judge(evidence, thresholds)
        if found is not None and not isinstance(found, Unjudged)
    ]


def unjudged(evidence: Evidence, thresholds: Thresholds = DEFAULT) -> dict[str, Unjudged]:
    """Returns the rules that could not be applied anywhere, with the reason."""
    found = {}
    for name, rule in RULES.items():
        outcomes = list(rule.judge(evidence, thresholds))
        missing = [one for one in outcomes if isinstance(one, Unjudged)]
        if len(missing) == len(outcomes):
            needed = Unjudged(f"needs {rule.needs}")
            found[name] = max(missing, key=lambda one: one.applies, default=needed)
    return found


def judged(evidence: Evidence, thresholds: Thresholds = DEFAULT) -> dict[str, bool]:
    """Whether each of `RULES` is settled: there was enough evidence, or nothing to judge."""
    missing = unjudged(evidence, thresholds)
    return {name: name not in missing or not missing[name].applies for name in RULES}
