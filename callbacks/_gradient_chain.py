"""Puts gradient transforms between a model's gradient and its optimizer, during `fit` only."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from kbptt import clipping
from kbptt.callbacks._true_gradients import TrueGradients, assign, if_finite, where

_OWN_CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")


class GradientChain:
    """The gradient transforms of one `fit`, in the order of its callbacks.

    Right after `on_train_batch_begin`, `fit` calls ``model.train_function(iterator)``. The chain
    takes that function's place, and only while it runs is the optimizer's `apply` the chain's. So
    nothing stays on the optimizer between steps, however `fit` ends: `on_train_end` is not called
    after an exception or Ctrl-C. A chain left behind as the train function sees that no callback
    announced the step, and gives the place back.

    Args:
        model: A compiled `keras.Model`.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.transforms = []
        self.optimizer = None
        self._loss_scaler = None
        self._dynamic_scale = None  # what the loss scale optimizer used at the last step
        self._history = None
        self._started = False
        self._announced = False
        self._function = None  # compiled with the chain
        self._plain = None  # compiled without it: what the model had before and gets back
        self._compiled = None  # (signature, plain, function) of the last complete fit
        self._traced_with = None  # the signature that `_function` was traced with
        self._tracing = False

    # What the callbacks call.

    def join(self, transform: Any) -> None:
        """Appends `transform` for the `fit` that is starting."""
        if self._started or not self.in_fit():
            self._close()  # left over from a fit that did not reach its end
        if any(transform is other for other in self.transforms):
            raise ValueError(
                f"The same {type(transform).__name__} object is twice in the list of callbacks; "
                "make a second one."
            )
        if not self.transforms:
            self._open()
        if not transform.observes_only:
            self._refuse_other_clipping(transform)
        transform.attach(self.optimizer, self.model.distribute_strategy)
        self.transforms.append(transform)
        self._install()

    def announce(self) -> None:
        """Says that `fit` is about to run the train function."""
        if self.model.optimizer is not (self._loss_scaler or self.optimizer):
            raise ValueError(
                f"The model was compiled again after {type(self.transforms[0]).__name__} joined "
                "its `fit`. Call `compile` before `fit`."
            )
        self._started = True
        if self.model.train_function is self._plain is not None:
            self.model.train_function = self
        elif self.model.train_function is not self:
            # Another callback asked for a new function, and may have run it without the chain.
            self._plain = self._compiled = None
            self._install()
        self._announced = True

    def leave(self, transform: Any) -> None:
        """Removes `transform` at the end of `fit`; the last one restores the train function."""
        if not any(transform is other for other in self.transforms):
            return
        if self._started:
            self._started = False
            if self._plain is not None and self._traced_with is not None:
                self._compiled = (self._traced_with, self._plain, self._function)
        self.transforms = [other for other in self.transforms if other is not transform]
        if not self.transforms:
            self._close()

    def in_fit(self) -> bool:
        """Whether the model is still in the `fit` that the transforms joined."""
        return self._history is getattr(self.model, "history", None)  # made anew by each `fit`

    def loss_scale(self) -> float:
        """The factor on the loss, and on every gradient before `apply`, at the last step."""
        if self._loss_scaler is not None:
            return float(self._dynamic_scale.numpy())
        return float(getattr(self.optimizer, "loss_scale_factor", None) or 1.0)

    # In place of `model.train_function`.

    def __call__(self, iterator: Iterator) -> dict:
        if not self._announced or not self.in_fit():
            if not self.in_fit():
                self._close()
            self._restore()
            self.model.make_train_function()
            return self.model.train_function(iterator)
        self._announced = False
        replaced = [(self.optimizer, "apply", self._apply)]
        if self._loss_scaler is not None:
            replaced.append((self._loss_scaler, "apply", self._apply_scaled))
        with contextlib.ExitStack() as stack:
            for target, name, method in replaced:
                stack.callback(_replace(target, name, method))
            logs = self._function(iterator)
        if self._tracing:
            # Now, since a callback may set an attribute afterwards, which the function ignores.
            self._traced_with, self._tracing = self._signature(), False
        changing = [transform for transform in self.transforms if not transform.observes_only]
        if changing and self._traced_with is None and self.model.trainable_variables:
            raise ValueError(
                f"{type(changing[0]).__name__} saw no gradient: the model's train_step "
                "does not call `model.optimizer.apply_gradients` or `apply`."
            )
        return logs

    # Installation.

    def _open(self) -> None:
        self._history = getattr(self.model, "history", None)
        if self.model.train_function is None:
            self.model.make_train_function()
        self._plain = self.model.train_function
        optimizer, self._loss_scaler = self.model.optimizer, None
        # The gradients that reach the wrapped optimizer are the true ones.
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer, self._loss_scaler = optimizer.inner_optimizer, optimizer
        self.optimizer = optimizer
        self._original_apply = optimizer.apply
        if self._loss_scaler is not None:
            self._original_apply_scaled = self._loss_scaler.apply
            if self._dynamic_scale is None:  # one for all fits: a function compiled once holds it
                with self.model.distribute_strategy.scope():
                    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
                    self._dynamic_scale = tf.Variable(1.0, trainable=False, aggregation=first)

    def _install(self) -> None:
        signature = self._signature()
        if self._compiled is not None and _same(self._compiled[:2], (signature, self._plain)):
            self._traced_with, _, self._function = self._compiled
        else:
            self.model.make_train_function(force=True)
            self._function, self._traced_with = self.model.train_function, None
        self.model.train_function = self

    def _restore(self) -> None:
        if self.model.train_function is self:
            self.model.train_function = self._plain

    def _close(self) -> None:
        self._restore()
        self.transforms = []
        self._plain = self._function = None
        self._started = self._announced = False

    def _signature(self) -> list:
        """What the compiled function depends on: the optimizer, and all of every transform."""
        return [self.optimizer, *((t.state, t.settings()) for t in self.transforms)]

    def _refuse_other_clipping(self, transform: Any) -> None:
        for optimizer in [self.optimizer, *getattr(self.optimizer, "optimizers", [])]:
            for name in _OWN_CLIPPING:
                if getattr(optimizer, name, None) is not None:
                    raise ValueError(
                        f"The optimizer clips too, after {type(transform).__name__}: "
                        f"{name}={getattr(optimizer, name)!r}. Leave `{name}` out of the "
                        f"optimizer, or {type(transform).__name__} out of the callbacks."
                    )
            if optimizer is not self.optimizer and optimizer.gradient_accumulation_steps:
                raise ValueError(
                    f"{type(transform).__name__} supports no gradient accumulation inside a "
                    "MultiOptimizer. Leave `gradient_accumulation_steps` out."
                )

    # The step: in place of `optimizer.apply`, traced once into the train function.

    def _apply(self, gradients: Any, trainable_variables: Any = None) -> None:
        self._tracing = True
        gradients = list(gradients)
        variables = trainable_variables
        variables = list(self.model.trainable_variables if variables is None else variables)
        known = [
            index
            for index, (gradient, variable) in enumerate(zip(gradients, variables, strict=False))
            # Such a variable (of float8 training) gets its new value in the gradient's place.
            if gradient is not None and not getattr(variable, "overwrite_with_gradient", False)
        ]
        if not known or len(gradients) != len(variables):
            self._original_apply(gradients, trainable_variables)  # Keras knows what to say
            return
        if not self.optimizer.built:  # not inside the branch of a condition
            with keras.name_scope(self.optimizer.name):
                self.optimizer.build(variables)
        weights = [variables[index] for index in known]
        arriving = TrueGradients([gradients[index] for index in known], weights, self.optimizer)
        values, norms, updates = arriving.values, clipping.norms(arriving.values), []
        finite = clipping.all_finite(norms)
        for transform in self.transforms:
            values, norms, new = transform.step(values, norms, weights, self.optimizer.iterations)
            updates += new
        updates = [(old, where(arriving.is_update, new, old)) for old, new in updates]

        def apply(gradients):
            self._original_apply(gradients, trainable_variables)

        if all(transform.observes_only for transform in self.transforms):
            assign(updates)
            apply(gradients)
            return
        for index, gradient in zip(known, arriving.leaving(values), strict=True):
            gradients[index] = gradient
        skipped = [transform.skipped_count for transform in self.transforms]
        if_finite(finite, gradients, updates + arriving.resets(), apply, skipped)

    def _apply_scaled(self, gradients: Any, trainable_variables: Any = None) -> None:
        """In place of the loss scale optimizer's `apply`: counts the steps that it skips."""
        self._tracing = True  # run eagerly, a step that it skips never gets to `_apply`
        scaler = self._loss_scaler
        finite = scaler.check_finite(gradients)
        missed = tf.cast(tf.logical_not(finite), tf.int64)
        updates = [(t.skipped_count, t.skipped_count + missed) for t in self.transforms]
        # Before the optimizer changes it for the next step.
        scale = scaler.dynamic_scale if scaler.built else scaler.initial_scale
        assign([*updates, (self._dynamic_scale, tf.convert_to_tensor(scale, tf.float32))])
        self._original_apply_scaled(gradients, trainable_variables)


def _same(left: Any, right: Any) -> bool:
    """Compares nested sequences by the identity of what they hold."""
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    return left is right


def _replace(target: Any, name: str, method: Callable) -> Callable[[], None]:
    """Puts `method` onto the instance `target`; returns what undoes it."""
    found = vars(target).get(name)
    vars(target)[name] = method

    def undo():
        if found is None:
            del vars(target)[name]
        else:
            vars(target)[name] = found

    return undo
