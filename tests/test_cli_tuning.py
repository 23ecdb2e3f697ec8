"""`kbptt compare --tune` as it is typed."""

import pathlib

import pytest
from command_line import kbptt, refused

STUDY = ("compare", "--tasks", "adding", "--methods", "baseline,clip", "--seeds", 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--trials", 8), "Pass at least one option with --tune"),
        (("--tune", "learning_rate"), "Expected name=value"),
        (("--tune", "learning_rate=0.1"), "Expected a range such as 1e-4..1e-2"),
        (("--tune", "units=4..8", "--tune", "model.units=8..16"), "One option is given twice"),
        (("--tune", "units=4..8", "--tune", "units=8..16"), "--tune units is given twice"),
        (("--tune", "units=4..8", "--units", 8), "given twice"),
        (("--tune", "units=4..8", "--trials", 4, "--trials", 5), "--trials is given twice"),
        (("--tune", "units=4..8", "--sampler", "random"), "one of 'quasi-random', 'tpe'"),
        (("--tune", "length=50..100"), "cannot be tuned"),
        (("--tune", "optimizer=sgd,sgdd"), "Unknown optimizer: 'sgdd' (did you mean 'sgd'?)"),
        (("--tune", "dropout=0..2"), "dropout=2"),
        (("--tune", "zoneout=0.1..0.5", "--tune", "layer.foo=1..3"), "argument of LSTM: 'foo'"),
        (("--tune", "kernel_initializer=orthogonal,ortho"), "for `kernel_initializer`: 'ortho'"),
        (("--tune", "optimizer=sgd,adam", "--tune", "optimizer.momentum=0..0.9"), "of Adam"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, tmp_path):
    assert message in refused(*STUDY, *arguments, "--logdir", tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_a_tuned_study_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent / "ablation"))
    tuned = ("--tune", "learning_rate=1e-4..1e-2", "--tune", "clip=[0.5,1]", "--trials", 3)
    more = ("--tuning-seeds", 1, "--trial", "dummy_trials:validated", "--workers", 1)
    done = kbptt(*STUDY, *tuned, *more, "--logdir", tmp_path)
    assert done.exit_code == 0, done.output
    assert "10/10 done" in done.output  # 2 methods × (3 points × 1 seed + 2 seeds)
    shown = " ".join(done.output.split())
    assert "Tuning: clip one of 0.5, 1.0; learning_rate 0.0001 to 0.01, logarithmic" in shown
    shown = kbptt("report", tmp_path)
    assert shown.exit_code == 0 and "Tuning: clip one of" in shown.output
