"""Base class of the callbacks that measure or change gradients inside `model.fit`."""

import logging
import weakref
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kbptt import optimizers
from kbptt.callbacks import _substitution
from kbptt.optimizers.clipped import unique_name
from kbptt.optimizers.transform import COUNTS, NO_THRESHOLD, AddVariable, Schedule

_LOG = logging.getLogger("kbptt")


def active(model: Any) -> list["GradientTransform"]:
    """The gradient transforms of the `fit` that `model` is in, in the order they act."""
    substitution = _substitution.of(model)
    transforms: list[Any] = substitution.transforms
    return list(transforms) if substitution.in_fit() else []


def loss_scale(model: Any) -> float:
    """The loss scale of the last step of the `fit` that `model` is in; 1 without loss scaling."""
    clipped = _substitution.of(model).clipped if active(model) else None
    return 1.0 if clipped is None else clipped.last_loss_scale()


class GradientTransform(optimizers.GradientTransform, keras.callbacks.Callback):
    """A `kbptt.optimizers.GradientTransform` as a callback: it acts during `fit` only.

    Several of them in ``model.fit(callbacks=[...])`` act in the order given. Each works on the true
    gradient, the one that the optimizer is about to use: in float32 or float64, without loss scale,
    summed over replicas, averaged over accumulated batches. If any gradient of the model is NaN or
    Inf, the whole step is skipped: weights, optimizer slots, moving averages and
    `optimizer.iterations` stay as they are, and the step is counted and reported once per epoch.

    Each step of `fit` runs with a `kbptt.optimizers.Clipped` around the model's optimizer; between
    steps, and however `fit` ends, the model has its own optimizer.

    The state belongs to the optimizer: a second `fit` continues it, and so does a `fit` of a model
    that was saved after the last epoch and loaded. It is in this object, not in the model's file.
    `keras.callbacks.BackupAndRestore` saves and restores it, if it comes after this callback in the
    list. To use it in a different process, save it with `save_own_variables` and load it with
    `load_own_variables`:

    ```python
    clip.save_own_variables(state := {})
    np.savez("clip.npz", **state)
    clip.load_own_variables(np.load("clip.npz"))
    ```

    To write one, override `transform`, and `initial_memory` or `initial_memory_per_variable` if it
    has state:

    ```python
    class Halve(GradientTransform):
        def transform(self, gradients, norms, weights, state):
            return [g / 2 for g in gradients], [n / 2 for n in norms], state
    ```

    Args:
        threshold: Positive float, or a function of `optimizer.iterations` that returns one, such as
            a `keras.optimizers.schedules.LearningRateSchedule`. If it is a float, a callback can
            change it during `fit`: ``clip.threshold = 0.5``. Omitted if the transform has none or
            computes its own.
        variables: A regular expression, or several: the transform sees and changes only variables
            with a match in their path, e.g. `"recurrent_kernel"`. Defaults to `None`, all.
        name: String. Prefix of the epoch logs. Defaults to the class name in snake case.

    The arguments are also attributes. If you set them after a `fit`, they take effect in the next
    one, as does every public attribute of a subclass that `transform` reads.

    Attributes (TensorFlow variables, of the optimizer of the last `fit`):
        norm_before, norm_after: Global norm of the selected gradients before and after, at the last
            step that was not skipped.
        threshold: The bound at that step.
        step_count, clip_count, skipped_count: Steps taken, steps in which a gradient shrank, and
            steps skipped, since `fit` started.
    """

    # Whether it acts before all others, whatever the order of the callbacks.
    acts_first = False
    starts_with = "model.fit"
    _no_settings = ("params",)  # which Keras sets in every `fit`

    def __init__(
        self,
        threshold: float | Schedule = NO_THRESHOLD,
        *,
        variables: str | Sequence[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(threshold, variables=variables, name=name)
        keras.callbacks.Callback.__init__(self)
        self._log_name = self.name
        self._states = weakref.WeakKeyDictionary()  # optimizer -> state
        self._kept = None  # (iterations, state) at the end of the last epoch, or None and a state
        self._counts = (0, 0, 0)  # at the start of the epoch

    # State.

    def attach(
        self,
        optimizer: keras.optimizers.Optimizer,
        add: AddVariable,
        number: int | None = None,
    ) -> dict[str, keras.Variable]:
        known = self._states.get(optimizer, {})
        state = super().attach(
            optimizer,
            lambda name, value: known[name] if name in known else add(name, value),
            number,
        )
        self._states[optimizer] = {**known, **state}
        if self._kept is not None:
            self._restore(optimizer, state, new=set(state) - set(known))
        return state

    def _restore(self, optimizer: Any, state: dict[str, Any], new: set[str]) -> None:
        saved_at, values = self._kept
        iterations = _iterations(optimizer)
        # A loaded optimizer is new to this object, and as old as the one that was saved.
        names = set(state) if saved_at is None else new if iterations == saved_at > 0 else set()
        for name in (names & set(values)) - {"threshold"}:
            state[name].assign(values[name])
        if names and set(values) <= set(state):  # else the weights are not known yet
            self._kept = (iterations, values)

    def save_own_variables(self, store: Any) -> None:
        """Saves the state, as NumPy arrays by name, in the dictionary `store`."""
        for name, variable in (self.state or {}).items():
            store[name] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Makes the next `fit` continue from a state saved by `save_own_variables`."""
        self._kept = (None, {name: np.asarray(store[name]) for name in store.keys()})

    # Callback methods. Only `fit` calls them: evaluate and predict never see a transform.

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                f"{type(self).__name__} needs Keras on the TensorFlow backend. Received: "
                f"{keras.backend.backend()}. Set KERAS_BACKEND=tensorflow."
            )
        if self.model.built:
            self.check_variables(self.model.trainable_variables)
        _substitution.of(self.model).join(self)
        for name in COUNTS:
            self.state[name].assign(0)
        others = {other._log_name for other in active(self.model) if other is not self}
        self._log_name = unique_name(self.name, others)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._counts = self._current_counts()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        substitution = _substitution.of(self.model)
        substitution.take_step()
        if batch:
            substitution.check_traced()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        _substitution.of(self.model).check_traced()
        now = self._current_counts()
        steps, clips, skipped = (n - b for n, b in zip(now, self._counts, strict=True))
        transforms = active(self.model)
        if skipped and transforms and transforms[0] is self:
            _LOG.warning(
                "Epoch %d: %d of %d steps were skipped because a gradient was NaN or Inf.",
                epoch + 1,
                skipped,
                steps + skipped,
            )
        if logs is not None:
            logs.update(self._epoch_logs(steps, clips))
        self._keep()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._keep()
        _substitution.of(self.model).leave(self)

    def _keep(self) -> None:
        values: dict[str, Any] = {}
        self.save_own_variables(values)
        self._kept = (_iterations(self.model.optimizer), values)

    def _epoch_logs(self, steps: int, clips: int) -> dict[str, float]:
        now = self.statistics()
        if self.observes_only:
            # Nothing was seen where a train_step of its own bypasses the optimizer.
            return {self._log_name: now["norm_before"]} if self._current_counts()[0] else {}
        now["clip_rate"] = clips / steps if steps else 0.0
        names = ("norm_before", "norm_after", "threshold", "clip_rate")
        return {f"{self._log_name}_{name}": now[name] for name in names}

    def _all_states(self) -> list[dict[str, Any]]:
        return [
            {name: variable.value for name, variable in state.items()}
            for state in self._states.values()
        ]


def _iterations(optimizer: keras.optimizers.Optimizer) -> int:
    iterations = optimizer.iterations  # a tensor if the optimizer accumulates gradients
    return int(getattr(iterations, "value", iterations).numpy())
