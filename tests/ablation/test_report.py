"""Results and reports of ledgers that are filled by hand."""

import csv
import errno
import html.parser
import io
import json
import math
import pathlib
import re
import subprocess

import numpy as np
import pytest
import rich.console
from ledgers import fill, outcome, results, tamper

from kbptt.ablation.environment import git_commit
from kbptt.ablation.ledger import Ledger, LedgerError
from kbptt.ablation.markup import escaped
from kbptt.ablation.reporting import Report
from kbptt.ablation.text import visible


def test_skill_by_hand(tmp_path):
    def score(config):
        if config["task"]["name"] == "adding":  # an error: 0.2 without memory, 0 is perfect
            value = {"baseline": 0.3, "clip": 0.05}[config["method"]["name"]]
            return outcome(value, metric="mse", mode="min", baseline=0.2)
        return outcome({"baseline": 0.5, "clip": 0.8}[config["method"]["name"]])

    found = results(fill(tmp_path, score, tasks=["adding", "temporal_order"]))
    # (0.2 - 0.05) / 0.2 = 0.75 and (0.8 - 0.5) / 0.5 = 0.6; worse than the baseline is 0.
    np.testing.assert_allclose(found.skills("clip"), [[0.75, 0.6]] * 3)
    np.testing.assert_allclose(found.skills("baseline"), [[0.0, 0.0]] * 3)
    table = found.table()
    assert [row.arm for row in table] == ["clip", "baseline"]
    assert table[0].comparison.difference.value == pytest.approx(0.675)
    assert table[0].comparison.p == pytest.approx(2 / 2**3) and found.exploratory
    # In the metric's own units the sign is the metric's: smaller errors are better.
    task = found.task_table("adding")
    assert [row.arm for row in task] == ["clip", "baseline"]
    assert task[0].mean.value == pytest.approx(0.05)
    assert task[0].comparison.difference.value == pytest.approx(-0.25)
    assert task[0].success.value == 1.0 and task[1].success.value == 0.0
    assert task[0].mean.runs == pytest.approx([0.05] * 3)  # of three seeds no interval
    assert task[0].comparison.difference.runs == pytest.approx([-0.25] * 3)


def test_skill_where_perfect_is_not_1(tmp_path):
    def score(config):
        value = {"baseline": 100.0, "clip": 400.0}[config["method"]["name"]]
        return outcome(value, metric="reward", baseline=50.0) | {"perfect": perfect}

    perfect = 500.0  # declared by the task
    found = results(fill(tmp_path / "declared", score))
    np.testing.assert_allclose(found.skills("baseline")[0], (100 - 50) / (500 - 50))
    np.testing.assert_allclose(found.skills("clip")[0], (400 - 50) / (500 - 50))
    perfect = None  # not declared: the best run
    found = results(fill(tmp_path / "unknown", score))
    np.testing.assert_allclose(found.skills("baseline")[0], (100 - 50) / (400 - 50))
    np.testing.assert_allclose(found.skills("clip")[0], 1.0)


def test_diverged_runs_are_failures_at_the_worst_score(tmp_path):
    def score(config):
        if config["method"]["name"] == "clip" and config["seed"] == 1:
            return outcome(None, status="diverged")
        return outcome(0.4 if config["seed"] == 2 else 0.9)

    found = results(fill(tmp_path, score))
    np.testing.assert_allclose(found.scores("clip", "adding"), [0.9, 0.4, 0.4])
    np.testing.assert_allclose(found.skills("clip")[:, 0], [0.8, 0.0, 0.0])
    row = next(row for row in found.table() if row.arm == "clip")
    assert row.runs == 3 and row.diverged == 1
    assert row.success.value == pytest.approx(1 / 3)


def test_of_equal_means_those_that_diverged_come_last(tmp_path):
    def score(config):
        status = "diverged" if config["method"]["name"] == "baseline" else "ok"
        return outcome(None if status == "diverged" else 0.4, status=status)

    found = results(fill(tmp_path, score))
    assert [(row.arm, row.mean.value) for row in found.table()] == [
        ("clip", 0.0),
        ("baseline", 0.0),
    ]


def test_crashed_and_missing_runs(tmp_path):
    def score(config):
        if config["method"]["name"] == "clip":
            return {0: "OSError: no luck", 1: None, 2: outcome(0.9)}[config["seed"]]
        return outcome(0.6 + config["seed"] / 10)

    report = Report(fill(tmp_path, score))
    row = next(row for row in report.rows if row.arm == "clip")
    assert (row.runs, row.failed, row.comparison.pairs) == (1, 1, 1)
    assert report.failures() == [("clip/adding/0", "OSError: no luck")]
    notes = " ".join(report.notes())
    assert "1 trial without a result yet" in notes and "Crashed: 1 trial," in notes
    assert "Exploratory" in notes


def test_labels_name_what_differs(tmp_path):
    fill(tmp_path, lambda c: outcome(0.6), set={"truncation": [16, "full"], "length": [50, 60]})
    found = results(tmp_path)
    assert found.arms == [
        "baseline [truncation=16]",
        "clip [truncation=16]",
        "baseline [truncation=full]",
        "clip [truncation=full]",
    ]
    assert found.tasks == ["adding [length=50]", "adding [length=60]"]
    assert found.reference_of("clip [truncation=full]") == "baseline [truncation=full]"
    assert found.reference_of("baseline [truncation=full]") is None
    fixed = results(tmp_path, "clip [truncation=16]")
    assert fixed.reference_of("baseline [truncation=full]") == "clip [truncation=16]"
    with pytest.raises(ValueError, match="Unknown reference: 'x'"):
        results(tmp_path, "x")


def test_one_method_is_compared_along_its_axis(tmp_path):
    fill(tmp_path, lambda c: outcome(0.6), methods=["clip"], set={"units": [8, 16]})
    found = results(tmp_path)
    assert found.reference_of("clip [units=16]") == "clip [units=8]"
    assert found.reference_of("clip [units=8]") is None


def test_axis_of_a_method_argument_is_no_label(tmp_path):
    fill(tmp_path, lambda c: outcome(0.6), methods=["baseline", "orthogonal", "layernorm"])
    assert results(tmp_path).arms == ["baseline", "orthogonal", "layernorm"]


class Page(html.parser.HTMLParser):
    """Collects the tags and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for name, v in attrs if name in ("src", "href", "xlink:href")]


def test_report_files(tmp_path):
    fill(tmp_path, lambda c: outcome(0.6 + 0.05 * c["seed"]), seeds=6)
    report = Report(tmp_path)
    paths = report.write()
    assert [p.name for p in paths] == ["results.csv", "report.md", "report.html", "report.tex"]
    rows = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert len(rows) == 12
    assert float(rows[2]["score"]) == 0.6 + 0.05 * 1
    assert rows[0]["decay_end"] == "0.9" and rows[0]["success"] == "False"
    assert rows[0]["clip_rate"] == "0.25" and rows[0]["skipped_steps"] == "2.0"
    markdown = paths[1].read_text()
    assert "| 1 | " in markdown and f"tensorboard --logdir {tmp_path}" in markdown
    assert "tensorflow: 2.21" in markdown
    page = Page(paths[2].read_text())
    assert page.tags.count("svg") == page.tags.count("figure") == 6
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert page.tags.count("script") == 1 and "link" not in page.tags
    assert not list(tmp_path.glob(".*partial*"))
    # The same results give the same page.
    assert paths[2].read_text() == Report(tmp_path).html()


def test_too_few_seeds_for_the_number_of_comparisons(tmp_path):
    methods = ["baseline", "clip", "orthogonal", "layernorm"]
    report = Report(fill(tmp_path / "6", lambda c: outcome(0.6), methods=methods, seeds=6))
    assert report.notes() == [
        "With 6 seeds and 3 comparisons, no p can be below 0.094 after Holm's correction; 5 % "
        "takes 7 seeds."
    ]
    assert (
        Report(fill(tmp_path / "7", lambda c: outcome(0.6), methods=methods, seeds=7)).notes() == []
    )


def test_narrow_terminal_shows_names_and_ranks_whole(tmp_path):
    methods = ["baseline", "norm_stabilizer", "timestep_clip"]
    noise = np.random.default_rng(0).random(100)

    def score(config):
        return outcome(0.6 + noise[7 * config["seed"] + len(config["method"]["name"])] / 3)

    fill(tmp_path, score, methods=methods, seeds=6)
    console = rich.console.Console(file=io.StringIO(), width=80)
    Report(tmp_path).print(console)
    text = console.file.getvalue()
    assert "…" not in text and all(name in text for name in methods)
    assert (
        "Δ" in text and "mean accuracy" in text and "skill" not in text and "P(better)" not in text
    )


def test_directory_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    import kbptt

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    fill(tmp_path, lambda c: outcome(0.6))
    monkeypatch.setattr(pathlib.Path, "write_text", refuse)
    monkeypatch.setattr(pathlib.Path, "unlink", refuse)
    with pytest.raises(LedgerError, match=r"Cannot write '.*results.csv': Read-only file system\."):
        kbptt.ablation.report(tmp_path)
    assert "baseline" in capsys.readouterr().out  # the ranking at least


def test_commits(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    assert git_commit(tmp_path) is None
    git("init", "-q")
    (tmp_path / "tracked").write_text("1")
    git("add", "tracked")
    git("commit", "-qm", "m")
    commit = git_commit(tmp_path)
    assert len(commit) == 40 and git_commit(tmp_path, "tracked") == commit
    assert git_commit(tmp_path, "installed_here_but_not_of_it") is None
    (tmp_path / "tracked").write_text("2")
    assert git_commit(tmp_path) == commit + "+"


def test_everything_is_escaped(tmp_path):
    hostile = "<script>alert(1)</script> $x_{$ & | `\"' 模 \x1b[31m"
    logdir = tmp_path / "<b> & log"

    def score(config):
        if config["seed"] == 2:
            return f"ValueError: {hostile}"
        return outcome(0.6) | {"metric": hostile}

    fill(logdir, score)
    with Ledger(logdir) as ledger:
        for trial in ledger.trials():
            config = trial.config
            config["method"]["name"] = hostile + config["method"]["name"]
            tamper(ledger, trial.key, config=json.dumps(config))
    report = Report(logdir)
    report.write()
    text = (logdir / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("script") == text.count("<script") == 1 and "<b>" not in text
    assert "<script" not in (logdir / "report.md").read_text()
    shown = report._repr_html_()
    assert "<script" not in shown and "<b>" not in shown and "&lt;script&gt;" in shown
    console = rich.console.Console(file=io.StringIO(), width=200)
    report.print(console)
    assert "\x1b" not in console.file.getvalue()


def test_csv_holds_no_formulas(tmp_path):
    fill(tmp_path, lambda c: "=cmd()" if c["seed"] else outcome(0.5), methods=["clip"])
    rows = list(csv.DictReader(io.StringIO(Report(tmp_path).csv())))
    assert rows[1]["error"] == "'=cmd()"


def test_nothing_finished(tmp_path):
    fill(tmp_path, lambda c: None)
    report = Report(tmp_path)
    report.write()
    assert "Not finished: 6 trials" in (tmp_path / "report.md").read_text()
    report.print(rich.console.Console(file=io.StringIO(), width=80))


def test_minimal_results_of_a_users_own_trial(tmp_path):
    fill(tmp_path, lambda c: {"status": "ok", "score": 0.5, "metric": "m", "mode": "max"})
    Report(tmp_path).write()
    assert Page((tmp_path / "report.html").read_text()).tags.count("svg") == 1


def test_public_names_are_functions(tmp_path):
    import kbptt

    fill(tmp_path, lambda c: outcome(0.6))
    # A submodule of the same name would take the function's place once it is imported.
    assert callable(kbptt.ablation.compare) and callable(kbptt.ablation.report)
    assert isinstance(kbptt.ablation.report(tmp_path, verbose=False), kbptt.ablation.Report)


def test_errors(tmp_path):
    with pytest.raises(LedgerError, match="no ablation in"):
        Report(tmp_path)
    Ledger(tmp_path).close()
    with pytest.raises(LedgerError, match="has no trials"):
        Report(tmp_path)


def test_markdown_is_taken_literally():
    assert escaped("a|b_c*<i>\n`x`") == r"a\|b\_c\*&lt;i\>" + r" \`x\`"


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 150])
def test_methods_are_named_in_a_terminal_of_any_width(tmp_path, width):
    def score(config):
        clip = config["method"]["name"] == "clip"
        return outcome(None if clip else 0.6 + config["seed"] / 30, "diverged" if clip else "ok")

    fill(tmp_path, score, seeds=6)
    console = rich.console.Console(file=io.StringIO(), width=width)
    Report(tmp_path).print(console)
    table, _, _ = console.file.getvalue().partition("Diverged")
    assert "baseline" in table and "clip" in table
    assert "…" not in table  # nor is a number cut


HOSTILE = "\x1b]0;owned\x07\x1b[31m \u202egnp.exe\u2066 \x9b31m \x00 \r \x7f \ud800 \u200b end"
ACTING = [c for c in HOSTILE if not c.isprintable()]


def test_control_characters_are_escaped_everywhere(tmp_path):
    """Exception texts, names, option values; ESC, C0, C1, bidirectional, surrogates."""

    def score(config):
        if config["seed"] == 2:
            return f"ValueError: {HOSTILE}".replace(
                "\ud800", ""
            )  # which SQLite takes in JSON alone
        environment = {"machine": HOSTILE, HOSTILE: [HOSTILE]}
        return outcome(0.6) | {"metric": HOSTILE, "environment": environment}

    fill(tmp_path, score)
    with Ledger(tmp_path) as ledger:
        ledger.set_meta("configuration", {HOSTILE: HOSTILE})
        ledger.set_meta("commits", [HOSTILE])
        for trial in ledger.trials():
            trial.config["method"]["name"] += HOSTILE
            trial.config["task"]["options"][HOSTILE] = HOSTILE + str(trial.config["seed"])
            config = json.dumps(trial.config)
            tamper(ledger, trial.key, config=config, directory=trial.directory + "\x1b")
    report = Report(tmp_path)
    console = rich.console.Console(file=io.StringIO(), width=400)
    report.print(console)
    texts = [path.read_text() for path in report.write()] + [console.file.getvalue()]
    for text in texts:
        found = {c for c in text if c in ACTING}
        assert not found, found
        unescaped = text.replace("\\textbackslash{}", "\\").replace("\\\\", "\\")
        assert r"\x1b" in unescaped and r"u202e" in text
    assert "Not drawn" not in texts[2]
    with pytest.raises(ValueError, match="Unknown reference") as refusal:
        Report(tmp_path, "\x1b")
    assert str(refusal.value).isprintable()


def test_printable_text_is_unchanged():
    for text in ("Ω ≤ ∂L/∂h_t", "模\u3000型", "1\u00a0000", "a\nb", "naïve", "\U0001f600"):
        assert visible(text) == text
    assert visible("\x1b\t\r\x9b\u202e\ud800") == r"\x1b\t\r\x9b\u202e\ud800"


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_below_five_seeds_the_runs_themselves(tmp_path, seeds):
    def score(config):
        return outcome(0.6 + 0.05 * config["seed"] + 0.1 * (config["method"]["name"] == "clip"))

    report = Report(fill(tmp_path, score, seeds=seeds))
    row = report.rows[0]
    for estimate in (row.mean, row.iqm, row.success, row.comparison.difference):
        assert math.isnan(estimate.low) and math.isnan(estimate.high)
    assert math.isnan(row.comparison.improvement.low)
    expected = [(0.7 + 0.05 * seed - 0.5) / 0.5 for seed in range(seeds)]
    assert row.mean.runs == pytest.approx(expected)
    assert row.comparison.difference.runs == pytest.approx([0.2] * seeds)
    console = rich.console.Console(file=io.StringIO(), width=200)
    report.print(console)
    report.write()
    files = [path.read_text() for path in tmp_path.glob("report.*")]
    for text in (console.file.getvalue(), *files):
        assert not re.search(r"95 \\?%|Wilson|\d \[[-−\d]", text)
    if seeds > 1:
        runs = "(" + ", ".join(f"{0.5 + skill / 2:.3f}" for skill in expected) + ")"
        assert all(runs in text for text in (console.file.getvalue(), *files))
        assert re.search(f"[01] of {seeds}", console.file.getvalue())
        assert any("no interval" in text for text in files)


def test_five_seeds_have_intervals(tmp_path):
    report = Report(fill(tmp_path, lambda c: outcome(0.6 + 0.05 * c["seed"]), seeds=5))
    assert math.isfinite(report.rows[0].mean.low) and not report.rows[0].mean.runs
    assert "Score with 95 % intervals" in report.html() and "95 %" in report.markdown()
    assert "no interval" not in report.markdown()
