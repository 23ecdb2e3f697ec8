"""Base class of what `Clipped` does to a gradient before the optimizer uses it."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kbptt import _checks
from kbptt._attributes import Fixed, Option
from kbptt.optimizers import clipping

Schedule = Callable[[Any], Any]
# Called with the name and start value of a variable; returns the variable.
AddVariable = Callable[[str, Any], keras.Variable]
# What a transform remembers, by name, and what it returns: gradients, norms and new state.
State: TypeAlias = dict[str, Any]
Values: TypeAlias = list[Any]
Transformed: TypeAlias = tuple[Values, Values | None, State]
NO_THRESHOLD: Any = object()
COUNTS = ("step_count", "clip_count", "skipped_count")


class _StateVariable:
    """A TensorFlow variable of the transform's state, as a read-only attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, transform: Any, owner: type) -> Any:
        if transform is None:
            return self
        if transform.state is None:
            raise AttributeError(
                f"`{self.name}` exists once `{transform.starts_with}` has started."
            )
        return transform.state[self.name]

    def __set__(self, transform: Any, value: Any) -> None:
        raise AttributeError(
            f"`{self.name}` of {type(transform).__name__} is measured or computed in training "
            "and cannot be set."
        )


class Threshold(_StateVariable):
    """The bound as an attribute: a variable to read, which may be set as in `__init__`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = "threshold"  # whatever `__init__` calls it

    def __set__(self, transform: Any, value: Any) -> None:
        if transform._threshold is None:
            super().__set__(transform, value)
        transform._threshold = transform._checked_threshold(value)
        for state in transform._all_states():
            state["threshold"].assign(transform._first_threshold())


class GradientTransform:
    """A change or a measurement of the gradient between backpropagation and optimizer.

    Belongs to the `kbptt.optimizers.Clipped` it is given to, whose variables keep its state.
    Subclasses override `transform`, and `initial_memory` or `initial_memory_per_variable` if they
    have state:

    ```python
    @keras.saving.register_keras_serializable()
    class Halve(kbptt.optimizers.GradientTransform):
        def transform(self, gradients, norms, weights, state):
            return [g / 2 for g in gradients], [n / 2 for n in norms], state
    ```

    Args:
        threshold: Positive float, or a function of `optimizer.iterations` that returns one, such as
            a `keras.optimizers.schedules.LearningRateSchedule`. A float can be changed during
            training: ``clip.threshold = 0.5``. Omitted if the transform has none or computes its
            own.
        variables: A regular expression, or several: the transform sees and changes only variables
            with a match in their path, e.g. `"recurrent_kernel"`. Defaults to `None`, all.
        name: String. Prefix of the names of its variables. Defaults to the class name in snake
            case.

    Attributes (TensorFlow variables):
        norm_before, norm_after: Global norm of the selected gradients before and after, at the last
            step that was not skipped.
        threshold: The bound at that step.
        step_count, clip_count, skipped_count: Steps taken, steps in which a gradient shrank, and
            steps skipped.
    """

    # A chain of mere observers changes nothing at all: it also lets NaN pass to the optimizer.
    observes_only = False
    starts_with = "Clipped"  # what creates the state, for messages
    _threshold_name = "threshold"  # of the argument of `__init__`
    _no_settings: tuple[str, ...] = ()  # public attributes that `transform` never reads

    norm_before: _StateVariable = _StateVariable()
    norm_after: _StateVariable = _StateVariable()
    threshold: Threshold = Threshold()
    step_count: _StateVariable = _StateVariable()
    clip_count: _StateVariable = _StateVariable()
    skipped_count: _StateVariable = _StateVariable()

    variables: Option[list[str] | None] = Option(lambda _, value: _patterns(value))
    name: Option[str] = Option(lambda _, value: _checked_name(value))
    state: Fixed[Any] = Fixed(lambda self: self._state, "It belongs to the optimizer.")

    def __init__(
        self,
        threshold: float | Schedule = NO_THRESHOLD,
        *,
        variables: str | Sequence[str] | None = None,
        name: str | None = None,
    ):
        none = threshold is NO_THRESHOLD
        self._threshold: Any = None if none else self._checked_threshold(threshold)
        self.variables = variables
        default = re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", type(self).__name__).lower()
        self.name = default if name is None else name
        self._state = None

    # For subclasses.

    def transform(
        self, gradients: Values, norms: Values, weights: Values, state: State
    ) -> Transformed:
        """Returns the new gradients, their norms (`None` to have them measured) and the new state.

        Traced into the train step: written with `keras.ops` or TensorFlow operations.

        Args:
            gradients: Tensors in float32 or float64: the selected variables' gradients. For a
                sparse gradient, only the rows that occur; they can only be scaled.
            norms: The Euclidean norm of each, scalars.
            weights: The variables they belong to.
            state: `"threshold"` and what `initial_memory` declared, as tensors; what
                `initial_memory_per_variable` declared as vectors, one number for each gradient.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `transform`.")

    def initial_memory(self) -> dict[str, Any]:
        """Start values, by name, of the state that the transform keeps from step to step."""
        return {}

    def initial_memory_per_variable(self) -> dict[str, Any]:
        """Start values, by name, of the state kept for each trainable variable."""
        return {}

    # What `Clipped` calls.

    def attach(
        self,
        optimizer: keras.optimizers.Optimizer,
        add: AddVariable,
        number: int | None = None,
    ) -> dict[str, keras.Variable]:
        """Creates the state, or the rest of it once the weights are known.

        Args:
            optimizer: The one that will use the gradients.
            add: Called with the name and start value of every variable; returns the variable.
            number: How many trainable variables there are; None if that is not known yet.
        """
        if callable(self._threshold):
            value = float(keras.ops.convert_to_numpy(self._threshold(optimizer.iterations)))
            _checks.number(f"{self._threshold_name}(optimizer.iterations)", value, above=0)
        values = {"threshold": self._first_threshold(), **self.initial_memory()}
        values |= {"norm_before": 0.0, "norm_after": 0.0, **dict.fromkeys(COUNTS, 0)}
        if number is not None:
            for key, value in self.initial_memory_per_variable().items():
                values[key] = np.full(number, value)
        variables = {name: add(name, value) for name, value in values.items()}
        self._state = {name: variable.value for name, variable in variables.items()}
        return variables

    def settings(self) -> Values:
        """What `transform` may read, for an identity comparison: a new value needs a new trace.

        That is every attribute of this class and of subclasses that the user can set.
        """
        values = [
            value
            for name, value in vars(self).items()
            if not name.startswith("_") and name not in self._no_settings
        ]
        # A copy of a list, which may be changed in place.
        public = [tuple(value) if isinstance(value, list) else value for value in values]
        return [self._threshold if callable(self._threshold) else None, *public]

    def step(
        self,
        gradients: Values,
        norms: Values,
        weights: Values,
        iterations: Any,
        variables: dict[str, tf.Variable],
        places: Sequence[int],
    ) -> tuple[Values, Values, list[tuple[tf.Variable, Any]]]:
        """Transforms the chosen ones of `gradients`; also returns the state's (variable, value).

        `places` are those of `weights` among all trainable variables.
        """
        chosen = self.chosen(weights)
        if not chosen:  # all that the pattern matches have no gradient
            return gradients, norms, []
        state = {name: tf.convert_to_tensor(variable) for name, variable in variables.items()}
        if callable(self._threshold):
            state["threshold"] = keras.ops.cast(self._scheduled(iterations), "float32")
        # A schedule or a callback may go below 0 or to NaN: then the step is 0, not wild.
        state["threshold"] = keras.ops.where(state["threshold"] >= 0, state["threshold"], 0.0)
        rows = tf.constant([[places[i]] for i in chosen])
        of_all = {key: state[key] for key in self.initial_memory_per_variable()}
        state |= {key: tf.gather_nd(values, rows) for key, values in of_all.items()}
        before = [norms[i] for i in chosen]
        changed, after, state = self.transform(
            [gradients[i] for i in chosen], before, [weights[i] for i in chosen], state
        )
        after = clipping.norms(changed) if after is None else after
        shrank = clipping.shrank(before, after)
        state["norm_before"] = clipping.combine(before)
        state["norm_after"] = clipping.combine(after)
        state["step_count"] += 1
        state["clip_count"] += keras.ops.cast(shrank, "int64")
        gradients, norms = list(gradients), list(norms)
        for i, gradient, norm in zip(chosen, changed, after, strict=True):
            gradients[i], norms[i] = gradient, norm
        for key, values in of_all.items():
            new = tf.cast(state[key], values.dtype)
            state[key] = tf.tensor_scatter_nd_update(values, rows, new)
        counted = [name for name in state if name != "skipped_count"]
        return gradients, norms, [(variables[name], state[name]) for name in counted]

    def chosen(self, weights: Sequence[Any]) -> list[int]:
        """The indices of the `weights` that `variables` matches."""
        paths = _paths(weights)
        if self.variables is None:
            return list(range(len(paths)))
        return [i for i, p in enumerate(paths) if any(re.search(v, p) for v in self.variables)]

    def check_variables(self, weights: Sequence[Any]) -> None:
        """Raises `ValueError` if `variables` matches none of all trainable `weights`."""
        if self.variables is not None and not self.chosen(weights):
            raise ValueError(
                f"No trainable variable matches `variables`={self.variables!r} of "
                f"{type(self).__name__}. Available: {', '.join(_paths(weights))}."
            )

    # What the user sees.

    def statistics(self) -> dict[str, float]:
        """Norms and threshold of the last step, clip rate and number of skipped steps."""
        if self.state is None:
            raise RuntimeError(
                f"{type(self).__name__} has no statistics before `{self.starts_with}`."
            )
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

    # Details.

    def _all_states(self) -> list[dict[str, Any]]:
        return [] if self._state is None else [self._state]

    def _current_counts(self) -> tuple[int, ...]:
        return tuple(int(self.state[name].numpy()) for name in COUNTS)

    def _checked_threshold(self, value: Any) -> float | Schedule:
        mend = "It can also be a function of the step, such as a LearningRateSchedule."
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
                f"`{self._threshold_name}` is traced into the train step: use "
                "keras.ops.where(step < 1000, 5.0, 1.0), not Python `if`, on the step."
            ) from error


@keras.saving.register_keras_serializable(package="kbptt", name="optimizers.GradientNorm")
class GradientNorm(GradientTransform):
    """Measures the global norm of the gradient and changes nothing.

    Its position among the transforms determines what it measures: before a clip the raw gradient,
    after it the clipped one. On its own it does not change training at all, even if a gradient is
    NaN, and it works with an optimizer that has its own clipping.

    Args:
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Defaults to `"gradient_norm"`.
    """

    observes_only = True

    def __init__(self, *, variables: str | Sequence[str] | None = None, name: str | None = None):
        super().__init__(variables=variables, name=name)

    def transform(
        self, gradients: Values, norms: Values, weights: Values, state: State
    ) -> Transformed:
        return gradients, norms, state


def _paths(weights: Sequence[Any]) -> list[str]:
    return [getattr(weight, "path", weight.name) for weight in weights]


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
