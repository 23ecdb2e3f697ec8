"""The progress of `kbptt train` in the terminal: a bar, a line for each epoch, the time left."""

import contextlib
import time
from typing import Any

import keras
import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from kbptt import tasks
from kbptt.ablation.progress import clock
from kbptt.ablation.training import Training
from kbptt.cli import terminal

COMPILING = "compiling the training step"


class Progressed(keras.callbacks.Callback, contextlib.AbstractContextManager):
    """Rich progress bar of the current epoch and one line for every finished one.

    The bar shows how many timesteps are trained on per second, since the epoch began but without
    the first step of all, which compiles; and the time left of the whole training.

    Ctrl-C ends the training at the next step at the latest: Python drops a `KeyboardInterrupt` that
    is raised in a finalizer. At the end of an epoch it waits, from `record_epoch` until the line is
    printed: an epoch is recorded, saved and shown, or it is none of these.
    """

    def __init__(
        self, console: rich.console.Console, training: Training, epochs: int, first_epoch: int = 0
    ):
        super().__init__()
        self.task: tasks.Task = training.task
        self.epochs = epochs
        self.epoch = self.finished = first_epoch
        self.steps: int = training.feed.steps_per_epoch
        self.timesteps: float = training.feed.timesteps / self.steps  # of a step
        self.seconds: list[float] | None = None  # of the steps of the epoch
        self.done = 0  # steps of the epoch
        self.of_a_step = 0.0  # the latest mean; 0 until the second step
        self.after_an_epoch = 0.0  # validation and checkpoint
        self._recording = contextlib.ExitStack()
        self.bar: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(10),  # all columns fit into 80 characters
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
        )

    def __enter__(self) -> "Progressed":
        self.bar.start()
        self.row = self.bar.add_task(
            COMPILING, total=self.steps, loss="", rate="", left="", visible=False
        )
        if not self.bar.console.is_terminal:
            terminal.say(f"{COMPILING.capitalize()} …")
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.stop()
        self._recording.__exit__(*exception)

    def record_epoch(self, epoch: int, logs: Any = None) -> None:
        """For the callback before all that record an epoch; this one has to be the last of them."""
        self._recording.enter_context(terminal.interrupts_held())

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.done = epoch, 0
        self.bar.reset(
            self.row,
            total=self.steps,
            description=COMPILING if self.seconds is None else self._described(),
            visible=True,
            loss="",
            rate="",
            left=self._left(),
        )
        self.seconds = [] if self.seconds is not None else None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begun: float = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ended: float = time.perf_counter()
        if self.seconds is None:
            self.seconds = []
        else:
            self.seconds.append(self.ended - self.begun)
            self.of_a_step = sum(self.seconds) / len(self.seconds)
        if terminal.interrupted():
            raise KeyboardInterrupt
        self.done = batch + 1
        self.bar.update(
            self.row,
            completed=self.done,
            description=self._described(),
            loss=f"loss {logs['loss']:.4f}",
            rate=self._rate(),
            left=self._left(),
        )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.after_an_epoch = time.perf_counter() - self.ended
        self.finished = epoch + 1
        shown = ("loss", self.task.metric, "val_loss", f"val_{self.task.metric}")
        values = "  ".join(f"{key} {logs[key]:.4f}" for key in shown if key in logs)
        left = "" if self.bar.console.is_terminal else self._left()  # the bar has it
        line = f"{self._described()}  {values}  {left}"
        self.bar.console.print(line.rstrip(), soft_wrap=True)
        self._recording.close()

    def seconds_left(self) -> float | None:
        """Estimate for all epochs that are left; None before the second step."""
        if not self.of_a_step:
            return None
        epochs = self.epochs - self.finished
        steps = epochs * self.steps - (self.done if self.finished == self.epoch else 0)
        return steps * self.of_a_step + epochs * self.after_an_epoch

    def _described(self) -> str:
        return f"epoch {self.epoch + 1}/{self.epochs}"

    def _left(self) -> str:
        left = self.seconds_left()
        return f"{clock(left)} left" if left else ""

    def _rate(self) -> str:
        if not self.seconds:
            return ""
        rate = self.timesteps / self.of_a_step
        return f"{rate:,.0f} {self.task.counts_in}/s"
