"""Scores in a CSV file: what a report exports, and reports on runs of any origin."""

import csv
import io
import math
import random

import numpy as np
import pytest
import rich.console
from ledgers import fill, outcome
from typer.testing import CliRunner

import kbptt
from kbptt.ablation import LedgerError, scores
from kbptt.ablation.reporting import Report
from kbptt.cli.main import app

FOREIGN = ["method,task,seed,score"]
FOREIGN += [f"sgd,copy,{seed},{0.5 + seed / 100}" for seed in range(6)]
FOREIGN += [f"adam,copy,{seed},{0.7 + seed / 50}" for seed in range(6)]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_report_on_runs_of_any_origin(tmp_path):
    path = write(tmp_path / "mine.csv", FOREIGN)
    report = kbptt.ablation.report(tmp_path / "out", csv=path, verbose=False)
    assert report.headline.startswith("adam is best on copy: +0.225 score [")
    assert report.headline.endswith("6 of 6 pairs against sgd.")
    names = sorted(found.name for found in (tmp_path / "out").iterdir())
    assert names == ["report.html", "report.md", "report.tex"]  # the file itself has the scores
    assert report.command == f"kbptt report {tmp_path}/out --csv {path}"
    text = (tmp_path / "out/report.md").read_text()
    assert "Scores of 20" in text and "tensorboard" not in text and "6 of 6 pairs" in text
    console = rich.console.Console(file=io.StringIO(), width=120)
    report.print(console)
    assert "adam" in console.file.getvalue()


def study(config):
    """Axes, tasks with larger and smaller better, a failure, a crash and a run to come."""
    method, task, seed = (config["method"]["name"], config["task"]["name"], config["seed"])
    if method == "clip" and seed == 3:
        return {"adding": outcome(None, status="diverged"), "copy_memory": "=E: luck"}[task]
    if method == "baseline" and seed == 4 and task == "adding":
        return None
    rng = random.Random(f"{method} {task} {seed} {config['model']['units']}")
    value = 0.5 + 0.4 * rng.random()
    if task == "adding":
        return outcome(value) | {"perfect": 0.95}
    return outcome(value / 10, metric="mse", mode="min", baseline=0.2)


def test_what_a_report_exports_gives_the_same_report(tmp_path):
    tasks = ["adding", "copy_memory"]
    fill(tmp_path / "logs", study, tasks=tasks, seeds=6, set={"units": [4, 8]})
    report = Report(tmp_path / "logs")
    path = report.write()[0]
    again = Report(tmp_path / "again", csv=path)
    assert again.headline == report.headline and again.counts == report.counts
    assert again.results.arms == report.results.arms and "clip [units=8]" in again.results.arms
    assert again.tables() == report.tables()
    assert again.failures() == report.failures()
    for arm in report.results.arms:
        np.testing.assert_array_equal(again.results.skills(arm), report.results.skills(arm))
    assert again.csv().replace(".0,", ",") == report.csv().replace(".0,", ",")


def test_optional_columns(tmp_path):
    lines = [
        "score,seed,mode,metric,task,method,baseline,perfect,success_threshold,diverged,lr",
        "0.2,0,min,mse,t,a,1,0,0.3,,9",
        "0.6,1,min,mse,t,a,1,0,0.3,false,9",
        "nan,2,min,mse,t,a,1,0,0.3,,9",
        ",3,min,mse,t,a,1,0,0.3,,9",
        ",0,min,mse,t,b,1,0,0.3,TRUE,9",
        "0.5,1.0,min,mse,t,b,1,0,0.3,0,9",
    ]
    report = Report(tmp_path, csv=write(tmp_path / "a.csv", lines))
    np.testing.assert_allclose(report.results.skills("a")[:, 0], [0.8, 0.4, 0, math.nan])
    np.testing.assert_allclose(report.results.skills("b")[:, 0], [0, 0.5, math.nan, math.nan])
    rows = {row.arm: row for row in report.rows}
    assert rows["a"].diverged == rows["b"].diverged == 1
    assert rows["a"].success.value == pytest.approx(1 / 3)
    assert report.counts["pending"] == 1
    assert report.notes()[0] == "Ignored columns: lr."
    assert report.results.metric("t") == ("mse", "min", 1.0)


def test_spreadsheets_byte_order_mark_quotes_and_blank_lines(tmp_path):
    text = '\ufeffmethod , task,seed,score\r\n\r\n"a, b",t,0,1e-1\r\na,t,0,.2\r\n,,,\r\n'
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    found = scores.read(path).trials
    assert [t.config["method"]["name"] for t in found] == ["a, b", "a"]
    assert [t.result["score"] for t in found] == [0.1, 0.2]


HEAD = "method,task,seed,score"
BAD = {
    "empty": ([], "is empty"),
    "only a header": ([HEAD], "has no runs below"),
    "no score": (["method,task,seed", "a,t,0"], "line 1: no column 'score'"),
    "semicolons": ([HEAD.replace(",", ";"), "a;t;0;1"], "separated by semicolons"),
    "tabs": ([HEAD.replace(",", "\t"), "a\tt\t0\t1"], "separated by tabs"),
    "twice a column": ([f"{HEAD},seed", "a,t,0,1,2"], "line 1: two columns are named 'seed'"),
    "word": ([HEAD, "a,t,0,1", "a,t,1,high"], "line 3, column 'score': expected a number"),
    "comma": ([HEAD, 'a,t,0,"1,5"'], "line 2, column 'score'.*point"),
    "underscore": ([HEAD, "a,t,0,1_5"], "line 2, column 'score': expected a number"),
    "seed": ([HEAD, "a,t,first,1"], "line 2, column 'seed': expected a number"),
    "negative seed": ([HEAD, "a,t,-1,1"], "line 2, column 'seed': expected a non-negative"),
    "half a seed": ([HEAD, "a,t,1.5,1"], "line 2, column 'seed': expected a non-negative"),
    "no seed": ([HEAD, "a,t,,1"], "line 2, column 'seed': expected a non-negative"),
    "no method": ([HEAD, ",t,0,1"], "line 2, column 'method': expected a name"),
    "twice a run": ([HEAD, "a,t,0,1", "b,t,0,1", "a,t,0,2"], "line 4: .*are already in line 2"),
    "too many fields": ([HEAD, "a,t,0,1,5"], "line 2: expected 4 fields.*found 5"),
    "too few fields": ([HEAD, "a,t,0"], "line 2: expected 4 fields.*found 3"),
    "metric alone": ([f"{HEAD},metric", "a,t,0,1,mse"], "line 1: .*'metric' but no column 'mode'"),
    "mode": ([f"{HEAD},mode", "a,t,0,1,most"], "line 2, column 'mode': expected one of max, min"),
    "two modes": (
        [f"{HEAD},mode", "a,t,0,1,max", "b,t,0,1,min"],
        "line 3, column 'mode': expected 'max' as in the task's first run, found 'min'",
    ),
    "truth": ([f"{HEAD},diverged", "a,t,0,1,maybe"], "column 'diverged': expected true or false"),
    "state": ([f"{HEAD},state", "a,t,0,1,gone"], "line 2, column 'state': expected one of pending"),
    "open quote": ([HEAD, '"a,t,0,1'], "line 2: unexpected end of data"),
    "baseline": ([f"{HEAD},baseline", "a,t,0,1,low"], "line 2, column 'baseline': expected a num"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_place(name, tmp_path):
    lines, message = BAD[name]
    path = tmp_path / "a.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(LedgerError, match=message) as refusal:
        kbptt.ablation.report(tmp_path / "out", csv=path, verbose=False)
    assert str(refusal.value).isprintable() and "a.csv" in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"Cannot read.*No such file"):
        Report(tmp_path, csv=tmp_path / "none.csv")
    with pytest.raises(ValueError, match="it is a directory"):
        Report(tmp_path, csv=tmp_path)
    (tmp_path / "a.csv").write_bytes(b"method,task,seed,score\na,t,0,\xff\n")
    with pytest.raises(LedgerError, match="is not UTF-8 text"):
        Report(tmp_path, csv=tmp_path / "a.csv")


def test_few_seeds_have_no_intervals(tmp_path):
    lines = [FOREIGN[0], *(line for line in FOREIGN[1:] if line.split(",")[2] < "3")]
    report = Report(tmp_path, csv=write(tmp_path / "a.csv", lines))
    assert report.headline.endswith("(too few pairs for an interval).")
    for text in (report.markdown(), report.html(), report.latex(), report._repr_html_()):
        assert "95 %" not in text and "(0.700, 0.720, 0.740)" in text


def test_names_are_escaped_and_no_formulas_are_exported(tmp_path):
    lines = [HEAD, '"<script>x</script>",t,0,1', "'=1+1,t,0,0.5", "-5,t,0,0.25"]
    report = Report(tmp_path, csv=write(tmp_path / "a.csv", lines))
    assert report.results.arms[1:] == ["=1+1", "-5"]
    assert report.html().count("<script") == 1
    rows = list(csv.DictReader(io.StringIO(report.csv())))
    assert [row["method"] for row in rows] == ["<script>x</script>", "'=1+1", "'-5"]


def test_on_the_command_line(tmp_path):
    path = write(tmp_path / "my scores.csv", FOREIGN)
    done = CliRunner().invoke(app, ["report", "--csv", str(path)])
    assert done.exit_code == 0 and "adam is best on copy" in done.output
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".csv", ".html", ".md", ".tex"]
    words = ["report", str(tmp_path / "out"), "--csv", str(path), "--reference", "adam"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and (tmp_path / "out/report.html").exists()
    assert f"'{path}' --reference adam" in (tmp_path / "out/report.md").read_text()
    write(path, [*FOREIGN, "adam,copy,0,high"])
    wrong = CliRunner().invoke(app, ["report", "--csv", str(path)])
    assert wrong.exit_code == 2 and "line 14, column 'score'" in " ".join(wrong.output.split())
    nothing = CliRunner().invoke(app, ["report"])
    assert nothing.exit_code == 2 and "--csv FILE" in nothing.output
