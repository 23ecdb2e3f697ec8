"""Trains one trial: the only training loop of `kbptt train` and `kbptt compare`.

The callers differ in what they observe: a worker of `kbptt compare` stores the result, `kbptt
train` adds callbacks for the terminal and the checkpoints.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kbptt import callbacks
from kbptt.ablation import feeding
from kbptt.ablation.building import build
from kbptt.ablation.monitor import Monitor
from kbptt.ablation.options import show
from kbptt.ablation.rows import trial_key
from kbptt.analysis import reach


class Training:
    """A trial in this process: built by the constructor, trained by `fit`, judged by `result`.

    Args:
        config: A configuration from `Grid.trials`.

    Attributes:
        task: The `kbptt.tasks.Task`.
        model: The compiled model; a checkpoint may replace it before `fit`.
        feed: The data: `kbptt.ablation.feeding.Windows` or `Streams`.
        has_run: Whether `fit` has trained it.
    """

    def __init__(self, config: Mapping[str, Any]):
        self._started = time.perf_counter()
        self.config = config
        self.settings: Mapping[str, Any] = config["training"]
        self.task: Any
        self.model: Any
        self.task, self.model, self._callbacks = build(config)
        self.feed: feeding.Windows | feeding.Streams = feeding.of(self.task, config)
        self.has_run = False

    def fit(
        self,
        directory: str | os.PathLike[str],
        observers: Sequence[keras.callbacks.Callback] = (),
        first_epoch: int = 0,
        profiles: int = 100,
        lags: int | None = None,
        recording: Sequence[keras.callbacks.Callback] = (),
        **flow_options: Any,
    ) -> None:
        """Trains from `first_epoch` to the last epoch, with TensorBoard files in `directory`.

        Args:
            directory: Where the event files go.
            observers: Further callbacks, called after the method's own.
            first_epoch: Integer, the number of epochs that `model` has been trained for.
            profiles: Integer, about how many gradient profiles are logged, whatever the length.
            lags: Integer, how many gradients by lag to measure; 0 for none. Defaults to `None`:
                some, where there is a loss at every timestep (`kbptt.analysis.reach.measured`).
            recording: Callbacks that are called before those that record an epoch.
            **flow_options: Further arguments of `kbptt.callbacks.GradientFlow`.
        """
        epochs, steps = self.settings["epochs"], self.feed.steps_per_epoch
        flow = callbacks.GradientFlow(
            str(directory),
            max(1, steps * epochs // profiles),
            **(
                reach.measured(
                    self.task, self.feed.validation_windows(reach.SEQUENCES), epochs, lags
                )
                | flow_options
            ),
        )
        self._flow, self.has_run = flow, True
        self._monitor = Monitor(
            self.task, self.settings, steps, self.feed.timesteps, flow, first_epoch
        )
        self.model.fit(
            **self.feed.arguments(epochs, first_epoch),
            initial_epoch=first_epoch,
            epochs=epochs,
            callbacks=[
                *self.feed.callbacks,
                *self._callbacks,
                flow,
                *recording,
                keras.callbacks.TensorBoard(str(directory), write_graph=False),
                self._monitor,
                *observers,
            ],
            shuffle=False,  # the data are in their order
            verbose=0,
        )

    @property
    def best(self) -> tuple[int, float] | None:
        """The epoch with the best validation score so far, counted from 1, and that score."""
        if not self.has_run:
            return None
        epoch, score = self._monitor.best_epoch, self._monitor.best_score
        return None if epoch is None or score is None else (epoch, score)

    @property
    def epochs_run(self) -> list[int]:
        """The epochs that `fit` has finished, counted from 1."""
        return self._monitor.curve["epoch"] if self.has_run else []

    @property
    def lag_profiles(self) -> list[Any]:
        """The last gradients by lag of each layer; empty if none were measured."""
        return self._flow.lag_profiles if self.has_run else []

    def test(self) -> dict[str, float]:
        """All metrics of the model as it is, on the test data."""
        return _floats(self.feed.evaluate(self.model))

    def result(self, tested: bool = True) -> dict[str, Any]:
        """What `kbptt.ablation.trial.run` returns, without environment and files.

        Leaves the model with the weights of the epoch that was tested.

        Args:
            tested: Boolean, whether the score is that on the test data. Otherwise these are not
                read, the score is the validation score of the same epoch, and what figures are
                drawn from is left out. Defaults to `True`.
        """
        task, result = self.task, self._monitor.result()
        if not tested:
            del result["gradient"]
            if result["status"] == "ok":
                best = result["best_epoch"] if self.settings["checkpoint"] == "best" else 0
                score = result["curve"]["validation"][best - 1]
                result |= {"score": score, "validation_score": score}
        elif result["status"] == "ok":
            if self.settings["checkpoint"] == "best":
                self.model.set_weights(self._monitor.best_weights)
            test = self.test()
            result |= {"test": test, "score": test[task.metric]}
            if not math.isfinite(result["score"]):
                result |= {"status": "diverged", "score": None}
        result["clipping"] = self._clipping()
        result["cost"]["seconds"] = time.perf_counter() - self._started
        return {
            "metric": task.metric,
            "mode": task.mode,
            "baseline": float(task.baseline),
            "perfect": None if task.perfect is None else float(task.perfect),
            "success_threshold": None if task.success is None else float(task.success),
            "parameters": int(self.model.count_params()),
            **result,
        }

    def _clipping(self) -> dict[str, dict[str, float]]:
        """What each gradient transform of the method reports, by name."""
        found = {}
        for callback in self._callbacks:
            if hasattr(callback, "statistics") and not getattr(callback, "observes_only", False):
                name = getattr(callback, "name", None) or type(callback).__name__
                found[name] = _floats(callback.statistics())
        return found


def write_hparams(directory: str, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Fills TensorBoard's HParams tab: the options of the trial and its score."""
    from tensorboard.plugins.hparams import summary_v2

    from kbptt.tensorboard import writer

    options = {
        "method": config["method"]["name"],
        "task": config["task"]["name"],
        "seed": config["seed"],
        "status": result["status"],
    }
    for section in ("model", "optimizer", "training"):
        for name, value in config[section].items():
            if name != "layer":
                options[f"{section}.{name}"] = _hparam(value, (section, name))
    for section, values in (
        ("task", config["task"]["options"]),
        ("layer", config["model"]["layer"]),
    ):
        options |= {f"{section}.{name}": _hparam(value) for name, value in values.items()}
    summary = summary_v2.hparams_pb(options, trial_id=trial_key(config)[:16])
    values = [summary.value[0]]
    for name, value in (result.get("test") or {}).items():
        values.append(writer.scalar_value(f"test/{name}", value))
    values.append(writer.scalar_value("cost/seconds_per_step", result["cost"]["seconds_per_step"]))
    writer.EventWriter(directory).write(0, values)


def _hparam(value: Any, path: tuple[str, str] | None = None) -> str | float | bool:
    if isinstance(value, Mapping) and "object" in value:
        return str(value["object"]).partition(":")[2]
    return value if isinstance(value, str | float | int | bool) else show(value, path)


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
