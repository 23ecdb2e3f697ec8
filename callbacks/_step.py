"""What callbacks put around the steps of a model, and how Keras makes functions of the result."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import keras

Step: TypeAlias = Callable[[Any], Any]
"""`train_step` or `test_step`: takes a batch, returns logs."""


class StepWrapper:
    """Something around a step.

    Attributes:
        TWICE: What is wrong with two of them around one step.
        outermost: Whether its `run` is called around those of all others.
    """

    TWICE: ClassVar[str]
    outermost: ClassVar[bool] = False

    def wrap(self, step: Step) -> Step:
        """The step that is traced in place of `step`, for each replica."""
        return step

    def measuring(self) -> contextlib.AbstractContextManager[None]:
        """A scope for a forward pass like that of the next step, which leaves nothing behind."""
        return contextlib.nullcontext()

    def skips(self) -> bool:
        """Whether the step that is about to begin is left out."""
        return False

    def run(self, function: Callable[[Any], Any], iterator: Any) -> Any:
        """Calls the function that was made of the wrapped step: its logs."""
        return function(iterator)


def make_train_function(
    model: keras.Model, wrappers: Sequence[StepWrapper]
) -> Callable[[Any], Any]:
    """A train function of `model` with its `train_step` wrapped, the last one outermost."""
    maker = _Maker.of(model, model.train_step, wrappers)
    maker.make_train_function()
    return maker.train_function


def make_test_function(model: keras.Model, wrappers: Sequence[StepWrapper]) -> Callable[[Any], Any]:
    """A test function of `model` with its `test_step` wrapped, the last one outermost."""
    maker = _Maker.of(model, model.test_step, wrappers)
    maker.make_test_function()
    return maker.test_function


class _Maker(keras.Model):
    """Has Keras make the functions of another model with a step that is not its own."""

    @classmethod
    def of(cls, model: keras.Model, step: Step, wrappers: Sequence[StepWrapper]) -> "_Maker":
        for wrapper in wrappers:
            step = wrapper.wrap(step)
        with model.distribute_strategy.scope():
            maker = cls()
        maker.compile(
            optimizer=None,
            run_eagerly=model.run_eagerly,
            steps_per_execution=model.steps_per_execution,
            jit_compile=model.jit_compile,
        )
        maker.unrolled_steps_per_execution = model.unrolled_steps_per_execution
        maker.step = step
        return maker

    def train_step(self, data: Any) -> Any:
        return self.step(data)

    def test_step(self, data: Any) -> Any:
        return self.step(data)
