"""`kbptt train` at work: a trial with a progress bar, checkpoints and a summary."""

import contextlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rich.box
import rich.console
import rich.table
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kbptt import tasks
from kbptt.ablation.training import Training
from kbptt.analysis import reach
from kbptt.cli import terminal
from kbptt.cli.run_directory import (
    check_configuration,
    describe,
    remove_events,
    write_atomically,
)
from kbptt.layers.truncated import TruncatedLayer
from kbptt.tensorboard import command

# About as many gradient profiles are logged in a run, whatever its length.
PROFILES = 200


def run(config: Mapping[str, Any], logdir: Path, resume: bool, sample: int) -> bool:
    """Trains a task in a directory, where it can be continued; tests, saves and summarizes.

    The directory gets `run.json` (the configuration), `checkpoint-EPOCH.keras` after every epoch,
    TensorBoard files, and `model.keras` at the end. What a step does depends only on the weights,
    the seed and the epoch, so a continued run takes the same steps as an uninterrupted one.

    Args:
        config: The configuration of a trial, from `kbptt.ablation.Grid.trials`.
        logdir: An existing directory.
        resume: Boolean, whether to continue a run found in `logdir`.
        sample: Integer. Characters to write at the end, for a text.

    Returns:
        Whether the test loss is finite.
    """
    console = rich.console.Console(highlight=False)
    known = describe(config)
    again = check_configuration(logdir / "run.json", known, resume)
    training, checkpoints = Training(config), Checkpoints(logdir)
    first_epoch, checkpoint = checkpoints.latest()
    if checkpoint is not None:
        training.model = checkpoint
    elif again:
        remove_events(logdir)
    write_atomically(logdir / "run.json", lambda path: path.write_text(json.dumps(known, indent=1)))
    for note in _notes(training):
        console.print(note, markup=False)
    result: dict[str, Any] = {}
    if first_epoch >= config["training"]["epochs"]:
        console.print(
            f"The run has {first_epoch} epochs already: nothing to train. To go on, give "
            f"--epochs {first_epoch + 1} or more."
        )
    else:
        if first_epoch:
            console.print(f"Continuing after epoch {first_epoch}.")
        _fit(training, logdir, first_epoch, console, checkpoints)
        result = training.result()
    scores = result.get("test") or training.test()
    write_atomically(logdir / "model.keras", training.model.save)
    console.print(_summary(training, scores, result), markup=False)
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
) -> None:
    epochs, seed = training.config["training"]["epochs"], training.config["seed"]
    progress = Progressed(console, training, epochs)
    try:
        with progress:
            training.fit(logdir, [EpochSeeds(seed), checkpoints, progress], first_epoch, PROFILES)
    except KeyboardInterrupt:
        console.print(f"Continue with --resume --logdir {logdir}", markup=False)
        raise
    except ValueError as error:
        # The arguments were checked before, so this is not the user's mistake.
        raise RuntimeError(f"Training failed. {error}") from error


def _notes(training: Training) -> Iterator[str]:
    """What the user should know about the task, and how it is read where there is a choice."""
    if note := training.task.describe():
        yield note
    if training.task.has_streams:
        found, other = training.feed.describe(), "--windows for independent windows"
        if not training.config["training"].get("stream"):
            other = "--stream to carry the state on"
        yield f"{found[0].upper()}{found[1:]}; {other}."


def _summary(
    training: Training, scores: Mapping[str, float], result: Mapping[str, Any]
) -> rich.table.Table:
    """The scores, and what `result` holds of the training (nothing if none was left to do)."""
    task = training.task
    table = rich.table.Table(box=rich.box.SIMPLE, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for key, value in scores.items():
        name = "bits per character" if key == "bits" else key
        note = f"   (without memory {task.baseline:.4f})" if key == task.metric else ""
        table.add_row(f"test {name}", f"{value:.4f}{note}")
    if task.success is not None:
        sign, better = (">=", 1) if task.mode == "max" else ("<=", -1)
        solved = better * scores[task.metric] >= better * task.success
        bound = f"{task.metric} {sign} {task.success:.4g}"
        table.add_row("solved", f"{'yes' if solved else 'no'}   ({bound})")
    if result.get("status") == "ok":
        for name, layer in result["gradient"].items():
            for what, value in _gradient(layer, task.outputs.per_timestep):
                table.add_row(f"{what} ({name})", value)
        for statistics in result["clipping"].values():
            if "clip_rate" in statistics:
                table.add_row("steps clipped", f"{100 * statistics['clip_rate']:.0f} %")
    if result:
        cost, unit = result["cost"], task.counts_in
        table.add_row("median step", f"{1000 * cost['seconds_per_step']:.1f} ms")
        table.add_row(f"{unit} per second", f"{cost['timesteps_per_second']:,.0f}")
    return table


def _gradient(layer: Mapping[str, Any], per_timestep: bool) -> Iterator[tuple[str, str]]:
    """Decay and horizon of a layer's gradient, by lag if there is a loss at every timestep."""
    flow, timesteps, of_a_loss = layer["statistics_end"], layer["record"]["timesteps"], ""
    if per_timestep:
        timesteps = min(timesteps, reach.lags_to_measure(timesteps))
        timesteps = min(timesteps, (layer["truncation"] or {}).get("length") or timesteps)
        of_a_loss = " up to each loss"
    if np.isfinite(flow["decay"]):  # two timesteps or more get some
        yield "gradient decay", f"{flow['decay']:.3f} per timestep"
    if np.isfinite(flow["horizon"]):
        yield (
            "90 % of it within",
            f"the last {flow['horizon']:.0f} of {timesteps} timesteps{of_a_loss}",
        )


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
        path = self.directory / f"checkpoint-{epoch + 1:06d}.keras"
        try:
            write_atomically(path, self.model.save)
        except OSError as error:
            # A full disk must not stop the training; the previous checkpoint is intact.
            warnings.warn(f"No checkpoint after epoch {epoch + 1}. {error}", stacklevel=2)
            return
        for older in self.directory.glob("checkpoint-*.keras"):
            if older < path:
                older.unlink()

    def latest(self) -> tuple[int, keras.Model | None]:
        """Returns the number of finished epochs and the model, or `(0, None)`."""
        paths = sorted(self.directory.glob("checkpoint-*.keras"))
        if not paths:
            return 0, None
        return int(paths[-1].stem.removeprefix("checkpoint-")), keras.models.load_model(paths[-1])


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


class Progressed(keras.callbacks.Callback, contextlib.AbstractContextManager):
    """Rich progress bar of the current epoch and one line for every finished one.

    The bar shows how many timesteps are trained on per second, since the epoch began but without
    the first step of all, which compiles.

    Ctrl-C ends the training at the next step at the latest: Python drops a `KeyboardInterrupt` that
    is raised in a finalizer.
    """

    def __init__(self, console: rich.console.Console, training: Training, epochs: int):
        super().__init__()
        self.task: tasks.Task = training.task
        self.epochs = epochs
        self.steps: int = training.feed.steps_per_epoch
        self.timesteps: float = training.feed.timesteps / self.steps  # of a step
        self.seconds: list[float] | None = None  # of the steps of the epoch
        self.bar: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(16),  # all columns fit into 80 characters
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> "Progressed":
        self.bar.start()
        self.row = self.bar.add_task("", total=self.steps, loss="", rate="", visible=False)
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.stop()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.bar.reset(
            self.row,
            total=self.steps,
            description=f"epoch {epoch + 1}/{self.epochs}",
            visible=True,
            loss="",
            rate="",
        )
        self.seconds = [] if self.seconds is not None else None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begun: float = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.seconds is None:
            self.seconds = []
        else:
            self.seconds.append(time.perf_counter() - self.begun)
        if terminal.interrupted():
            raise KeyboardInterrupt
        shown = {"loss": f"loss {logs['loss']:.4f}", "rate": self._rate()}
        self.bar.update(self.row, completed=batch + 1, **shown)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        shown = ("loss", self.task.metric, "val_loss", f"val_{self.task.metric}")
        values = "  ".join(f"{key} {logs[key]:.4f}" for key in shown if key in logs)
        self.bar.console.print(f"epoch {epoch + 1}/{self.epochs}  {values}")

    def _rate(self) -> str:
        if not self.seconds:
            return ""
        rate = self.timesteps * len(self.seconds) / sum(self.seconds)
        return f"{rate:,.0f} {self.task.counts_in}/s"
