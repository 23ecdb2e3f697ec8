"""One training run of the command line: model, callbacks, checkpoints, summary."""

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

import kbptt
from kbptt import tasks
from kbptt.ablation import trial
from kbptt.analysis import gradient_flow, reach
from kbptt.cli.run_directory import (
    check_configuration,
    describe,
    remove_events,
    write_atomically,
)
from kbptt.tensorboard import command

# About as many gradient profiles are logged in a run, whatever its length.
PROFILES = 200


class Run:
    """Trains a task in a directory and can be continued there.

    The directory gets `run.json` (the configuration), `checkpoint-EPOCH.keras` after every epoch,
    TensorBoard files, and `model.keras` at the end. What a step does depends only on the weights,
    the seed and the epoch, so a continued run takes the same steps as an uninterrupted one.

    Args:
        config: The configuration of a trial, from `kbptt.ablation.Grid.cells`.
        clip: The threshold that was asked for besides the method's own clipping, or `None`.
        logdir: An existing directory.
        resume: Boolean, whether to continue a run found in `logdir`.
        sample: Integer. Characters to write at the end, for a text.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        clip: float | None,
        logdir: Path,
        resume: bool,
        sample: int,
    ):
        self.seed, self.epochs = config["seed"], config["training"]["epochs"]
        self.batch_size = config["training"]["batch_size"]
        self.logdir, self.sample = logdir, sample
        self.console = rich.console.Console(highlight=False)
        known = describe(config, clip)
        again = check_configuration(logdir / "run.json", known, resume)
        self.task, self.model, self.callbacks = trial.build(config)
        self.data = self.task.data(self.seed)
        self.checkpoints = Checkpoints(logdir)
        self.first_epoch, checkpoint = self.checkpoints.latest()
        if checkpoint is not None:
            self.model = checkpoint
        elif again:
            remove_events(logdir)
        write_atomically(
            logdir / "run.json", lambda path: path.write_text(json.dumps(known, indent=1))
        )

    def __call__(self) -> bool:
        """Trains, tests, saves and summarizes. Returns whether the test loss is finite."""
        if note := self.task.describe():
            self.console.print(note, markup=False)
        if self.first_epoch >= self.epochs:
            self.console.print(
                f"The run has {self.first_epoch} epochs already: nothing to train. To go on, give "
                f"--epochs {self.first_epoch + 1} or more."
            )
        else:
            if self.first_epoch:
                self.console.print(f"Continuing after epoch {self.first_epoch}.")
            self._fit()
        scores = self.model.evaluate(*self.data.test, verbose=0, return_dict=True)
        write_atomically(self.logdir / "model.keras", self.model.save)
        self._summarize(scores)
        if not np.isfinite(scores["loss"]):
            return False
        if isinstance(self.task, tasks.text.Text) and self.sample:
            self._write_sample()
        return True

    def _fit(self) -> None:
        steps = -(-len(self.data.train[0]) // self.batch_size)
        self.timer = Progressed(self.console, self.task, self.epochs, steps)
        self.flow = kbptt.callbacks.GradientFlow(
            str(self.logdir),
            log_freq=max(1, steps * self.epochs // PROFILES),
            **reach.measured(self.task, self.data, self.epochs),
        )
        callbacks = [
            EpochSeeds(self.seed),
            *self.callbacks,
            self.flow,
            keras.callbacks.TensorBoard(str(self.logdir), write_graph=False),
            self.checkpoints,
            self.timer,
        ]
        batches = tasks.batches(
            self.data.train, self.batch_size, self.seed, self.epochs, self.first_epoch
        )
        try:
            with self.timer:
                self.model.fit(
                    batches,
                    steps_per_epoch=steps,
                    initial_epoch=self.first_epoch,
                    epochs=self.epochs,
                    validation_data=self.data.validation,
                    validation_batch_size=self.batch_size,
                    callbacks=callbacks,
                    shuffle=False,  # `batches` did it
                    verbose=0,
                )
        except KeyboardInterrupt:
            self.console.print(f"Continue with --resume --logdir {self.logdir}", markup=False)
            raise
        except ValueError as error:
            # The arguments were checked before: this is no mistake of the user's.
            raise RuntimeError(f"Training failed. {error}") from error

    def _summarize(self, scores: Mapping[str, float]) -> None:
        task = self.task
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
        if self.first_epoch < self.epochs and np.isfinite(scores["loss"]):
            for layer in recurrent_layers(self.model):
                for name, value in self._gradient(layer):
                    table.add_row(f"{name} ({layer.name})", value)
            for callback in self.callbacks:
                if hasattr(callback, "statistics"):
                    rate = callback.statistics().get("clip_rate")
                    if rate is not None:
                        table.add_row("steps clipped", f"{100 * rate:.0f} %")
        if self.first_epoch < self.epochs:
            table.add_row("median step", f"{1000 * self.timer.seconds_per_step():.1f} ms")
        self.console.print(table, markup=False)
        # Outside of the table, which would break a long path where it cannot be copied.
        for line in (
            f"The model:   {self.logdir / 'model.keras'}",
            f"See it with: {command(self.logdir)}",
        ):
            self.console.print(line, markup=False, soft_wrap=True)

    def _gradient(self, layer: keras.layers.Layer) -> Iterator[tuple[str, str]]:
        """Decay and reach of a layer's gradient, by lag where losses stand at every timestep."""
        if self.task.outputs.per_timestep:
            profile = next((p for p in self.flow.lag_profiles if p.layer == layer.name), None)
            if profile is None:
                return
            truncation = getattr(layer, "truncation", None)
            flow = reach.statistics(profile.norms, truncation, profile.timesteps)
            measured = min(len(profile), getattr(truncation, "length", None) or len(profile))
            where = f"the last {flow['horizon']:.0f} of {measured} timesteps up to each loss"
        elif (norms := layer.gradient_norms) is None:
            return
        else:
            flow = gradient_flow.summarize(norms)
            where = f"the last {flow['horizon']:.0f} of {len(norms)} timesteps"
        if np.isfinite(flow["decay"]):  # two timesteps or more get some
            yield "gradient decay", f"{flow['decay']:.3f} per timestep"
        if np.isfinite(flow["horizon"]):
            yield "90 % of it within", where

    def _write_sample(self) -> None:
        written = tasks.text.generate(
            self.model, self.task, self.sample, seed=tasks.derive_seed(self.seed, "sample")
        )
        # The user's text may hold escape sequences; the terminal must not obey them.
        shown = [
            c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in written
        ]
        self.console.print("Sample text:", style="bold")
        self.console.print("".join(shown), markup=False)


def recurrent_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers that know the gradient norms of their timesteps."""
    return [x for x in model.layers if hasattr(type(x), "gradient_norms")]


class Checkpoints(keras.callbacks.Callback):
    """Keeps the newest complete checkpoint: model, optimizer and epoch in one file.

    `keras.callbacks.BackupAndRestore` writes several files, and a kill between them leaves a mix.
    """

    def __init__(self, directory: Path):
        super().__init__()
        self.directory = directory
        for partial in directory.glob(".checkpoint-*.partial.keras"):
            partial.unlink()

    def on_epoch_end(self, epoch, logs=None):
        # The validation has seen these weights. (The loss of a batch whose step a clipping callback
        # skipped may be NaN and the weights sound.)
        if not np.isfinite(logs["val_loss"]):
            self.model.stop_training = True
            return
        path = self.directory / f"checkpoint-{epoch + 1:06d}.keras"
        try:
            write_atomically(path, self.model.save)
        except OSError as error:
            # A full disk must not end the training; the checkpoint before this one is intact.
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
    """Sets the state of every layer's random numbers (dropout) from the seed and the epoch."""

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        for layer in self.model.layers:
            states = [v for v in layer.variables if v.name == "seed_generator_state"]
            for index, state in enumerate(states):
                # Not the variable's path: Keras counts the generators of the whole process in it.
                name = f"{layer.name}/random-{index}/epoch-{epoch}"
                state.assign([tasks.derive_seed(self.seed, name), 0])


class Progressed(keras.callbacks.Callback, contextlib.AbstractContextManager):
    """Rich progress bar of the current epoch and one line for every finished one."""

    def __init__(self, console: rich.console.Console, task: tasks.Task, epochs: int, steps: int):
        super().__init__()
        self.task, self.epochs, self.steps = task, epochs, steps
        self.durations: list[float] = []
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self):
        self.bar.start()
        self.row = self.bar.add_task("", total=self.steps, loss="", visible=False)
        return self

    def __exit__(self, *exception):
        self.bar.stop()

    def on_epoch_begin(self, epoch, logs=None):
        self.bar.reset(
            self.row,
            total=self.steps,
            description=f"epoch {epoch + 1}/{self.epochs}",
            visible=True,
            loss="",
        )

    def on_train_batch_begin(self, batch, logs=None):
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.durations.append(time.perf_counter() - self.begun)
        self.bar.update(self.row, completed=batch + 1, loss=f"loss {logs['loss']:.4f}")

    def on_epoch_end(self, epoch, logs=None):
        shown = ("loss", self.task.metric, "val_loss", f"val_{self.task.metric}")
        values = "  ".join(f"{key} {logs[key]:.4f}" for key in shown if key in logs)
        self.bar.console.print(f"epoch {epoch + 1}/{self.epochs}  {values}")

    def seconds_per_step(self) -> float:
        """Returns the median duration of a step; the first one, which compiles, is left out."""
        return float(np.median(self.durations[1:] or self.durations))
