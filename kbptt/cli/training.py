"""`kbptt train` at work: a trial with a progress bar, checkpoints and a summary."""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rich.console

from kbptt import tasks
from kbptt.ablation.training import Training
from kbptt.cli import summary, terminal
from kbptt.cli.run_directory import (
    CHECKPOINT,
    describe,
    newest_checkpoint,
    remove_events,
    write_atomically as write_atomically,
)
from kbptt.cli.watching import Progressed as Progressed
from kbptt.layers.truncated import TruncatedLayer
from kbptt.tensorboard import command

# About as many gradient profiles are logged in a run, whatever its length.
PROFILES = 200


def run(
    config: Mapping[str, Any],
    logdir: Path,
    again: bool,
    sample: int,
    lags: int | None = None,
    health: bool = False,
) -> bool:
    """Trains a task in a directory, where it can be continued; tests, saves and summarizes.

    The directory gets `run.json` (the configuration), `checkpoint-EPOCH.keras` after every epoch,
    TensorBoard files, and `model.keras` at the end. What a step does depends only on the weights,
    the seed and the epoch, so a continued run takes the same steps as an uninterrupted one.

    Args:
        config: The configuration of a trial, from `kbptt.ablation.Grid.trials`.
        logdir: An existing directory.
        again: Boolean, whether `logdir` holds this run already, to be continued.
        sample: Integer. Characters to write at the end, for a text.
        lags: Integer, the gradients by lag to measure and show; 0 for none. Defaults to `None`, as
            in a comparison: some where there is a loss at every timestep, and only their reach is
            shown.
        health: Boolean, whether to log the health of the network. Defaults to `False`.

    Returns:
        Whether the test loss is finite.
    """
    console, known = terminal.console(), describe(config)
    with terminal.waiting("Building the model"):
        training, checkpoints = Training(config), Checkpoints(logdir)
        first_epoch, checkpoint = checkpoints.latest()
        if checkpoint is not None:
            training.model = checkpoint
        elif again:
            remove_events(logdir)
    write_atomically(logdir / "run.json", lambda path: path.write_text(json.dumps(known, indent=1)))
    for note in _notes(training):
        terminal.print_text(note)
    if first_epoch < config["training"]["epochs"]:
        if first_epoch:
            console.print(f"Continuing after epoch {first_epoch}.")
        _fit(training, logdir, first_epoch, console, checkpoints, lags, health)
    with terminal.waiting("Testing"):
        result = training.result() if training.has_run else {}
        scores = result.get("test") or training.test()
        write_atomically(logdir / "model.keras", training.model.save)
    console.print(summary.summary(training, scores, result), markup=False)
    if lags and training.lag_profiles:
        console.print(summary.by_lag(training), markup=False)
    # Outside of the table, which would wrap a long path so that it cannot be copied.
    for line in (f"The model:   {logdir / 'model.keras'}", f"See it with: {command(logdir)}"):
        console.print(line, markup=False, soft_wrap=True)
    if result.get("status") == "diverged" or not np.isfinite(scores["loss"]):
        return False
    if isinstance(training.task, tasks.text.Text) and sample:
        _write_sample(training, sample, console)
    return True


def _fit(
    training: Training,
    logdir: Path,
    first_epoch: int,
    console: rich.console.Console,
    checkpoints: "Checkpoints",
    lags: int | None,
    health: bool,
) -> None:
    epochs, seed = training.config["training"]["epochs"], training.config["seed"]
    progress = Progressed(console, training, epochs, first_epoch)
    observers = [EpochSeeds(seed), checkpoints, progress]
    begins_recording = keras.callbacks.LambdaCallback(on_epoch_end=progress.record_epoch)
    try:
        with progress:
            training.fit(
                logdir, observers, first_epoch, PROFILES, lags, [begins_recording], health=health
            )
    except KeyboardInterrupt:
        terminal.print_text("; ".join(_so_far(training, progress, logdir)) + ".")
        raise
    except ValueError as error:
        # The arguments were checked before, so this is not the user's mistake.
        raise RuntimeError(f"Training failed. {error}") from error


def _so_far(training: Training, progress: Progressed, logdir: Path) -> Iterator[str]:
    """Where a training was interrupted, and what there is of it."""
    place = "after" if progress.finished > progress.epoch else "in"
    yield f"Interrupted {place} epoch {progress.epoch + 1} of {progress.epochs}"
    saved, _ = newest_checkpoint(logdir)
    if saved:
        yield f"epoch {saved} is saved"
    if best := summary.best_so_far(training):
        yield best
    if training.settings["checkpoint"] == "best":
        yield "a run with --checkpoint best cannot be resumed: its best weights are not saved"


def _notes(training: Training) -> Iterator[str]:
    """The size of the model, and how the task is read where there is a choice."""
    count, steps = training.model.count_params(), training.feed.steps_per_epoch
    yield f"{count:,} parameters; {steps:,} step{'s' * (steps != 1)} per epoch."
    if training.task.has_streams:
        found, other = training.feed.describe(), "--windows for independent windows"
        if not training.config["training"].get("stream"):
            other = "--stream to carry the state"
        yield f"{found[0].upper()}{found[1:]}; {other}."


def _write_sample(training: Training, count: int, console: rich.console.Console) -> None:
    seed = tasks.derive_seed(training.config["seed"], "sample")
    written = tasks.text.generate(training.model, training.task, count, seed=seed)
    # The user's text may hold escape sequences; the terminal must not obey them.
    shown = [c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in written]
    console.print("Sample text:", style="bold")
    console.print("".join(shown), markup=False)


class Checkpoints(keras.callbacks.Callback):
    """Keeps the newest complete checkpoint: model, optimizer and epoch in one file.

    `keras.callbacks.BackupAndRestore` writes several files, which a kill can leave inconsistent.
    """

    def __init__(self, directory: Path):
        super().__init__()
        self.directory = directory
        for partial in directory.glob(".checkpoint-*.partial.keras"):
            partial.unlink()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # The validation loss, because that of a batch may be NaN while the weights are sound: a
        # clipping callback skips such a step.
        if not np.isfinite(logs["val_loss"]):
            return
        path = self.directory / CHECKPOINT.format(f"{epoch + 1:06d}")
        try:
            write_atomically(path, self.model.save)
        except OSError as error:
            # A full disk must not stop the training; the previous checkpoint is intact.
            warnings.warn(f"No checkpoint after epoch {epoch + 1}. {error}", stacklevel=2)
            return
        for older in self.directory.glob(CHECKPOINT.format("*")):
            if older < path:
                older.unlink()

    def latest(self) -> tuple[int, keras.Model | None]:
        """Returns the number of finished epochs and the model, or `(0, None)`."""
        epoch, path = newest_checkpoint(self.directory)
        return epoch, None if path is None else keras.models.load_model(path)


class EpochSeeds(keras.callbacks.Callback):
    """Seeds every layer's random numbers by the run's seed and the epoch.

    Those of dropout and zoneout, and of backward passes: ξ and h-detach.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for layer in self.model.layers:
            states = [v for v in layer.variables if v.name == "seed_generator_state"]
            if isinstance(layer, TruncatedLayer):
                states += layer.random_states()
            for index, state in enumerate(states):
                # Not the variable's path, which counts the generators of the whole process.
                name = f"{layer.name}/random-{index}/epoch-{epoch}"
                state.assign([tasks.derive_seed(self.seed, name), 0])
