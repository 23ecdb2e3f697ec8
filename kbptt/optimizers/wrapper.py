"""An optimizer around an optimizer: what all such wrappers share."""

from collections.abc import Sequence
from typing import Any

import keras

from kbptt import _keras

# Attributes that `keras.optimizers.Optimizer.__init__` sets and that belong to the inner optimizer.
_OF_THE_INNER = (
    "clipnorm", "clipvalue", "global_clipnorm", "built", "ema_momentum", "ema_overwrite_frequency",
    "gradient_accumulation_steps", "loss_scale_factor", "use_ema", "weight_decay",
    *_keras.OPTIMIZER_STATE,
)  # fmt: skip


class Wrapper(keras.optimizers.Optimizer):
    """Has `inner` update the weights, and is like it in everything that is not overridden.

    Args:
        inner: `keras.optimizers.Optimizer`.
        name: String.
    """

    def __init__(self, inner: keras.optimizers.Optimizer, name: str):
        super().__init__(learning_rate=0.0, name=name)
        self.inner = inner

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if not self.inner.built:
            with keras.name_scope(self.inner.name):
                self.inner.build(variables)

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        self.inner.apply(grads, trainable_variables)

    @property
    def learning_rate(self) -> Any:
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner.learning_rate = learning_rate

    @property
    def iterations(self) -> Any:
        return self.inner.iterations

    @property
    def variables(self) -> list[keras.Variable]:
        return self.inner.variables

    def scale_loss(self, loss: Any) -> Any:
        return self.inner.scale_loss(loss)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        self.inner.finalize_variable_values(var_list)

    def exclude_from_weight_decay(
        self,
        var_list: Sequence[keras.Variable] | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        self.inner.exclude_from_weight_decay(var_list, var_names)

    def __getattr__(self, name: str) -> Any:
        if "inner" in vars(self):
            return getattr(self.inner, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # Files. Keras saves the variables of an object, then the objects among its attributes, which it
    # takes from `dir`: those of `inner` in the places they have without this wrapper.

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.inner)} - {"inner"})

    def save_own_variables(self, store: Any) -> None:
        self.inner.save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        self.inner.load_own_variables(store)


def _of_the_inner(name: str) -> property:
    def read(self: Wrapper) -> Any:
        return getattr(self.inner, name)

    def write(self: Wrapper, value: Any) -> None:
        if "inner" in vars(self):  # else `Optimizer.__init__` is setting defaults
            setattr(self.inner, name, value)

    return property(read, write)


for _name in _OF_THE_INNER:
    setattr(Wrapper, _name, _of_the_inner(_name))


def unwrapped(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """`optimizer` and those that it wraps, from the outermost to the one that updates weights."""
    chain = [optimizer]
    while True:
        if isinstance(chain[-1], Wrapper):
            chain.append(chain[-1].inner)
        elif isinstance(chain[-1], keras.optimizers.LossScaleOptimizer):
            chain.append(chain[-1].inner_optimizer)
        else:
            return chain


def loss_scaler(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer | None:
    """The `LossScaleOptimizer` among `unwrapped(optimizer)`, or None."""
    scaler = keras.optimizers.LossScaleOptimizer
    return next((one for one in unwrapped(optimizer) if isinstance(one, scaler)), None)
