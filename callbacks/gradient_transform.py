"""Base class of the callbacks that measure or change gradients inside `model.fit`."""

import logging
import math
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kbptt import _checks, clipping
from kbptt.callbacks._gradient_chain import GradientChain
from kbptt.callbacks._options import Fixed, Option

_LOG = logging.getLogger("kbptt")
_CHAIN = "_kbptt_gradient_chain"  # the attribute of a model that holds its chain

Schedule = Callable[[Any], Any]
_NO_THRESHOLD = object()


def active(model: keras.Model) -> list["GradientTransform"]:
    """The gradient transforms of the `fit` that `model` is in, in the order they act."""
    chain = getattr(model, _CHAIN, None)
    return list(chain.transforms) if chain is not None and chain.in_fit() else []


def loss_scale(model: keras.Model) -> float:
    """The loss scale of the last step of the `fit` that `model` is in; 1 without loss scaling."""
    chain = getattr(model, _CHAIN, None)
    return chain.loss_scale() if chain is not None and chain.in_fit() else 1.0


class _StateVariable:
    """A TensorFlow variable of the callback's state, as a read-only attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, callback: Any, owner: type) -> Any:
        if callback is None:
            return self
        if callback.state is None:
            raise AttributeError(f"`{self.name}` exists once `model.fit` has started.")
        return callback.state[self.name]

    def __set__(self, callback: Any, value: Any) -> None:
        raise AttributeError(
            f"`{self.name}` of {type(callback).__name__} is measured or computed in `fit` and "
            "cannot be set."
        )


class Threshold(_StateVariable):
    """The bound as an attribute: a variable to read, which may be set as in `__init__`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = "threshold"  # whatever `__init__` calls it

    def __set__(self, callback: Any, value: Any) -> None:
        if callback._threshold is None:
            super().__set__(callback, value)
        callback._threshold = callback._checked_threshold(value)
        for state in callback._states.values():
            state["threshold"].assign(callback._first_threshold())


class GradientTransform(keras.callbacks.Callback):
    """A change or a measurement of the gradient between backpropagation and optimizer.

    Several of them in ``model.fit(callbacks=[...])`` act in the order given. Each works on the true
    gradient, the one that the optimizer is about to use: in float32 or float64, without loss scale,
    summed over replicas, averaged over accumulated batches. If any gradient of the model is NaN or
    Inf, the whole step is skipped: weights, optimizer slots, moving averages and
    `optimizer.iterations` stay as they are, and the step is counted and reported once per epoch.

    To write another one, override `transform`, and `initial_memory` if it remembers anything:

    ```python
    class Halve(GradientTransform):
        def transform(self, gradients, norms, weights, state):
            return [g / 2 for g in gradients], [n / 2 for n in norms], state
    ```

    Args:
        threshold: Positive float, or a function of `optimizer.iterations` that returns one, such as
            a `keras.optimizers.schedules.LearningRateSchedule`. While it is a float, another
            callback may change it during `fit`: ``clip.threshold = 0.5``. Left out if the
            transform has none or makes its own.
        variables: A regular expression, or several: the transform sees and changes only variables
            with a match in their path, e.g. `"recurrent_kernel"`. Defaults to `None`, all.
        name: String. Prefix of the epoch logs. Defaults to the class name in snake case.

    The arguments are attributes as well. Set after a `fit`, they take effect in the next one; so
    does every public attribute of a subclass that `transform` reads.

    Attributes (TensorFlow variables, of the optimizer of the last `fit`):
        norm_before, norm_after: Global norm of the chosen gradients before and after, at the last
            step that was not skipped.
        threshold: The bound at that step.
        step_count, clip_count, skipped_count: Steps that were taken, those of them in which a
            gradient shrank, and steps skipped, since `fit` started.
    """

    # A chain of mere observers changes nothing at all: it also lets NaN pass to the optimizer.
    observes_only = False
    _threshold_name = "threshold"  # of the argument of `__init__`

    norm_before = _StateVariable()
    norm_after = _StateVariable()
    threshold = Threshold()
    step_count = _StateVariable()
    clip_count = _StateVariable()
    skipped_count = _StateVariable()

    variables = Option(lambda _, value: _patterns(value))
    name = Option(lambda _, value: _checked_name(value))
    state = Fixed(lambda self: self._state, "It belongs to the optimizer of the last `fit`.")

    def __init__(
        self,
        threshold: float | Schedule = _NO_THRESHOLD,
        *,
        variables: str | Sequence[str] | None = None,
        name: str | None = None,
    ):
        super().__init__()
        none = threshold is _NO_THRESHOLD
        self._threshold = None if none else self._checked_threshold(threshold)
        self.variables = variables
        default = re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", type(self).__name__).lower()
        self.name = default if name is None else name
        self._log_name = self.name
        self._state = None
        self._states = weakref.WeakKeyDictionary()  # optimizer -> state
        self._counts = (0, 0, 0)  # at the start of the epoch

    # For subclasses.

    def transform(
        self, gradients: list, norms: list, weights: list, state: dict[str, Any]
    ) -> tuple[list, list | None, dict[str, Any]]:
        """The new gradients, their norms (or `None` to have them measured) and the new state.

        Traced into the train step: written with `keras.ops` or TensorFlow operations.

        Args:
            gradients: Tensors in float32 or float64: the chosen variables' gradients. Of a sparse
                gradient, the rows that occur; they can only be scaled.
            norms: The Euclidean norm of each, scalars.
            weights: The variables they belong to.
            state: `"threshold"` and what `initial_memory` declared, as tensors.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `transform`.")

    def initial_memory(self) -> dict[str, Any]:
        """Start values, by name, of what the transform remembers from step to step."""
        return {}

    # What the chain calls.

    def attach(self, optimizer: keras.optimizers.Optimizer, strategy: tf.distribute.Strategy):
        """Takes up the state kept for `optimizer`, or starts one."""
        if optimizer not in self._states:
            memory = {"threshold": self._first_threshold(), **self.initial_memory()}
            for name in ("norm_before", "norm_after"):
                memory[name] = 0.0
            for name in ("step_count", "clip_count", "skipped_count"):
                memory[name] = np.int64(0)
            with strategy.scope():
                self._states[optimizer] = {n: _variable(n, v) for n, v in memory.items()}
        self._state = self._states[optimizer]
        for name in ("step_count", "clip_count", "skipped_count"):
            self.state[name].assign(0)
        if callable(self._threshold):
            value = float(keras.ops.convert_to_numpy(self._threshold(optimizer.iterations)))
            _checks.number(f"{self._threshold_name}(optimizer.iterations)", value, above=0)

    def settings(self) -> list:
        """What `transform` may read, for an identity comparison: another value needs a new trace.

        That is every attribute of this class and of subclasses that the user can set.
        """
        values = {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and name != "params"  # Keras sets these in every `fit`
        }
        # A copy of a list, which may be changed in place.
        public = [tuple(v) if isinstance(v, list) else v for v in values.values()]
        return [self._threshold if callable(self._threshold) else None, *public]

    def step(
        self, gradients: list, norms: list, weights: list, iterations: Any
    ) -> tuple[list, list, list[tuple]]:
        """Transforms the chosen ones of `gradients`; also returns the state's (variable, value)."""
        chosen = self._chosen(weights)
        if not chosen:  # all that the pattern matches have no gradient, or none in this call
            self._check_variables()
            return gradients, norms, []
        state = {name: tf.convert_to_tensor(variable) for name, variable in self.state.items()}
        if callable(self._threshold):
            state["threshold"] = keras.ops.cast(self._scheduled(iterations), "float32")
        # A schedule or another callback may go below 0 or to NaN: then the step is 0, not wild.
        state["threshold"] = keras.ops.where(state["threshold"] >= 0, state["threshold"], 0.0)
        before = [norms[i] for i in chosen]
        changed, after, state = self.transform(
            [gradients[i] for i in chosen], before, [weights[i] for i in chosen], state
        )
        after = clipping.norms(changed) if after is None else after
        # More than rounding: a gradient that lies on its bound already counts as not clipped.
        shrank = keras.ops.any(keras.ops.stack(after) < keras.ops.stack(before) * (1 - 1e-6))
        state["norm_before"] = clipping.combine(before)
        state["norm_after"] = clipping.combine(after)
        state["step_count"] += 1
        state["clip_count"] += keras.ops.cast(shrank, "int64")
        gradients, norms = list(gradients), list(norms)
        for i, gradient, norm in zip(chosen, changed, after, strict=True):
            gradients[i], norms[i] = gradient, norm
        counted = [name for name in state if name != "skipped_count"]
        return gradients, norms, [(self.state[name], state[name]) for name in counted]

    # What the user sees.

    def statistics(self) -> dict[str, float]:
        """Norms and threshold of the last step, and clip rate and skipped steps of this `fit`."""
        if self.state is None:
            raise RuntimeError(f"{type(self).__name__} has no statistics before `model.fit`.")
        steps, clips, skipped = self._current_counts()
        names = ("norm_before", "norm_after", "threshold")
        measured = {name: float(self.state[name].numpy()) for name in names}
        return {**measured, "clip_rate": clips / steps if steps else 0.0, "skipped": float(skipped)}

    def get_config(self) -> dict[str, Any]:
        config = {"variables": self.variables, "name": self.name}
        if self._threshold is not None:
            is_number = isinstance(self._threshold, float)
            serialize = keras.saving.serialize_keras_object
            value = self._threshold if is_number else serialize(self._threshold)
            config[self._threshold_name] = value
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientTransform":
        config = dict(config)
        if isinstance(config.get(cls._threshold_name), dict):
            deserialize = keras.saving.deserialize_keras_object
            config[cls._threshold_name] = deserialize(config[cls._threshold_name])
        return cls(**config)

    # Callback methods. Only `fit` calls them: evaluate and predict are never touched.

    def on_train_begin(self, logs: dict | None = None) -> None:
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                f"{type(self).__name__} needs Keras on the TensorFlow backend. Received: "
                f"{keras.backend.backend()}. Set KERAS_BACKEND=tensorflow."
            )
        if self.model.built:
            self._check_variables()
        if not hasattr(self.model, _CHAIN):
            setattr(self.model, _CHAIN, GradientChain(self.model))
        chain = getattr(self.model, _CHAIN)
        chain.join(self)
        others = {other._log_name for other in chain.transforms if other is not self}
        number = 1
        while (name := self.name + (f"_{number}" if number > 1 else "")) in others:
            number += 1
        self._log_name = name

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._counts = self._current_counts()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        getattr(self.model, _CHAIN).announce()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
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

    def on_train_end(self, logs: dict | None = None) -> None:
        getattr(self.model, _CHAIN).leave(self)

    def _epoch_logs(self, steps: int, clips: int) -> dict[str, float]:
        now = self.statistics()
        if self.observes_only:
            # Nothing was seen where a train_step of its own bypasses the optimizer.
            return {self._log_name: now["norm_before"]} if self._current_counts()[0] else {}
        now["clip_rate"] = clips / steps if steps else 0.0
        names = ("norm_before", "norm_after", "threshold", "clip_rate")
        return {f"{self._log_name}_{name}": now[name] for name in names}

    # Details.

    def _current_counts(self) -> tuple[int, int, int]:
        names = ("step_count", "clip_count", "skipped_count")
        return tuple(int(self.state[name].numpy()) for name in names)

    def _checked_threshold(self, value: Any) -> float | Schedule:
        mend = "A function of the step, such as a LearningRateSchedule, is possible too."
        if callable(value):
            return value
        if isinstance(value, tf.Tensor | tf.Variable):  # as in clip.threshold = clip.threshold / 2
            value = value.numpy()
        return _checks.number(self._threshold_name, value, above=0, mend=mend)

    def _first_threshold(self) -> float:
        return self._threshold if isinstance(self._threshold, float) else math.inf

    def _scheduled(self, iterations: Any) -> Any:
        try:
            return self._threshold(iterations)
        except tf.errors.OperatorNotAllowedInGraphError as error:
            raise ValueError(
                f"`{self._threshold_name}` as a function of the step becomes a part of the train "
                "step. Expected Keras or TensorFlow operations, such as keras.ops.where(step < "
                "1000, 5.0, 1.0). Received one that asks for the step's value, as `if` does."
            ) from error

    def _chosen(self, weights: list) -> list[int]:
        paths = _paths(weights)
        if self.variables is None:
            return list(range(len(paths)))
        return [i for i, p in enumerate(paths) if any(re.search(v, p) for v in self.variables)]

    def _check_variables(self) -> None:
        weights = self.model.trainable_variables
        if self.variables is not None and not self._chosen(weights):
            raise ValueError(
                f"No trainable variable matches `variables`={self.variables!r} of "
                f"{type(self).__name__}. There are: {', '.join(_paths(weights))}."
            )


def _paths(weights: list) -> list[str]:
    return [getattr(weight, "path", weight.name) for weight in weights]


def _variable(name: str, value: Any) -> tf.Variable:
    value = np.asarray(value)
    dtype = tf.float32 if value.dtype.kind == "f" else tf.int64
    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(value, dtype=dtype, name=name, trainable=False, aggregation=first)


def _checked_name(name: Any) -> str:
    if not (isinstance(name, str) and name):
        raise ValueError(
            "Invalid value for argument `name`. Expected a string that is not empty, or None. "
            f"Received: name={name!r} (of type {type(name).__name__})."
        )
    return name


def _patterns(variables: Any) -> list[str] | None:
    if variables is None:
        return None
    patterns = [variables] if isinstance(variables, str) else variables
    try:
        patterns = [re.compile(pattern).pattern for pattern in patterns]
    except (TypeError, re.error):
        patterns = []
    if not patterns:
        raise ValueError(
            "Invalid value for argument `variables`. Expected a regular expression or several, "
            f"such as 'recurrent_kernel'. Received: variables={variables!r} (of type "
            f"{type(variables).__name__})."
        )
    return patterns
