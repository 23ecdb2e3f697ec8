"""What is wrong with a training run, what to try, and where to read on: one table of findings.

`find_faults` goes through `RULES` with what a run has recorded (`Evidence`). What was not measured
is not judged: `judged` names the rules that could be applied.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

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
    """Something that is wrong.

    Attributes:
        name: The rule's name, one of `RULES`.
        where: The layer, with the gate if it concerns one, or the clip; empty for the whole model.
        value: What was measured.
        threshold: The bound that it passed.
        reason: A sentence with the figures.
        advice: What to try.
        docs: The page and section that explain it, below the project's root.
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


# Where, value, threshold and reason of what a rule has found.
_Found = tuple[str, float, float, str]


class Rule(NamedTuple):
    """A row of the table.

    Attributes:
        needs: Which evidence it reads, for those who wonder why nothing was found.
        judge: Yields what is wrong; None in place of it for every place that could be judged.
        advice: What to try.
    """

    needs: str
    judge: Callable[[Evidence, Thresholds], Iterator[_Found | None]]
    advice: str


def _reaches(
    evidence: Evidence, thresholds: Thresholds
) -> Iterator[tuple[LayerEvidence, np.ndarray]]:
    """Each layer with how strongly a loss reaches back, by lag, within the truncation window."""
    for layer in evidence.layers:
        lags = layer.lags()
        if lags is not None and len(layer.profiles) >= thresholds.records:
            kept = lags[: layer.window]
            if np.isfinite(kept).all():  # else found by another rule
                yield layer, kept


def _factors(
    evidence: Evidence, thresholds: Thresholds
) -> Iterator[tuple[LayerEvidence, gradient_flow.Judged]]:
    """Each layer with the verdict on how its gradient changes on its way back."""
    for layer in evidence.layers:
        on = layer.verdict_on()
        if on is None or len(layer.profiles) < thresholds.records:
            continue
        judged = gradient_flow.judge(gradient_flow.latest(on[0]), on[1][-1], thresholds)
        if judged.word not in ("non-finite", "no gradient"):  # found by other rules
            yield layer, judged


def _vanishing(evidence: Evidence, thresholds: Thresholds) -> Iterator[_Found | None]:
    for layer, judged in _factors(evidence, thresholds):
        yield None
        if judged.word == "vanishing":
            factor = 10**judged.log10_factor
            dark = factor >= thresholds.vanishing
            value = judged.dark if dark else factor
            bound = thresholds.dark if dark else thresholds.vanishing
            yield layer.name, value, bound, judged.reason
    for layer in evidence.layers:
        norms = layer.recent()
        enough = len(layer.profiles) >= thresholds.records
        if norms is not None and enough and norms.size and not norms.any():
            yield layer.name, 0.0, thresholds.vanishing, "Every norm is exactly 0."


def _exploding(evidence: Evidence, thresholds: Thresholds) -> Iterator[_Found | None]:
    for layer, judged in _factors(evidence, thresholds):
        yield None
        if judged.word == "exploding":
            with np.errstate(over="ignore"):
                factor = float(np.float64(10) ** judged.log10_factor)
            yield layer.name, factor, thresholds.exploding, judged.reason


def _cut_too_short(evidence: Evidence, thresholds: Thresholds) -> Iterator[_Found | None]:
    for layer, kept in _reaches(evidence, thresholds):
        window = layer.window
        if window is None or len(kept) < window or not kept.any():
            continue  # not measured up to the cut
        if layer.by_lag is None and len(layer.profiles[-1]) <= window:
            continue  # nothing is cut
        yield None
        left = float(kept[-1] / kept.max())
        if left > thresholds.cut:
            yield (
                layer.name,
                left,
                thresholds.cut,
                f"Where the window of {window} timesteps ends, the gradient of a loss still has "
                f"{left:.0%} of its largest norm; more than {thresholds.cut:.0%} is too much.",
            )


def _window_too_long(evidence: Evidence, thresholds: Thresholds) -> Iterator[_Found | None]:
    for layer, kept in _reaches(evidence, thresholds):
        window = layer.window
        if window is None or not kept.any():
            continue
        needed = int(gradient_flow.horizon(kept[::-1], NEEDED))
        if len(kept) < min(window, thresholds.window * needed):
            continue  # further lags may hold more
        yield None
        if window > thresholds.window * needed:
            yield (
                layer.name,
                window / needed,
                thresholds.window,
                f"{NEEDED:.0%} of the gradient is within {needed} timesteps of the loss, and the "
                f"window is {window} long, {window / needed:.0f} times that; more than "
                f"{thresholds.window:g} times is wasted work.",
            )


def _saturated_gates(evidence: Evidence, thresholds: Thresholds) -> Iterator[_Found | None]:
    for layer in evidence.layers:
        gates = {n.split("_")[1] for n in layer.statistics if n.startswith("gate_")}
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


def _dead_units(evidence: Evidence, thresholds: Thresholds) -> Iterator[_Found | None]:
    for layer in evidence.layers:
        dead = layer.statistics.get("dead_units")
        if dead is None:
            continue
        yield None
        saturated = layer.statistics.get("saturated_units", 0.0)
        if dead + saturated > thresholds.units:
            yield (
                layer.name,
                dead + saturated,
                thresholds.units,
                f"{dead:.0%} of the units have the same output at all timesteps and {saturated:.0%}"
                f" are at the bounds of their activation; more than {thresholds.units:.0%} in all "
                "is too much.",
            )


def _clip_always(evidence: Evidence, thresholds: Thresholds) -> Iterator[_Found | None]:
    for name, rate in evidence.clip_rates.items():
        if evidence.records() < thresholds.records or math.isnan(rate):
            continue
        yield None
        if rate > thresholds.clip_rate:
            yield (
                name,
                rate,
                thresholds.clip_rate,
                f"The clip acts in {rate:.0%} of the steps, more than {thresholds.clip_rate:.0%}: "
                "so it, and not the gradient, sets the size of the steps.",
            )


def _nonfinite(evidence: Evidence, thresholds: Thresholds) -> Iterator[_Found | None]:
    if evidence.nonfinite_steps is not None:
        yield None
        if evidence.nonfinite_steps > thresholds.nonfinite_steps:
            steps = int(evidence.nonfinite_steps)
            reason = (
                f"{steps} step{'s' if steps != 1 else ''} had a gradient that is NaN or infinite; "
                f"at most {thresholds.nonfinite_steps:g} may."
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
        "profiles; of layers that return sequences, gradients by lag",
        _vanishing,
        "an orthogonal recurrent initializer, an LSTM with chrono-initialized gates, "
        "normalization='layer', or VanishingGradient as gradient_regularizer.",
    ),
    "exploding": Rule(
        "profiles; of layers that return sequences, gradients by lag",
        _exploding,
        "ClipByGlobalNorm(1.0), gradient_clip inside the layer, an orthogonal recurrent "
        "initializer, or a smaller learning rate.",
    ),
    "cut-too-short": Rule(
        "gradients by lag up to the window, or a single loss", _cut_too_short,
        "a longer window (kbptt.analysis.suggest_truncation estimates it), or AdaptiveTruncation.",
    ),
    "window-too-long": Rule(
        "a truncation window; gradients by lag, or a single loss", _window_too_long,
        "a shorter window, unless the task needs what the network does not yet remember: then see "
        "vanishing.",
    ),
    "saturated-gates": Rule(
        "health of the states", _saturated_gates,
        "inputs scaled to unit variance, a smaller learning rate, gate biases nearer to 0 (or the "
        "uniform gate initializer), or normalization='layer'.",
    ),
    "dead-units": Rule(
        "health of the states", _dead_units,
        "inputs scaled to unit variance, a smaller recurrent initializer or learning rate, or "
        "normalization='layer'; of relu units, the identity initializer.",
    ),
    "clip-always": Rule(
        "a callback that clips", _clip_always,
        "a larger threshold (the median of global_norm is a start), AutoClip or ZClip, or a "
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
    """All that is wrong, in the order of `RULES`."""
    return [
        Finding(name, *found, rule.advice, f"{PAGE}#{name}")
        for name, rule in RULES.items()
        for found in rule.judge(evidence, thresholds)
        if found is not None
    ]


def judged(evidence: Evidence, thresholds: Thresholds = DEFAULT) -> dict[str, bool]:
    """Whether there was evidence enough for each of `RULES`."""
    return {name: any(True for _ in r.judge(evidence, thresholds)) for name, r in RULES.items()}
