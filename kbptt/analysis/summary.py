"""The state of a run as text: verdicts, findings, and what could not be judged."""

import dataclasses
from collections.abc import Sequence

from kbptt.analysis import findings
from kbptt.analysis.evidence import Evidence, LayerEvidence
from kbptt.analysis.thresholds import DEFAULT, Thresholds


def text(evidence: Evidence, thresholds: Thresholds = DEFAULT) -> str:
    """Several lines: of each layer its verdict, then what is wrong, and the thresholds."""
    lines = []
    for layer in evidence.layers:
        lines += _of_layer(layer, thresholds)
    found = findings.find_faults(evidence, thresholds)
    missing = findings.unjudged(evidence, thresholds)
    names = {one.name for one in found}
    fine = [name for name in findings.RULES if name not in missing and name not in names]
    lines += [f"found  {one}" for one in found] or [_nothing_found(evidence, fine, thresholds)]
    if fine:
        lines.append(f"not found: {', '.join(fine)}")
    for applies, words in ((False, "does not apply"), (True, "not judged")):
        for name, one in missing.items():
            if one.applies == applies:
                lines.append(f"{words}: {name} ({one.why})")
    shown = (f"{name} {value:g}" for name, value in dataclasses.asdict(thresholds).items())
    lines.append(f"thresholds: {', '.join(shown)}")
    return "\n".join(lines)


def _nothing_found(evidence: Evidence, fine: Sequence[str], thresholds: Thresholds) -> str:
    """What is said in place of findings, which must not pass for a clean bill of health."""
    records = evidence.records()
    if records >= thresholds.records:
        return "found  nothing wrong"
    if not evidence.layers:
        why = (
            "no gradient was recorded. Expected a `fit` with this callback on a model with a "
            "recurrent kbptt layer (kbptt.convert(model) converts Keras layers)"
        )
    else:
        why = f"{records} of the {thresholds.records:g} profiles that most findings need"
    return f"found  nothing could be judged{' but ' * bool(fine)}{', '.join(fine)}: {why}"


def _of_layer(layer: LayerEvidence, thresholds: Thresholds) -> list[str]:
    count = len(layer.profiles)
    if count < thresholds.records:
        return [
            f"{layer.name}: {count} of the {thresholds.records:g} profiles that a verdict needs"
        ]
    found = layer.overview(thresholds)
    lines = [f"{layer.name}: {found['verdict']}. {found['reason']}"]
    if layer.statistics:
        values = (f"{name} {value:.3g}" for name, value in layer.statistics.items())
        at = "" if layer.looked_at is None else f"step {layer.looked_at}: "
        lines.append(f"  {at}{', '.join(values)}")
    return lines
