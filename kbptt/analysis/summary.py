"""The state of a run as text: verdicts, findings, and what could not be judged."""

import dataclasses

from kbptt.analysis import findings
from kbptt.analysis.evidence import Evidence, LayerEvidence
from kbptt.analysis.thresholds import DEFAULT, Thresholds


def text(evidence: Evidence, thresholds: Thresholds = DEFAULT) -> str:
    """Several lines: of each layer its verdict, then what is wrong, and the thresholds."""
    lines = []
    for layer in evidence.layers:
        lines += _of_layer(layer, thresholds)
    found = findings.find_faults(evidence, thresholds)
    lines += [f"found  {one}" for one in found] or ["found  nothing wrong"]
    judged = findings.judged(evidence, thresholds)
    names = {one.name for one in found}
    fine = [name for name, known in judged.items() if known and name not in names]
    if fine:
        lines.append(f"not found: {', '.join(fine)}")
    few = evidence.records() < thresholds.records
    for name, known in judged.items():
        if not known:
            needs = findings.RULES[name].needs
            more = f"{thresholds.records:g} profiles; here {evidence.records()}" if few else needs
            lines.append(f"not judged: {name} (needs {more})")
    shown = (f"{name} {value:g}" for name, value in dataclasses.asdict(thresholds).items())
    lines.append(f"thresholds: {', '.join(shown)}")
    return "\n".join(lines)


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
