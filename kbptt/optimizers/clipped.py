"""An optimizer around an optimizer that clips the gradient first."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kbptt import _keras
from kbptt.optimizers import clipping
from kbptt.optimizers.transform import GradientTransform
from kbptt.optimizers.true_gradients import (
    TrueGradients,
    assign,
    if_finite,
    where,
)
from kbptt.optimizers.wrapper import Wrapper, loss_scaler, unwrapped

_OWN_CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")


@keras.saving.register_keras_serializable(package="kbptt")
class Clipped(Wrapper):
    """Clips the gradient, or changes it in other ways, before `inner` uses it.

    Each transform works on the true gradient, the one that `inner` is about to use: in float32 or
    float64, without loss scale, summed over replicas, averaged over accumulated batches. If any
    gradient is NaN or Inf, the whole step is skipped: weights, slots, moving averages and
    `iterations` stay as they are, and the step is counted.

    The state and counters of the transforms are variables of this optimizer. They are saved and
    restored with it, in `.keras` files, by `model.save_weights` and by
    `keras.callbacks.BackupAndRestore`, so resumed training equals uninterrupted training. Apart
    from them, a file contains what it would contain for `inner`, so `Clipped` can be added to an
    optimizer that was saved without it, and removed.

    The learning rate, `iterations` and all options are those of `inner`, which may be a
    `keras.optimizers.LossScaleOptimizer` or be inside one.

    Example:

    ```python
    optimizer = kbptt.optimizers.Clipped(
        keras.optimizers.Adam(1e-3), [kbptt.optimizers.ZClip(), kbptt.optimizers.ClipByValue(1.0)]
    )
    model.compile(optimizer, "mse")
    model.fit(x, y)
    optimizer.transforms[0].statistics()
    ```

    Args:
        inner: `keras.optimizers.Optimizer`, or its name or config.
        transforms: List of `kbptt.optimizers.GradientTransform`, in the order in which they act.
        name: String or None. Defaults to `"clipped"`.

    Raises:
        ValueError: If `inner` clips by itself although a transform changes gradients; if a
            MultiOptimizer accumulates gradients; later, if a transform's `variables` match nothing.
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer | str | dict,
        transforms: Sequence[GradientTransform],
        name: str | None = None,
    ):
        super().__init__(keras.optimizers.get(inner), name or "clipped")
        if isinstance(transforms, GradientTransform):
            transforms = [transforms]
        for transform in transforms:
            if not isinstance(transform, GradientTransform):
                raise ValueError(
                    "Invalid value for argument `transforms`. Expected objects of "
                    "kbptt.optimizers.GradientTransform, such as kbptt.optimizers.ZClip(). "
                    f"Received: {transform!r} (of type {type(transform).__name__})."
                )
        self.transforms = list(transforms)
        _refuse_other_clipping(self.inner, self.transforms)
        self.traced_with = None
        self._weights: tuple[int, ...] | None = None  # the id of each, once they are known
        self.memory = _Memory()
        self.attach()
        self._last_scale: Any = None
        if loss_scaler(self.inner) is not None:
            self._last_scale = self._add("loss_scale", 1.0)

    def attach(self) -> None:
        """Has every transform create its variables, unless it has them."""
        states: dict[str, dict[str, keras.Variable]] = {}
        number = None if self._weights is None else len(self._weights)
        for transform in self.transforms:
            name = unique_name(transform.name, states)
            known = self.memory.states.get(name, {})

            def add(key: str, value: Any, name: str = name, known: dict = known) -> keras.Variable:
                return known[key] if key in known else self._add(f"{name}_{key}", value)

            states[name] = transform.attach(self.inner, add, number)
        self.memory.states = states

    def remember(self, weights: Sequence[keras.Variable]) -> None:
        """Creates what transforms remember for each weight; `weights` are all trainable ones."""
        if self._weights is None:
            self._weights = tuple(id(weight) for weight in weights)
            if self._per_variable():
                with tf.init_scope():
                    self.attach()

    def _per_variable(self) -> bool:
        return any(one.initial_memory_per_variable() for one in self.transforms)

    def _add(self, name: str, value: Any) -> keras.Variable:
        value = np.asarray(value)

        def start(shape: Any, dtype: Any) -> Any:
            return keras.ops.convert_to_tensor(value, dtype)

        return self.add_variable(
            value.shape,
            initializer=start,
            dtype="float32" if value.dtype.kind == "f" else "int64",
            aggregation="only_first_replica",
            name=name.replace("/", "_"),
        )

    # The step.

    def build(self, variables: Sequence[keras.Variable]) -> None:
        for transform in self.transforms:
            transform.check_variables(variables)
        super().build(variables)
        self.remember(variables)

    def apply(self, grads: Sequence, trainable_variables: Sequence | None = None) -> None:
        gradients = list(grads)
        variables = list(trainable_variables or _keras.built_variables(self))
        known = [
            index
            for index, (gradient, variable) in enumerate(zip(gradients, variables, strict=False))
            # Such a variable (of float8 training) gets its new value in the gradient's place.
            if gradient is not None and not getattr(variable, "overwrite_with_gradient", False)
        ]
        if not known or len(gradients) != len(variables):
            self.inner.apply(gradients, trainable_variables)  # Keras has the fitting message
            return
        self.build(variables)  # not inside the branch of a condition
        weights = [variables[index] for index in known]
        arriving = TrueGradients([gradients[index] for index in known], weights, self.inner)
        values, norms = arriving.values, clipping.norms(arriving.values)
        updates: list[tuple[tf.Variable, Any]] = []
        finite = clipping.all_finite(norms)
        places = self._places_of(weights)
        for transform, state in zip(self.transforms, self._states(), strict=True):
            values, norms, new = transform.step(
                values, norms, weights, self.iterations, state, places
            )
            updates += new
        self.traced_with = [transform.settings() for transform in self.transforms]
        updates = [(old, where(arriving.is_update, new, old)) for old, new in updates]
        observing = all(transform.observes_only for transform in self.transforms)
        scaled = self._last_scale is not None
        if not observing:
            if scaled:  # what is not finite must arrive so at the LossScaleOptimizer
                pairs = zip(values, arriving.values, strict=True)
                values = [tf.where(finite, new, old) for new, old in pairs]
            for index, gradient in zip(known, arriving.leaving(values), strict=True):
                gradients[index] = gradient
            updates += arriving.resets()
        skipped = [state["skipped_count"] for state in self._states()]
        if scaled:  # the LossScaleOptimizer skips the step
            missed = tf.cast(tf.logical_not(finite), tf.int64)
            updates = [(old, where(finite, new, old)) for old, new in updates]
            updates += [(count, count + missed) for count in skipped]
            updates.append((self._last_scale.value, arriving.loss_scale))
        if scaled or observing:
            assign(updates)
            self.inner.apply(gradients, trainable_variables)
            return

        def apply(gradients):
            self.inner.apply(gradients, trainable_variables)

        if_finite(finite, gradients, updates, apply, skipped)

    def _states(self) -> list[dict[str, tf.Variable]]:
        states = self.memory.states.values()
        return [{name: variable.value for name, variable in one.items()} for one in states]

    def _places_of(self, weights: Sequence[keras.Variable]) -> list[int]:
        places = {weight: place for place, weight in enumerate(self._weights or ())}  # by id
        new = [weight.path for weight in weights if id(weight) not in places]
        if new and self._per_variable():
            raise ValueError(
                f"{', '.join(new)} was not among the trainable variables that this optimizer was "
                "built for, and a transform keeps state for each variable. Call `compile` after "
                "changing the trainable variables."
            )
        return [places.get(id(weight), -1) for weight in weights]

    def last_loss_scale(self) -> float:
        """The factor on the loss, and on every gradient that arrived, at the last step."""
        if self._last_scale is None:
            return float(unwrapped(self.inner)[-1].loss_scale_factor or 1.0)
        return float(self._last_scale.numpy())

    @property
    def variables(self) -> list[keras.Variable]:
        return self.memory.all_variables() + self.inner.variables

    def set_weights(self, weights: Sequence) -> None:
        own = self.memory.all_variables()
        for variable, weight in zip(own, weights[: len(own)], strict=True):
            variable.assign(weight)
        self.inner.set_weights(weights[len(own) :])

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        transforms = [serialize(transform) for transform in self.transforms]
        return {"name": self.name, "inner": serialize(self.inner), "transforms": transforms}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> "Clipped":
        def deserialize(value):
            return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)

        transforms = [deserialize(transform) for transform in config["transforms"]]
        return cls(deserialize(config["inner"]), transforms, config["name"])


class _Memory(keras.layers.Layer):
    """Saves the variables of transforms by name, beside those of the inner optimizer.

    A layer because Keras saves only its own kinds of objects; it is never called.
    """

    def __init__(self) -> None:
        super().__init__(name="memory", trainable=False)
        self.states: dict[str, dict[str, keras.Variable]] = {}

    def all_variables(self) -> list[keras.Variable]:
        return [variable for state in self.states.values() for variable in state.values()]

    def save_own_variables(self, store: Any) -> None:
        for key, variable in self._keys().items():
            store[key] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        saved = set(store.keys())  # empty if saved without `Clipped`
        for key, variable in self._keys().items():
            if key in saved:
                variable.assign(store[key])

    def _keys(self) -> dict[str, keras.Variable]:
        states = self.states.items()
        return {f"{name}_{key}".replace("/", "_"): v for name, s in states for key, v in s.items()}


def unique_name(name: str, taken: Any) -> str:
    """`name`, or the first of `name_2`, `name_3`, … that is not `taken`."""
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


def _refuse_other_clipping(
    optimizer: keras.optimizers.Optimizer, transforms: list[GradientTransform]
) -> None:
    changing = [transform for transform in transforms if not transform.observes_only]
    if not changing:
        return
    name, updating = type(changing[0]).__name__, unwrapped(optimizer)[-1]
    parts = getattr(updating, "optimizers", [])
    for one in [updating, *parts]:
        for argument in _OWN_CLIPPING:
            if getattr(one, argument, None) is not None:
                raise ValueError(
                    f"The optimizer clips too, after {name}: {argument}="
                    f"{getattr(one, argument)!r}. Remove either `{argument}` or {name}."
                )
        if one in parts and one.gradient_accumulation_steps:
            raise ValueError(
                f"{name} does not support gradient accumulation inside a MultiOptimizer. Remove "
                "`gradient_accumulation_steps`."
            )
