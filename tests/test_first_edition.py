"""Files written by the first edition (0.1.0) still mean what they meant.

``tests/data/first_edition`` holds models after two epochs of `fit`, each with its predictions and
the norms and predictions of one more step, and a ledger with its report. Event logs are the subject
of tensorboard/test_event_logs.py.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kbptt

DATA = Path(__file__).parent / "data/first_edition"
rng = np.random.default_rng(0)
X = rng.normal(size=(4, 9, 2)).astype("float32")
Y = rng.normal(size=(4, 9, 1)).astype("float32")


@pytest.mark.parametrize("name", ["lstm", "gru", "simple_rnn", "rnn"])
def test_a_model_predicts_and_goes_on_training_as_it_did(name):
    model = keras.models.load_model(DATA / f"{name}.keras")
    kept = np.load(DATA / f"{name}.npz")
    np.testing.assert_allclose(model.predict(X, verbose=0), kept["predictions"], atol=1e-6)
    # Adam divides a gradient by its size, and so magnifies the rounding of a small one, which with
    # AVX-512 is not that of the file.
    with kbptt.engine.using(instruction_set="baseline"):
        model.train_on_batch(X, Y)
    found = [la.gradient_norms for la in model.layers if hasattr(la, "gradient_norms")]
    np.testing.assert_allclose(found, kept["norms"], rtol=1e-5)
    np.testing.assert_allclose(model.predict(X, verbose=0), kept["after"], atol=2e-6)


def test_the_options_of_a_model_are_those_it_was_saved_with():
    layers = {
        name: keras.models.load_model(DATA / f"{name}.keras").layers[0]
        for name in ("lstm", "gru", "simple_rnn", "rnn", "artbp")
    }
    assert layers["lstm"].truncation == kbptt.truncation.Windowed(4)
    assert (
        layers["lstm"].normalization.get_config() == kbptt.normalization.get("layer").get_config()
    )
    assert isinstance(layers["lstm"].gradient_regularizer, kbptt.regularizers.VanishingGradient)
    assert layers["gru"].truncation == kbptt.truncation.Windowed(5, 2)
    assert layers["gru"].gradient_clip == pytest.approx(0.1)
    assert layers["simple_rnn"].truncation == kbptt.truncation.Full()
    assert layers["rnn"].truncation == kbptt.truncation.Windowed(3, align="start")
    assert layers["artbp"].truncation == kbptt.truncation.Randomized.artbp(5, seed=3)


def test_a_ledger_gives_the_report_that_it_gave_and_its_trials_are_not_trained_again(tmp_path):
    shutil.copytree(DATA / "study", tmp_path / "study")
    expected = (tmp_path / "study/report.md").read_text()
    (tmp_path / "study/report.md").unlink()
    command = "compare --tasks adding --methods baseline,autoclip --seeds 2 -o length=12 --epochs 1"
    subprocess.run(
        [sys.executable, "-m", "kbptt", *command.split(), "--logdir", "study"],
        check=True,
        cwd=tmp_path,
        timeout=300,
        capture_output=True,
    )
    assert not (tmp_path / "study/baseline").exists()
    found = tables((tmp_path / "study/report.md").read_text())
    for old, new in zip(tables(expected), found, strict=True):
        assert len(old) > 1 and len(old) == len(new)
        for before, now in zip(old, new, strict=True):
            assert set(before) <= set(now)  # columns were added
            for column, cell in before.items():
                (values, digits), (again, _) = numbers(cell), numbers(now[column])
                assert again == pytest.approx(values, abs=0.51 * 10.0**-digits), column


def tables(report):
    """The lines of each table of a report, dicts by column."""
    found = []
    for table in re.split(r"\n## ", report):
        rows = [row.strip("| ").split(" | ") for row in table.splitlines() if row[:2] == "| "]
        if rows:
            found.append([dict(zip(rows[0], row, strict=False)) for row in rows])
    return found


def numbers(cell):
    """The numbers in a cell, and the fewest decimals that one of them has."""
    found = re.findall(r"-?\d+\.\d+", cell.replace("\N{MINUS SIGN}", "-"))
    return list(map(float, found)), min((len(n.partition(".")[2]) for n in found), default=0)
