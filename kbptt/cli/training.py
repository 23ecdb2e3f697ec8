"""One training run of the command line: model, callbacks, checkpoints, summary."""

import contextlib
import json
import os
import time
import warnings
from collections.abc import Mapping
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
from kbptt.analysis import gradient_flow
from kbptt.tensorboard import command

# About as many gradient profiles are logged in a run, whatever its length.
PROFILES = 200


class Run:
    """Trains a task in a directory and can be continued there.

    The directory gets `run.json` (the configuration), `checkpoint-EPOCH.keras` after every epoch,
    TensorBoard files, and `model.keras` at the end. What a step does depends only on the weights,
    the seed and the epoch, so a continued run takes the same steps as an uninterrupted one.

    Args:
        task: A `kbptt.tasks.Task`.
        model: Arguments of `kbptt.tasks.build_model`.
        optimizer: `learning_rate`, `clip` (or `None`) and `batch_size`.
        options: The task's options as text, to recognize the run by.
        epochs: Integer. Epochs in all, those before a continuation included.
        logdir: An existing directory.
        resume: Boolean, whether to continue a run found in `logdir`.
        sample: Integer. Characters to write at the end, for a text.
    """

    def __init__(
        self,
        task: tasks.Task,
        model: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        options: Mapping[str, str],
        epochs: int,
        logdir: Path,
        resume: bool,
        sample: int,
    ):
        self.task, self.seed, self.epochs = task, model["seed"], epochs
        self.optimizer, self.logdir, self.sample = optimizer, logdir, sample
        self.console = rich.console.Console(highlight=False)
        config = {"task": task.name, **options, **model, **optimizer}
        check_configuration(logdir / "run.json", config, resume)
        self.data = task.data(self.seed)
        self.checkpoints = Checkpoints(logdir)
        self.first_epoch, self.model = self.checkpoints.latest()
        if self.model is None:
            keras.utils.set_random_seed(tasks.derive_seed(self.seed, "keras"))
            self.model = tasks.build_model(task, **model)
            self.model.compile(
                optimizer=keras.optimizers.Adam(optimizer["learning_rate"]),
                loss=task.loss(),
                metrics=task.metrics(),
            )
        write_atomically(
            logdir / "run.json", lambda path: path.write_text(json.dumps(config, indent=1))
        )

    def __call__(self) -> bool:
        """Trains, tests, saves and summarizes. Returns whether the test loss is finite."""
        clip = self.optimizer["clip"]
        clipping = None if clip is None else kbptt.callbacks.ClipByGlobalNorm(clip)
        if self.first_epoch:
            self.console.print(f"Continuing after epoch {self.first_epoch}.")
        if self.first_epoch < self.epochs:
            self._fit(clipping)
        scores = self.model.evaluate(*self.data.test, verbose=0, return_dict=True)
        write_atomically(self.logdir / "model.keras", self.model.save)
        self._summarize(scores, clipping)
        if not np.isfinite(scores["loss"]):
            return False
        if isinstance(self.task, tasks.text.Text) and self.sample:
            self._write_sample()
        return True

    def _fit(self, clipping) -> None:
        batch_size = self.optimizer["batch_size"]
        steps = -(-len(self.data.train[0]) // batch_size)
        self.timer = Progressed(self.console, self.task, self.epochs, steps)
        callbacks = [
            EpochSeeds(self.seed),
            *([] if clipping is None else [clipping]),
            kbptt.callbacks.GradientFlow(
                str(self.logdir), log_freq=max(1, steps * self.epochs // PROFILES)
            ),
            keras.callbacks.TensorBoard(str(self.logdir), write_graph=False),
            self.checkpoints,
            self.timer,
        ]
        batches = tasks.batches(
            self.data.train, batch_size, self.seed, self.epochs, self.first_epoch
        )
        try:
            with self.timer:
                self.model.fit(
                    batches,
                    steps_per_epoch=steps,
                    initial_epoch=self.first_epoch,
                    epochs=self.epochs,
                    validation_data=self.data.validation,
                    validation_batch_size=batch_size,
                    callbacks=callbacks,
                    shuffle=False,  # `batches` did it
                    verbose=0,
                )
        except KeyboardInterrupt:
            self.console.print(f"Continue with --resume --logdir {self.logdir}", markup=False)
            raise
        except ValueError as error:
            # The arguments were checked before: this is no mistake of the user's.
            raise RuntimeError("Training failed.") from error

    def _summarize(self, scores: Mapping[str, float], clipping) -> None:
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
        for layer in recurrent_layers(self.model):
            norms = layer.gradient_norms
            if norms is None:  # nothing was trained: the run had all its epochs before
                continue
            flow = gradient_flow.summarize(norms)
            if np.isfinite(flow["decay"]):  # two timesteps or more get some
                table.add_row(f"gradient of {layer.name}", f"x {flow['decay']:.4f} a timestep back")
            table.add_row(
                "90 % of it reaches", f"the last {flow['horizon']:.0f} of {len(norms)} timesteps"
            )
        if self.first_epoch < self.epochs:
            if clipping is not None:
                table.add_row("steps clipped", f"{100 * clipping.statistics()['clip_rate']:.0f} %")
            table.add_row("median step", f"{1000 * self.timer.seconds_per_step():.1f} ms")
        self.console.print(table, markup=False)
        # Outside of the table, which would break a long path where it cannot be copied.
        for line in (
            f"The model:   {self.logdir / 'model.keras'}",
            f"See it with: {command(self.logdir)}",
        ):
            self.console.print(line, markup=False, soft_wrap=True)

    def _write_sample(self) -> None:
        written = tasks.text.generate(
            self.model, self.task, self.sample, seed=tasks.derive_seed(self.seed, "sample")
        )
        # The user's text may hold escape sequences; the terminal must not obey them.
        shown = [
            c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in written
        ]
        self.console.print("A sample of its writing:", style="bold")
        self.console.print("".join(shown), markup=False)


def recurrent_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers that know the gradient norms of their timesteps."""
    return [x for x in model.layers if hasattr(type(x), "gradient_norms")]


def check_configuration(path: Path, config: Mapping[str, Any], resume: bool) -> None:
    """Raises `ValueError` if `path` belongs to another run than the one described by `config`."""
    if not path.exists():
        return
    if not resume:
        raise ValueError(
            f"{path.parent} already holds a run. Add --resume to continue it, or choose another "
            "--logdir."
        )
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged. Choose another --logdir.") from error
    differences = [
        f"{key} was {before.get(key)} and is now {config.get(key)}"
        for key in sorted({*before, *config})
        if before.get(key) != config.get(key)
    ]
    if differences:
        raise ValueError(
            f"The run in {path.parent} has another configuration: {'; '.join(differences)}."
        )


def write_atomically(path: Path, write) -> None:
    """Calls `write(temporary)` and renames: `path` is whole or absent, whatever happens."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


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
