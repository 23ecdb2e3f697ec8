"""How a report lists the errors of trials."""

import io

import rich.console
from ledgers import fill

from kbptt.ablation.reporting import Report


def test_many_errors_are_listed_in_part(tmp_path):
    fill(tmp_path, lambda c: f"ValueError: seed {c['seed']} again", seeds=130)
    report = Report(tmp_path)
    ((title, lines),) = report.troubles()
    assert title == "Crashed" and len(lines) == 101 and "30 more" in lines[-1]
    assert lines[7] == "baseline/adding/7, clip/adding/7: ValueError: seed 7 again"
    assert report.csv().count("again") == 260
    console = rich.console.Console(file=io.StringIO(), width=120)
    report.print(console)
    assert console.file.getvalue().count("again") == 20
    report = Report(fill(tmp_path / "one", lambda c: "E: x", seeds=9))
    ((_, lines),) = report.troubles()
    assert lines == ["baseline/adding/0, clip/adding/0, baseline/adding/1 and 15 more: E: x"]
