"""How callbacks change what a model trains with, step by step.

`fit` calls `model.train_function` right after `on_train_batch_begin`. There a `Substitution` puts
a train function of its own in that place, for one call. It gives the place back and runs the step
with `kbptt.optimizers.Clipped` in place of the model's optimizer, by a train function that Keras
made and traces with that optimizer; the optimizer is given back however the step ends. So
callbacks, validation, a file that is saved, and everything after an exception or Ctrl-C, where
Keras does not call `on_train_end`, find the model as its user made it. (If another callback raises
in `on_train_batch_begin`, the model's own train function comes back with its next use.)

What transforms remember is saved with the model while `fit` runs, as a group of its own that
Keras passes over where kbptt is not installed: `keras.callbacks.BackupAndRestore` restores it.

Callbacks that change more of a step than its gradient, such as `GradientNormPenalty` and
`StreamState`, `join` with a `StepWrapper`: it gets the model's `train_step` and returns another.
"""

import functools
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import keras

from kbptt.callbacks._step import StepWrapper, make_train_function
from kbptt.optimizers import Clipped, GradientTransform

_ATTRIBUTE, _MEMORY = "_kbptt_substitution", "_kbptt_memory"  # of a model


class _Made(NamedTuple):
    """What the steps of a `fit` run with.

    Attributes:
        optimizer: The model's own.
        clipped: What takes its place, or None.
        own: The model's own train function.
        wrappers: Those that went into `function`.
        function: The train function that a step runs instead.
    """

    optimizer: Any = None
    clipped: Clipped | None = None
    own: Any = None
    wrappers: list[StepWrapper] | None = None
    function: Any = None


def of(model: Any) -> "Substitution":
    """The substitution of `model`."""
    if not hasattr(model, _ATTRIBUTE):
        setattr(model, _ATTRIBUTE, Substitution(model))
    return getattr(model, _ATTRIBUTE)


class Substitution:
    """The gradient transforms of one `fit`, in the order of its callbacks, and what they replace.

    Args:
        model: A compiled `keras.Model`.

    Attributes:
        transforms: Those that have joined, and not left yet.
        wrappers: Likewise, those of the train step.
        clipped: The optimizer that applies them, or None.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.transforms: list[GradientTransform] = []
        self.wrappers: list[StepWrapper] = []
        self.clipped: Clipped | None = None
        self._ran = False  # whether a step of this `fit` has run
        self._history = None  # of the `fit` that they joined
        self._made = self._last = _Made()  # of this `fit` and the last one

    def in_fit(self) -> bool:
        """Whether the model is still in the `fit` that the transforms joined."""
        return self._history is getattr(self.model, "history", None)  # a new one for each `fit`

    def join(
        self, transform: GradientTransform | None = None, wrapper: StepWrapper | None = None
    ) -> None:
        """Adds to the `fit` that is starting.

        Args:
            transform: Acts on the gradient after those that joined before, unless it `acts_first`.
            wrapper: Goes around the train step, outside of those that joined before. One of a type.
        """
        if not self.in_fit():
            self.give_back()
            self._last = self._made
            self._history = getattr(self.model, "history", None)
            self.transforms, self.wrappers, self._ran = [], [], False
        if any(transform is other for other in self.transforms):
            raise ValueError(
                f"The same {type(transform).__name__} object is in the list of callbacks twice: "
                "make a second one."
            )
        if any(type(wrapper) is type(other) for other in self.wrappers):
            raise ValueError(wrapper.TWICE)
        if transform is not None:
            first = transform.acts_first
            self.transforms = [transform] * first + self.transforms + [transform] * (not first)
        self.wrappers = [*self.wrappers, *([] if wrapper is None else [wrapper])]
        self._prepare()

    def leave(
        self, transform: GradientTransform | None = None, wrapper: StepWrapper | None = None
    ) -> None:
        """Removes what has joined, at the end of `fit`."""
        self.transforms = [other for other in self.transforms if other is not transform]
        self.wrappers = [other for other in self.wrappers if other is not wrapper]
        if not self.transforms:
            vars(self.model).pop(_MEMORY, None)

    def take_step(self) -> None:
        """Has the step that is about to begin run with what has joined."""
        model = self.model
        if model.train_function == self._step:
            return  # another callback was here before
        if model.optimizer is not self._made.optimizer:
            raise ValueError(
                "The model was recompiled after callbacks of kbptt joined its `fit`. Call "
                "`compile` before `fit`."
            )
        if model.train_function is not self._made.own:
            self._prepare()  # another callback asked for a new one
        vars(model)["train_function"] = self._step

    def _step(self, iterator: Any) -> Any:
        """`model.train_function` for one step."""
        model, attributes = self.model, vars(self.model)
        attributes["train_function"] = self._made.own
        # Another callback may have raised before the step that this was meant for.
        if not self.in_fit() or isinstance(iterator, Generator):  # that of `train_on_batch`
            return model.train_function(iterator)
        # Past `Layer.__setattr__`, which tracks what it is given and takes longer than clipping.
        attributes["optimizer"] = self.clipped or self._made.optimizer
        try:
            if any(wrapper.skips() for wrapper in self.wrappers):
                return model.get_metrics_result()
            self._ran = True
            run = self._made.function
            for wrapper in sorted(self.wrappers, key=lambda one: one.outermost):
                run = functools.partial(wrapper.run, run)
            return run(iterator)
        finally:
            attributes["optimizer"] = self._made.optimizer

    def give_back(self) -> None:
        """Gives the model its own train function back, unless it has it."""
        if self.model.train_function == self._step:
            self.model.train_function = self._made.own

    def check_traced(self) -> None:
        """Raises `ValueError` if the steps so far have bypassed the optimizer."""
        changing = [transform for transform in self.transforms if not transform.observes_only]
        if (
            changing
            and self._ran
            and self.clipped.traced_with is None
            and self.model.trainable_variables
        ):
            raise ValueError(
                f"{type(changing[0]).__name__} saw no gradient: the model's train_step "
                "does not call `model.optimizer.apply_gradients` or `apply`."
            )

    def _prepare(self) -> None:
        """Makes the optimizer and the train function of a step, or takes those made before."""
        model = self.model
        if model.train_function is None:
            model.make_train_function()
        optimizer, own = model.optimizer, model.train_function
        clipped, function = self._made_before(optimizer, own)
        if clipped is None and self.transforms:
            with model.distribute_strategy.scope():
                clipped = Clipped(optimizer, self.transforms)
        if clipped is not None and model.built:
            with model.distribute_strategy.scope():
                clipped.remember(model.trainable_variables)
        if function is None:
            model.optimizer = clipped or optimizer
            try:
                function = self._make_function()
            finally:
                model.optimizer, model.train_function = optimizer, own
        self._made = _Made(optimizer, clipped, own, self.wrappers, function)
        self.clipped = clipped
        if clipped is not None:
            vars(model)[_MEMORY] = clipped.memory  # Keras would take it for a layer of the model

    def _made_before(self, optimizer: Any, own: Any) -> tuple[Clipped | None, Any]:
        """Optimizer and train function of this or the last `fit`, where they would be the same."""
        found = None
        for made in (self._made, self._last):
            clipped = made.clipped
            if made.optimizer is not optimizer or (clipped is None) == bool(self.transforms):
                continue
            traced = made.own is own and _same(made.wrappers, self.wrappers)
            if clipped is None:
                traced = traced and bool(self.wrappers)  # else it is Keras's own, not kept here
            elif _same(clipped.transforms, self.transforms):
                found = clipped
                clipped.attach()
                settings = [transform.settings() for transform in self.transforms]
                traced = traced and _same(clipped.traced_with, settings)
            else:
                continue
            if traced:
                return clipped, made.function
        return found, None

    def _make_function(self) -> Callable[[Any], Any]:
        if self.wrappers:
            return make_train_function(self.model, self.wrappers)
        self.model.make_train_function(force=True)
        return self.model.train_function


def _same(left: Any, right: Any) -> bool:
    """Compares nested sequences by the identity of what they hold."""
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    return left is right
