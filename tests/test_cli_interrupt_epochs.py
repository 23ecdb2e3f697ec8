"""Ctrl-C around the end of an epoch: text, files and what is left to do say the same."""

import os
import re
import signal

import pytest
from command_line import kbptt, refused
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kbptt.ablation.monitor import Monitor
from kbptt.callbacks import GradientFlow
from kbptt.cli import run_directory, terminal, training

pytestmark = pytest.mark.usefixtures("working_directory")
DIGITS = ["train", "digits", "--units", "4", "-o", "sizes=[64,32,32]", "--batch-size", "16"]
DIGITS += ["--epochs", "3", "--logdir", "run"]
# Where Ctrl-C comes in epoch 2: the hook, whether before or after what is done there, and the
# newest epoch that has to be known then.
PLACES = {
    "validation": (training.Progressed, "on_test_batch_end", False, 1),
    "drawing": (GradientFlow, "on_epoch_end", True, 1),
    "recording": (Monitor, "on_epoch_end", True, 2),
    "before saving": (training.Checkpoints, "on_epoch_end", False, 2),
    "after saving": (training.Checkpoints, "on_epoch_end", True, 2),
    "showing": (training.Progressed, "on_epoch_end", False, 2),
}


@pytest.fixture
def interrupts():
    before = signal.getsignal(signal.SIGINT)
    terminal.handle_interrupts()
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(monkeypatch, place, *more):
    """Runs the command that gets Ctrl-C in epoch 2."""
    owner, hook, after, _ = PLACES[place]
    hook_before, epochs = getattr(owner, hook), []

    def begin(self, epoch, logs=None):
        epochs.append(epoch + 1)
        begin_before(self, epoch, logs)

    def interrupt(self, *arguments, **named):
        if after:
            hook_before(self, *arguments, **named)
        if epochs and epochs[-1] == 2 and not terminal.interrupted():
            os.kill(os.getpid(), signal.SIGINT)
        if not after:
            hook_before(self, *arguments, **named)

    begin_before = training.EpochSeeds.on_epoch_begin
    with monkeypatch.context() as patch:
        patch.setattr(training.EpochSeeds, "on_epoch_begin", begin)
        patch.setattr(owner, hook, interrupt)
        result = kbptt(*DIGITS, *more)
    assert result.exit_code == 130, result.output
    return result.stdout


@pytest.mark.parametrize("place", PLACES)
def test_an_epoch_is_recorded_saved_and_shown_or_none_of_these(
    place, interrupts, monkeypatch, working_directory
):
    shown, known = interrupted(monkeypatch, place), PLACES[place][-1]
    where = {1: "Interrupted in epoch 2 of 3; ", 2: "Interrupted after epoch 2 of 3; "}[known]
    assert f"{where}epoch {known} is saved; epoch " in shown
    assert re.findall(r"^epoch (\d)/3 .* val_loss", shown, re.MULTILINE) == ["1", "2"][:known]
    assert run_directory.newest_checkpoint(working_directory / "run")[0] == known
    best = int(re.search(r"epoch (\d) was the best", shown)[1])
    assert best <= known
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the next command is a new process
    resumed = kbptt(*DIGITS, "--resume")
    assert resumed.exit_code == 0 and f"Continuing after epoch {known}." in resumed.stdout
    losses = EventAccumulator("run/train", size_guidance={"tensors": 0}).Reload()
    assert [e.step for e in losses.Tensors("epoch_loss")] == [0, 1, 2]


def test_a_run_that_tests_its_best_epoch_says_that_it_cannot_be_continued(interrupts, monkeypatch):
    shown = interrupted(monkeypatch, "after saving", "--checkpoint", "best")
    assert "a run with --checkpoint best cannot be resumed" in shown
    assert "Continue with" not in shown
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the next command is a new process
    assert "cannot be combined with `--checkpoint best`" in refused(
        *DIGITS, "--checkpoint", "best", "--resume"
    )
