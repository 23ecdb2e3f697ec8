"""What a notebook shows: figures as pictures, a report as itself."""

import nbclient
import nbformat
from ledgers import fill, outcome

CELLS = [
    "import kbptt; import numpy as np",
    "kbptt.tensorboard.heatmap_figure([0, 1], np.ones((2, 3)))",
    "kbptt.tensorboard.profile_figure({'lstm': [0.1, 0.5, 1.0]})",
    "kbptt.ablation.Report('study')",
    """
import keras
model = keras.Sequential([keras.Input((9, 1)), kbptt.LSTM(2, name="rnn"), keras.layers.Dense(1)])
model.compile("sgd", "mse", run_eagerly=True)
flow = kbptt.callbacks.GradientFlow(health="states")
model.fit(np.ones((4, 9, 1)), np.ones((4, 1)), verbose=0, callbacks=[flow])
flow.plot()
""",
    "flow.summary()",
]


def test_figures_and_reports_show_themselves(tmp_path):
    fill(tmp_path / "study", lambda c: outcome(0.6 + c["seed"] / 50), seeds=5)
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, CELLS)))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources
    ).execute()
    *cells, last = notebook.cells
    shown = [cell.outputs[-1].data if cell.outputs else {} for cell in cells]
    for figure in (shown[1], shown[2], shown[4]):
        assert figure["image/png"].startswith("iVBORw0KGgo")  # a PNG in base64
    report = shown[3]["text/html"]
    assert "baseline and clip tie on adding" in report and report.count("<figure>") == 2
    assert "<svg" in report and "<script" not in report and "<html" not in report
    assert "rnn: 1 of the 3 profiles" in last.outputs[-1].text


def test_a_report_is_shown_once(tmp_path):
    """As the value of the cell; what is printed is one output, without the tables and errors."""
    fill(tmp_path / "study", lambda c: "E: x" if c["seed"] == 4 else outcome(0.6), seeds=5)
    code = "import kbptt\nkbptt.ablation.report('study')"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources
    ).execute()
    *printed, shown = [o for o in notebook.cells[0].outputs if o.get("name") != "stderr"]
    # A client may get one output in several pieces, which it shows as one.
    assert "".join(part["text"] for part in printed) == "Report: study/report.html\n"
    page = shown["data"]["text/html"]
    assert "tie on adding" in page and "Crashed" in page and "clip/adding/4" in page
