"""Tables as text: decimals, minus signs, Markdown and LaTeX."""

import math
import re
import shutil
import subprocess

import pytest
from ledgers import fill, outcome

from kbptt.ablation import markup, tables
from kbptt.ablation.reporting import Report
from kbptt.ablation.sections import Table
from kbptt.ablation.statistics import Estimate

HOSTILE = r"100% of $x_1$ & #2 {a}~^ \input{x} <b> |c| \"q\" − Δ"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 0.61234, 0.7], ["0.500", "0.612", "0.700"]),
        ([0.167, 0.0005], ["0.16700", "0.00050"]),
        ([12.34, 0.5], ["12.34", "0.50"]),
        ([1234.5, 3.0], ["1234.5", "3.0"]),
        ([1e8, 1.0], ["1.00e+08", "1.00e+00"]),
        ([2e-9, -3e-9], ["2.00e−09", "−3.00e−09"]),
        ([-0.25, -0.0, 0.0], ["−0.250", "0.000", "0.000"]),
        ([math.nan, 1.0], ["", "1.00"]),
        ([math.inf, -math.inf, 1.0], [">1.8e308", "<−1.8e308", "1.00"]),
        ([], []),
    ],
)
def test_a_column_has_one_number_of_decimals(values, expected):
    assert list(map(tables.Decimals(values), values)) == expected


def test_differences_have_signs_and_the_decimals_of_the_largest():
    write = tables.Decimals([0.25, -0.0004, 0.0], small=False)
    assert [write(v, sign=True) for v in (0.25, -0.0004, 0.0)] == ["+0.250", "0.000", "0.000"]
    estimate = Estimate(-0.25, -0.5, 0.125, "BCa")
    assert tables.show_estimate(estimate, write, sign=True) == "−0.250 [−0.500, 0.125]"


def test_columns_of_a_report_are_uniform_and_the_file_of_numbers_has_no_typography(tmp_path):
    def score(config):
        clip = config["method"]["name"] == "clip"
        return outcome(0.51 + config["seed"] / 70 - 0.1 * clip, metric="m", mode="min")

    report = Report(fill(tmp_path, score, seeds=6))
    for title, header, lines in report.tables():
        for name, column in zip(header, zip(*lines, strict=True), strict=True):
            if name not in ("#", "method", "success", "clipped", "memory"):
                numbers = re.findall(r"\d+(?:\.(\d+))?", " ".join(column))
                assert len(set(map(len, numbers))) == 1, (title, name, column)
    delta = report.tables()[1].lines[0][report.tables()[1].header.index("Δ")]
    assert delta.startswith("−0.100 [−0.100, ")
    for text in (report.markdown(), report.html(), report.headline):
        words = re.sub(r"(?s)<svg.*?</svg>|<style.*?</style>", "", text)
        assert not re.search(r"[ >\[(]-\d", words)
    assert "−" not in report.csv()


def test_latex_tables(tmp_path):
    text = Report(fill(tmp_path, lambda c: outcome(0.6), seeds=6)).latex()
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 2
    assert text.count(r"\resizebox{\ifdim\width>\linewidth\linewidth") == 2 and "graphicx" in text
    assert r"\caption{All tasks: skill. baseline and clip tie on adding, at 0.600 accuracy" in text
    row = next(line for line in text.splitlines() if line.startswith("    clip"))
    assert row.endswith(r" \\") and "0.200" in row and "MiB" not in row
    columns = re.search(r"begin\{tabular\}\{(\w+)\}", text)[1]
    assert row.count("&") == len(columns) - 1 and "gap" in text


def test_what_latex_would_read_as_commands_is_escaped():
    escaped = markup.in_latex(HOSTILE)
    assert escaped.startswith(r"100\% of \$x\_1\$ \& \#2 \{a\}")
    assert r"\textbackslash{}input\{x\}" in escaped and escaped.endswith(r"$-$ $\Delta$")
    # Behind the `\\` of the line before, both would be its arguments.
    assert markup.in_latex("[1em]") == "{}[1em]" and markup.in_latex("*") == "{}*"


PREAMBLE = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}"


def typeset(directory, preamble, body):
    """What LaTeX says of a document with this body."""
    document = f"{preamble}\\begin{{document}}\n{body}\\end{{document}}\n"
    (directory / "a.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=directory, capture_output=True, check=False, timeout=120)
    written = done.stdout.decode(errors="replace")
    assert done.returncode == 0, written[-1500:]
    return written


def has_latex():
    if not shutil.which("pdflatex") or not shutil.which("kpsewhich"):
        return False
    found = subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False)
    return bool(found.stdout)


needs_latex = pytest.mark.skipif(not has_latex(), reason="needs pdflatex and booktabs")


@needs_latex
def test_latex_accepts_the_tables(tmp_path):
    table = Table(HOSTILE, ["#", "method", HOSTILE], [["1", "[a]", HOSTILE], ["2", "*", "<0.001"]])
    body = markup.latex([table, table], HOSTILE)
    typeset(tmp_path, PREAMBLE, body)


@needs_latex
@pytest.mark.parametrize("layout", ["", "[twocolumn]"])
def test_no_table_is_wider_than_a_line_of_the_paper(tmp_path, layout):
    def score(config):
        loss = 0.5 + config["seed"] / 70 + 0.1 * (config["method"]["name"] == "clip")
        return outcome(loss) if config["seed"] else "E: it hung"

    fill(tmp_path, score, seeds=4, methods=["baseline", "clip", "orthogonal+clip+timestep_clip"])
    written = typeset(tmp_path, PREAMBLE.replace("ss{", f"ss{layout}{{"), Report(tmp_path).latex())
    assert "Overfull" not in written, re.findall(r"Overfull.*", written)
