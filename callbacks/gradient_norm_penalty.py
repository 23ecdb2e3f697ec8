"""The callback that adds a gradient-norm penalty to the loss of any Keras model in `fit`."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from kbptt import _checks, engine
from kbptt._attributes import Option
from kbptt.callbacks import _substitution
from kbptt.callbacks._step import Step, StepWrapper
from kbptt.layers import find
from kbptt.optimizers.wrapper import Wrapper
from kbptt.regularizers import gradient_norm


@keras.saving.register_keras_serializable(package="kbptt")
class GradientNormPenalty(keras.callbacks.Callback):
    """Minimizes L + λ‖∂L/∂θ‖² (or L + λ‖∂L/∂θ‖) instead of L, during `fit` only.

    Flat minima have small gradients around them; a small ‖∂L/∂θ‖ also keeps the loss away from the
    walls where the gradient of a recurrent network explodes. The norm is over all trainable
    variables of the model, and L is what `fit` minimizes: loss, `add_loss` and weight regularizers.

    The penalty's gradient is added before anything else sees the gradient: the clipping callbacks,
    wherever they are in the list, and the optimizer clip the sum. The reported loss remains L.

    `form="finite_difference"` evaluates the gradient a second time, at θ + r·g/‖g‖, on the same
    batch with the same dropout masks: about twice the time of a step, for any layer. It is first
    order in r.

    `form="exact"` backpropagates through backpropagation. Every layer must be twice differentiable.
    kbptt layers then use an ordinary loop instead of their engine, which is many times slower and
    does not support sliding windows. With truncation the gradient is not that of any loss, and the
    two forms differ: the finite difference follows the truncated gradient that is actually used.

    A non-finite penalty is left out of that step and counted in `skipped`.

    Example:

    ```python
    penalty = kbptt.callbacks.GradientNormPenalty(0.01)
    model.fit(x, y, callbacks=[penalty, kbptt.callbacks.ClipByGlobalNorm(1.0)])
    ```

    Args:
        weight: Float of at least 0, λ. Can be assigned during training (`penalty.weight = 0.1`)
            without recompiling. Defaults to `0.01`.
        form: `"finite_difference"` or `"exact"`. Defaults to `"finite_difference"`.
        radius: Float above 0, r: the length of the step in the space of all weights, for
            `"finite_difference"`. Smaller values are closer to the exact penalty, until rounding,
            about 1e-7·‖g‖/r in float32, dominates; in mixed precision use 0.1. Defaults to `0.01`.
        squared: Boolean, the squared norm rather than the norm. Defaults to `True`.

    Raises:
        ValueError: from `fit`, if the model overrides `train_step` (the loss that it minimizes is
            unknown) or is distributed over several replicas.

    Reference:

    - [Zhao, Zhang & Hu, 2022](https://arxiv.org/abs/2202.03599) for the finite difference.
    - [Drucker & Le Cun, 1992](https://ieeexplore.ieee.org/document/165600) for double
      backpropagation.
    """

    form = Option(functools.partial(_checks.one_of, valid=["finite_difference", "exact"]))
    radius = Option(functools.partial(_checks.number, above=0))
    squared = Option(_checks.flag)

    def __init__(
        self,
        weight: float = 0.01,
        form: Literal["finite_difference", "exact"] = "finite_difference",
        radius: float = 0.01,
        squared: bool = True,
    ):
        super().__init__()
        self._weight = _checks.number("weight", weight, at_least=0)
        self.form = form
        self.radius = radius
        self.squared = squared
        self._variables = None

    @property
    def weight(self) -> float:
        return self._weight

    @weight.setter
    def weight(self, value: float) -> None:
        self._weight = _checks.number("weight", value, at_least=0)
        if self._variables is not None:
            self._variables["weight"].assign(self._weight)

    def statistics(self) -> dict[str, float]:
        """`gradient_norm` ‖∂L/∂θ‖ and `penalty` of the last step, `skipped` steps so far."""
        if self._variables is None:
            return {}
        names = ("gradient_norm", "penalty", "skipped")
        return {name: float(self._variables[name].numpy()) for name in names}

    def get_config(self) -> dict[str, Any]:
        return {
            "weight": self.weight,
            "form": self.form,
            "radius": self.radius,
            "squared": self.squared,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientNormPenalty":
        return cls(**config)

    # Keras's hooks.

    def on_train_begin(self, logs=None):
        _check_model(self.model)
        if self._variables is None:
            self._variables = {
                "weight": tf.Variable(self._weight, trainable=False, dtype=tf.float64),
                "gradient_norm": tf.Variable(0.0, trainable=False),
                "penalty": tf.Variable(0.0, trainable=False),
                "skipped": tf.Variable(0.0, trainable=False),
            }
        self._wrapper = _Penalized(self.model, self)
        _substitution.of(self.model).join(wrapper=self._wrapper)

    def on_train_batch_begin(self, batch, logs=None):
        _substitution.of(self.model).take_step()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            statistics = self.statistics()
            logs["gradient_penalty_norm"] = statistics["gradient_norm"]
            logs["gradient_norm_penalty"] = statistics["penalty"]

    def on_train_end(self, logs=None):
        _substitution.of(self.model).leave(wrapper=self._wrapper)

    # Inside the train step.

    def penalized(
        self, loss: gradient_norm.ScaledLoss, gradients: Sequence, variables: Sequence, scale: Any
    ) -> list[tf.Tensor]:
        """The gradients of L plus those of the penalty, all times the loss scale."""
        values = [tf.convert_to_tensor(variable) for variable in variables]
        g = gradient_norm.dense(gradients, values)
        weight, norm = self._variables["weight"], gradient_norm.global_norm(g)
        dtype = norm.dtype
        weight, scale = tf.cast(weight, dtype), tf.cast(scale, dtype)
        # kbptt layers have recorded ‖∂L/∂h_t‖; the passes that follow are not those of L at θ.
        with _unrecorded(self.model):
            if self.form == "exact":
                # kbptt layers own their gradient, which has none of its own except in this scope.
                with engine.differentiable():
                    extra = gradient_norm.exact(loss, values, weight, self.squared, scale)
            else:
                extra = gradient_norm.finite_difference(
                    loss, values, g, weight, self.radius, self.squared, scale
                )
        finite = tf.math.is_finite(gradient_norm.global_norm(extra))
        norm = norm / scale
        self._assign("gradient_norm", norm)
        self._assign("penalty", weight * (tf.square(norm) if self.squared else norm))
        skipped = self._variables["skipped"]
        skipped.assign_add(tf.cast(tf.logical_not(finite), skipped.dtype))
        return [
            tf.cast(base + tf.where(finite, more, 0.0), value.dtype)
            for base, more, value in zip(g, extra, values, strict=True)
        ]

    def _assign(self, name: str, value: tf.Tensor) -> None:
        self._variables[name].assign(tf.cast(value, tf.float32))


class _Penalized(StepWrapper):
    """The train step, which meets an optimizer that adds the penalty's gradient."""

    TWICE = "Two GradientNormPenalty callbacks in one fit. Use one with the sum of their weights."

    def __init__(self, model: keras.Model, penalty: GradientNormPenalty):
        self.model = model
        self.penalty = penalty

    def wrap(self, step: Step) -> Step:
        model, adding = self.model, _AddPenalty(self.model, self.penalty)

        def penalized(data: Any) -> Any:
            optimizer = adding.inner
            # What the forward pass changes: dropout seeds, moving averages, states. The second
            # evaluation must start from the same.
            before = [(v, tf.identity(v.value)) for v in model.non_trainable_variables]
            drawn = [
                (state, tf.identity(state))
                for layer in find.truncated_layers(model)
                for state in layer.random_states()
            ]
            adding.batch = lambda: (data, before, drawn)
            model.optimizer = adding  # while this is traced, or run eagerly
            try:
                return step(data)
            finally:
                model.optimizer = optimizer

        return penalized


class _AddPenalty(Wrapper):
    """An optimizer that adds the penalty's gradient on the batch that `batch` returns."""

    def __init__(self, model: keras.Model, penalty: GradientNormPenalty):
        super().__init__(model.optimizer, "add_penalty")
        self.penalty = penalty
        self.penalized = lambda: model
        self.batch: Callable[[], tuple[Any, list, list]] = lambda: (None, [], [])

    def apply(self, grads: Sequence, trainable_variables: Sequence | None = None) -> None:
        model, (data, before, drawn) = self.penalized(), self.batch()
        grads = list(grads)
        variables = list(trainable_variables or model.trainable_variables)
        # Variables without a gradient are constants, and keep none.
        known = [i for i, g in enumerate(grads) if g is not None]
        if known:
            others = before + [
                (v, tf.identity(v.value)) for i, v in enumerate(variables) if i not in known
            ]
            weights = [variables[i] for i in known]

            def loss(values):
                mapping = [*zip(weights, values, strict=True), *others]
                return self.scale_loss(_loss(model, data, mapping))

            scale = self.scale_loss(tf.ones([]))
            given = [grads[i] for i in known]
            # What backward passes draw is drawn again: else the difference would be that of draws.
            after = [tf.identity(state) for state, _ in drawn]
            for state, value in drawn:
                state.assign(value)
            penalized = self.penalty.penalized(loss, given, weights, scale)
            for (state, _), value in zip(drawn, after, strict=True):
                state.assign(value)
            for i, gradient in zip(known, penalized, strict=True):
                grads[i] = gradient
        self.inner.apply(grads, trainable_variables)


def _loss(model: keras.Model, data: Any, mapping: list[tuple]) -> tf.Tensor:
    """L of the model with `mapping`'s values in place of its variables, changing nothing."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
        training = {"training": True} if _takes_training(model) else {}
        y_pred = model(x, **training)
        return model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)


def _takes_training(model: keras.Model) -> bool:
    parameters = inspect.signature(model.call).parameters.values()
    return any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in parameters)


def _check_model(model: keras.Model) -> None:
    if "train_step" in vars(model) or type(model).train_step is not keras.Model.train_step:
        raise ValueError(
            "GradientNormPenalty needs the `train_step` of keras.Model, otherwise the loss that is "
            f"minimized is unknown. Received: {type(model).__name__}, which overrides "
            "`train_step`. Override `compute_loss` instead."
        )
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            "GradientNormPenalty works on one replica, since the norm of the whole batch's "
            "gradient is not the sum of the replicas' norms. Received: a distribution strategy of "
            f"{replicas} replicas. Train without it."
        )


@contextlib.contextmanager
def _unrecorded(model: keras.Model) -> Iterator[None]:
    """Keeps `gradient_norms` of the model's layers as they are."""
    with contextlib.ExitStack() as stack:
        for layer in find.truncated_layers(model):
            stack.enter_context(layer.temporarily(record_gradient_norms=False))
        yield
