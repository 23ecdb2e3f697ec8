"""The page of the evidence, in Markdown, and its figures: from the record alone."""

import pathlib
from collections.abc import Mapping
from typing import Any

from papers import PARTS, load
from papers.part import Check, Part, Results, verdict

Record = dict[str, Any]
Summary = dict[str, tuple[str, list[Check]]]

HEAD = """\
# Evidence: published results, repeated

Nine results of papers (and of one book) on truncated BPTT and on what keeps a gradient healthy,
trained again with kbptt. Each part has a claim, a published number, a rule that was written down
before the runs, and a verdict that the rule gives. A program writes this page from
`benchmarks/evidence.json`, which holds every score of every seed.

```bash
make evidence                                       # everything that needs no text
make evidence EVIDENCE="--text time_machine.txt"    # and The Time Machine, given as a file
python scripts/evidence.py --part chrono --seeds 3  # one part, fewer seeds
python scripts/evidence.py --list                   # the parts, what they take, how far they are
python scripts/evidence.py --go-on --record         # finish what is recorded here, and this page
```

Interrupt it, kill it: the same command goes on. Nothing is downloaded. Intervals are at 95 %: BCa
bootstrap for means, Wilson's for shares; p is that of the exact sign-flip test over seeds,
two-sided. *Reproduced* means that every statement came out, *partly reproduced* that some did.
Learning rates and budgets that are not the papers' were chosen on single runs of seed 0, before the
rest. Under six seeds a verdict is *exploratory*, and what needs the test is *open*: it cannot get
below 0.05. Published numbers were read where the page says so; *not checked* marks those taken over
from notes or memory.
"""


def results_of(record: Record, part: str) -> Results:
    """The results of a part in the record."""
    scores = record["parts"].get(part, {}).get("scores", {})
    return Results({s: {int(seed): r for seed, r in of.items()} for s, of in scores.items()})


def summary(record: Record) -> Summary:
    """Verdict and checks of every part."""
    found = {}
    for name in PARTS:
        part, results = load(name), results_of(record, name)
        checks = part.checks(results)
        found[name] = verdict(checks, _seeds(part, results), part.SEEDS), checks
        if not checks and part.TEXT:
            found[name] = "skipped: needs `--text`", checks
    return found


def _seeds(part: Part, results: Results) -> int:
    """How many seeds every setting has, of those in which something is random."""
    random = [setting for setting, given in part.SETTINGS.items() if "seeds" not in given]
    return min(len(results.seeds(setting)) for setting in random)


def page(record: Record) -> str:
    """The whole page."""
    parts = summary(record)
    lines = [HEAD, "| part | statements that came out | verdict |", "|---|---|---|"]
    for name, (verdict_, checks) in parts.items():
        came_out = sum(check.came_out is True for check in checks)
        title = load(name).TITLE
        lines.append(
            f"| [{title}](#{anchor(title)}) | {came_out} of {len(checks)} | **{verdict_}** |"
        )
    lines += ["", "## What did not come out", ""]
    failed = _listed(parts, False)
    lines += failed or ["Every statement that could be tested came out."]
    if waiting := _listed(parts, None) + _missing(parts):
        lines += ["", "## What is not finished", "", *waiting]
    for name, (verdict_, checks) in parts.items():
        lines += ["", *_section(name, verdict_, checks, record)]
    made = record.get("made", {})
    lines += ["", "## The machine", "", _machine(made)]
    return "\n".join(lines) + "\n"


def _listed(parts: Summary, answer: bool | None) -> list[str]:
    """The statements with this answer."""
    return [
        f"* {load(name).TITLE}: {check.statement}. Here: {check.ours}."
        for name, (_, checks) in parts.items()
        for check in checks
        if check.came_out is answer
    ]


def _missing(parts: Summary) -> list[str]:
    """The parts without any result."""
    missing = (name for name, (_, checks) in parts.items() if not checks)
    return [f"* {load(name).TITLE}: not run yet." for name in missing]


def _section(name: str, verdict_: str, checks: list[Check], record: Record) -> list[str]:
    part, results = load(name), results_of(record, name)
    minutes = sum(results.of(setting, "seconds").sum() for setting in part.SETTINGS) / 60
    lines = [f"## {part.TITLE}", "", f"**{verdict_[0].upper()}{verdict_[1:]}.** {part.CLAIM}", ""]
    if checks:
        lines += ["| statement | published | here | came out |", "|---|---|---|---|"]
        for c in checks:
            answer = {True: "yes", False: "**no**", None: "open"}[c.came_out]
            lines.append(f"| {c.statement} | {c.published} | {c.ours} | {answer} |")
        lines += ["", f"![{part.TITLE}](images/evidence-{name}.png)", ""]
    rule = " ".join((part.checks.__doc__ or "").split())
    lines += [f"* Rule: {rule}", f"* Source: {part.SOURCE}", f"* Different here: {part.DIFFERS}"]
    published = (f"{p.what}: {p.value} ({p.checked or 'not checked'})" for p in part.PUBLISHED)
    lines += [f"* Published: {'; '.join(published)}."]
    text = " --text FILE" if part.TEXT else ""
    lines += [f"* `python scripts/evidence.py --part {name}{text}`: "]
    lines[-1] += f"{minutes:.1f} minutes of processor time for what is shown, "
    lines[-1] += f"about {part.MINUTES:.0f} for {part.SEEDS} seeds."
    return lines


def _machine(made: Mapping[str, Any]) -> str:
    if not made:
        return "No run is recorded."
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    return (
        f"{made['processor']}, one thread for each trial; {versions}. Rounding differs between "
        "machines, and training amplifies it: single runs end differently elsewhere."
    )


def anchor(title: str) -> str:
    """The name that Markdown gives a heading."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def draw(record: Record, folder: pathlib.Path, names: list[str]) -> None:
    """Writes the figure of each part that has results."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    for name in names:
        part, results = load(name), results_of(record, name)
        if part.checks(results):
            figure = pyplot.figure(figsize=(8, 3.6), layout="constrained")
            part.draw(results, figure)
            figure.savefig(folder / f"evidence-{name}.png", dpi=80)
            pyplot.close(figure)
