"""The page of the evidence, in Markdown, and its figures: from the record alone."""

import pathlib
from collections.abc import Mapping
from typing import Any

from papers import PARTS, load
from papers.part import Check, Part, Results, verdict

Record = dict[str, Any]
Summary = dict[str, tuple[str, list[Check]]]

HEAD = """\
# Evidence: published results, reproduced or not

Nine results from papers (and one book) on truncated BPTT and on keeping the gradient healthy,
retrained with kbptt. Each part states a claim, the published number, a rule and the verdict that
the rule yields. This page is generated from `benchmarks/evidence.json`, which has every score of
every seed.

```bash
make evidence                                       # everything that needs no text
make evidence EVIDENCE="--text time_machine.txt"    # and The Time Machine, given as a file
python scripts/evidence.py --part chrono --seeds 3  # one part, fewer seeds
python scripts/evidence.py --list                   # the parts, their cost and their progress
python scripts/evidence.py --go-on --record         # finish what is recorded, update this page
```

After an interruption or a kill, the same command resumes. Nothing is downloaded.

* **Verdicts.** *Reproduced*: every statement holds; *partly reproduced*: some do. With fewer than
  six seeds a verdict is *exploratory*, and a statement that needs the test is *open*: its p cannot
  fall below 0.05.
* **Statistics.** 95 % intervals: BCa bootstrap for means, Wilson for proportions. p is two-sided,
  from the exact sign-flip test over paired seeds.
* **Choices made before.** Learning rates and budgets that differ from the papers' were chosen on
  single pilot runs with seed 0. Anything decided later is listed under *Differences*.
* **Published numbers** were read where the page says so; *not checked* marks those known only from
  notes.
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
    lines = [HEAD, "| part | statements that hold | verdict |", "|---|---|---|"]
    for name, (verdict_, checks) in parts.items():
        holding = sum(check.holds is True for check in checks)
        title = load(name).TITLE
        lines.append(
            f"| [{title}](#{anchor(title)}) | {holding} of {len(checks)} | **{verdict_}** |"
        )
    lines += ["", "## What did not reproduce", ""]
    failed = _listed(parts, False)
    lines += failed or ["Every statement that could be tested holds."]
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
        f"* {load(name).TITLE}: {check.statement}. Result: {check.ours}."
        for name, (_, checks) in parts.items()
        for check in checks
        if check.holds is answer
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
        lines += ["| statement | published | kbptt | holds |", "|---|---|---|---|"]
        for c in checks:
            answer = {True: "yes", False: "**no**", None: "open"}[c.holds]
            lines.append(f"| {c.statement} | {c.published} | {c.ours} | {answer} |")
        lines += ["", f"![{part.TITLE}](images/evidence-{name}.png)", ""]
    rule = " ".join((part.checks.__doc__ or "").split())
    lines += [f"* Rule: {rule}", f"* Source: {part.SOURCE}", f"* Differences: {part.DIFFERS}"]
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
        "machines, and training amplifies it: single runs will differ elsewhere."
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
