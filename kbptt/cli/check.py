"""`kbptt check`: what is wrong with training runs, with an exit code for scripts."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kbptt.analysis import findings, summary, thresholds
from kbptt.cli import options

FAIL_ON = (
    f"Findings that give exit code 1, separated by commas, or 'any': {', '.join(findings.RULES)}."
)


@options.command()
def check(
    run: Annotated[Path, typer.Argument(help="Directory of a run, or one with runs below it.")],
    *,
    fail_on: Annotated[str | None, typer.Option(help=FAIL_ON)] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold",
            metavar="NAME=VALUE",
            help="Override a default bound, such as vanishing=1e-4. Repeatable.",
        ),
    ] = None,
    require_judged: Annotated[
        bool,
        typer.Option(
            "--require-judged",
            help="Also exit with code 1 if a finding in --fail-on could not be judged. What does "
            "not apply to a model, such as gates in a SimpleRNN, counts as judged.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print findings and thresholds as JSON.")
    ] = False,
) -> None:
    """Check the TensorBoard files of training runs for problems, with advice on what to try.

    Exit code 1: a finding in --fail-on. Exit code 2: no GradientFlow run there, or an invalid
    argument.

    Example: kbptt check runs/a --fail-on vanishing,non-finite
    """
    refused = _names(fail_on)
    bounds = thresholds.get(dict(map(_assignment, threshold or ())))
    from kbptt.tensorboard import evidence

    if not run.is_dir():
        raise ValueError(f"There is no directory '{run}'. Expected the directory of a run.")
    results: dict[str, Any] = {}
    judged: dict[str, list[str]] = {}
    missing: dict[str, dict[str, findings.Unjudged]] = {}
    for directory in evidence.runs(run):
        recorded = evidence.read_evidence(directory)
        if not recorded.layers:
            continue
        found = findings.find_faults(recorded, bounds)
        results[directory] = [one._asdict() for one in found]
        missing[directory] = findings.unjudged(recorded, bounds)
        known = findings.judged(recorded, bounds)
        judged[directory] = [name for name in findings.RULES if known[name]]
        if not as_json:
            typer.echo(f"{directory}\n{summary.text(recorded, bounds)}\n")
    if not results:
        raise ValueError(
            f"There are no gradient profiles in '{run}' or below it. Expected event files from "
            "kbptt.callbacks.GradientFlow, kbptt train or kbptt compare."
        )
    if as_json:
        content = {"thresholds": thresholds.as_dict(bounds), "findings": results, "judged": judged}
        for key, applies in (("does_not_apply", False), ("not_judged", True)):
            content[key] = {
                run: {name: one.why for name, one in whys.items() if one.applies == applies}
                for run, whys in missing.items()
            }
        typer.echo(json.dumps(content, indent=1))
    unknown = {name for names in judged.values() for name in refused - set(names)}
    if unknown and not as_json:
        typer.echo(
            f"Not judged in every run: {', '.join(n for n in findings.RULES if n in unknown)}."
        )
    bad = {one["name"] for found in results.values() for one in found} & refused
    if bad:
        if not as_json:
            typer.echo(f"Failed: {', '.join(name for name in findings.RULES if name in bad)}.")
        raise typer.Exit(1)
    if unknown and require_judged:
        raise typer.Exit(1)


def _names(text: str | None) -> set[str]:
    """The findings that a list of names stands for."""
    if text is None:
        return set()
    names = [name.strip() for name in text.split(",")]
    if names == ["any"]:
        return set(findings.RULES)
    return {findings.rule_name(name) for name in names}


def _assignment(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise ValueError(
            f"Invalid value for `--threshold`. Expected NAME=NUMBER. Received: {text!r}."
        ) from None
