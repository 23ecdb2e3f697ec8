"""How callbacks change what a model trains with, for the time of one `fit`.

`model.optimizer` is the user's own before and after `fit`. In `on_train_begin`, a `Substitution`
puts `kbptt.optimizers.Clipped` around it and has Keras make a train function, which is traced with
that optimizer; `on_train_end` gives the user's optimizer and train function back. No method that
computes anything is replaced, and files saved inside `fit` load without kbptt: see `Clipped`.

Keras does not call `on_train_end` if `fit` raises. So until everything has been given back,
`model.make_train_function`, which Keras calls at the start of every `fit` and `train_on_batch`,
gives it back first. `compile` replaces optimizer and train function itself; `evaluate`, `predict`
and `save` do the same with either optimizer. What remains: a training loop of the user's own that
takes `model.optimizer` right after an interrupted `fit` gets the wrapper; calling
`model.make_train_function()` before ends that.

Callbacks that need another train step, such as `GradientNormPenalty`, use the same mechanism: they
`join` with a function that makes the train function, preferably by `make_train_function` of a
`keras.Model` subclass that overrides `train_step`.
"""

from collections.abc import Callable
from typing import Any

import keras

from kbptt.optimizers import Clipped, GradientTransform

_ATTRIBUTE = "_kbptt_substitution"  # of a model
MakeTrainFunction = Callable[[keras.Model], Callable[[Any], Any]]


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
        clipped: The optimizer that applies them, or None.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.transforms: list[GradientTransform] = []
        self.clipped: Clipped | None = None
        self._make: MakeTrainFunction | None = None
        self._history = None  # of the `fit` that they joined
        self._optimizer = None  # the model's own
        self._own_function = None  # the model's own; None unless it is replaced
        self._function = None  # in its place
        self._before = None  # (own function, optimizer, function) of the last substitution

    def replaced(self) -> bool:
        """Whether the model has another optimizer and train function than its own."""
        return self._own_function is not None

    def in_fit(self) -> bool:
        """Whether the model is still in the `fit` that the transforms joined."""
        return self._history is getattr(self.model, "history", None)  # made anew by each `fit`

    def join(
        self, transform: GradientTransform | None = None, make: MakeTrainFunction | None = None
    ) -> None:
        """Adds to the `fit` that is starting.

        Args:
            transform: Acts on the gradient after those that joined before.
            make: Returns a train function for the model, whose optimizer is in place. Only one
                callback may give it. Defaults to that of Keras.
        """
        if not self.in_fit():
            self.restore()
            self._history = getattr(self.model, "history", None)
            self.transforms, self._make = [], None
        if any(transform is other for other in self.transforms):
            raise ValueError(
                f"The same {type(transform).__name__} object is twice in the list of callbacks; "
                "make a second one."
            )
        if make is not None and self._make is not None:
            raise ValueError(
                "Two GradientNormPenalty callbacks in one fit. Add up their weights instead."
            )
        joined = [*self.transforms, *([] if transform is None else [transform])]
        self._replace(joined, make or self._make)
        self.transforms, self._make = joined, make or self._make

    def leave(self, transform: GradientTransform | None = None) -> None:
        """Removes `transform`, or `make`, at the end of `fit`; the last one restores the model."""
        self.transforms = [other for other in self.transforms if other is not transform]
        self._make = None if transform is None else self._make
        if not self.transforms and self._make is None:
            self.restore()

    def ensure(self) -> None:
        """Checks, before a step, that the model trains with what has joined."""
        if not self.replaced() and self.model.optimizer is self._optimizer:
            self._replace(self.transforms, self._make)  # a callback called `train_on_batch`
        if self.model.optimizer is not (self.clipped or self._optimizer):
            raise ValueError(
                "The model was compiled again after callbacks of kbptt joined its `fit`. Call "
                "`compile` before `fit`."
            )

    def check_traced(self) -> None:
        """Raises `ValueError` if the steps so far have bypassed the optimizer."""
        changing = [transform for transform in self.transforms if not transform.observes_only]
        if changing and self.clipped.traced_with is None and self.model.trainable_variables:
            raise ValueError(
                f"{type(changing[0]).__name__} saw no gradient: the model's train_step "
                "does not call `model.optimizer.apply_gradients` or `apply`."
            )

    def restore(self) -> None:
        """Gives the model its own optimizer and train function back, unless it has them."""
        if not self.replaced():
            return
        model, own, self._own_function = self.model, self._own_function, None
        del model.make_train_function
        if model.optimizer is (self.clipped or self._optimizer):  # else compiled again
            if self.clipped is not None and self.clipped.traced_with is not None:
                self._before = (own, self.clipped, self._function)
            model.optimizer = self._optimizer
            # If another callback made it, it was made for the other optimizer.
            model.train_function = own if model.train_function is self._function else None

    def _replace(self, transforms: list[GradientTransform], make: MakeTrainFunction | None) -> None:
        self.restore()
        model = self.model
        if model.train_function is None:
            model.make_train_function()
        optimizer, own = model.optimizer, model.train_function
        clipped, function = self._reusable(own, optimizer, transforms)
        if clipped is None and transforms:
            with model.distribute_strategy.scope():
                clipped = Clipped(optimizer, transforms)
        self._optimizer, self._own_function, self.clipped = optimizer, own, clipped
        model.optimizer = clipped or optimizer
        if make is not None:
            function = make(model)
        elif function is None:
            model.make_train_function(force=True)
            function = model.train_function
        self._function = model.train_function = function
        model.make_train_function = self._make_train_function

    def _reusable(self, own: Any, optimizer: Any, transforms: list[GradientTransform]) -> tuple:
        """What the last substitution made, where it would be made the same again; else None."""
        if self._before is None:
            return None, None
        own_before, clipped, function = self._before
        if clipped.inner is not optimizer or not _same(clipped.transforms, transforms):
            return None, None
        clipped.attach()
        settings = [transform.settings() for transform in transforms]
        traced = own_before is own and _same(clipped.traced_with, settings)
        return clipped, function if traced else None

    def _make_train_function(self, force: bool = False) -> None:
        """`model.make_train_function` until everything has been given back."""
        transforms, make = self.transforms, self._make
        self.restore()
        if force:  # asked for by another callback of this `fit`
            self.model.train_function = None
            self._replace(transforms, make)
        else:  # another `fit` or `train_on_batch` begins
            self.model.make_train_function()


def _same(left: Any, right: Any) -> bool:
    """Compares nested sequences by the identity of what they hold."""
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    return left is right
