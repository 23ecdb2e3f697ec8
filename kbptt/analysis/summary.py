"""The state of a run as text: verdicts, findings, and what could not be judged."""

import dataclasses

from kbptt.analysis import findings, gradient_flow
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
    if layer.per_timestep:
        # Every timestep has a loss of its own: the sum of all shows no reach.
        if layer.by_lag is None:
            return [
                f"{layer.name}: {count} profiles; it returns sequences, so only gradients by lag "
                "show how far back its losses reach (lag_data, health)"
            ]
        window = layer.window
        lags = layer.by_lag if window is None else layer.by_lag[:window]
        judged = gradient_flow.judge(lags[::-1], None, thresholds)
        lines = [f"{layer.name}: {judged.word} (by lag). {judged.reason}"]
    else:
        found = gradient_flow.overview(layer.profiles, layer.windows, thresholds)
        lines = [f"{layer.name}: {found['verdict']}. {found['reason']}"]
    if layer.statistics:
        values = (f"{name} {value:.3g}" for name, value in layer.statistics.items())
        at = "" if layer.looked_at is None else f"step {layer.looked_at}: "
        lines.append(f"  {at}{', '.join(values)}")
    return lines
