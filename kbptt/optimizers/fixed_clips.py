"""Clipping by a fixed bound: of elements, of variables, of the whole gradient."""

from collections.abc import Sequence

import keras

from kbptt.optimizers import clipping
from kbptt.optimizers.transform import GradientTransform, Schedule, State, Transformed


class _FixedClip(GradientTransform):
    def __init__(
        self,
        threshold: float | Schedule,
        *,
        variables: str | Sequence[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(threshold, variables=variables, name=name)


@keras.saving.register_keras_serializable(package="kbptt", name="optimizers.ClipByValue")
class ClipByValue(_FixedClip):
    """Limits every element of the gradient to [-threshold, threshold].

    Changes the direction of the step. Like Keras's `clipvalue`, but for all or some variables, with
    statistics, and correct under `MirroredStrategy`.

    Args:
        threshold: Positive float or schedule. The largest magnitude of an element.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Defaults to `"clip_by_value"`.
    """

    def transform(self, gradients: list, norms: list, weights: list, state: State) -> Transformed:
        return clipping.clip_by_value(gradients, state["threshold"]), None, state


@keras.saving.register_keras_serializable(package="kbptt", name="optimizers.ClipByNorm")
class ClipByNorm(_FixedClip):
    """Scales each variable's gradient separately to a norm of at most `threshold`.

    Keeps the direction within a variable, but not that of the whole step. Like Keras's `clipnorm`,
    but for all or some variables, with statistics, and correct under `MirroredStrategy`.

    Args:
        threshold: Positive float or schedule. The largest norm of one variable's gradient.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Defaults to `"clip_by_norm"`.
    """

    def transform(self, gradients: list, norms: list, weights: list, state: State) -> Transformed:
        return *clipping.clip_by_norm(gradients, state["threshold"], norms), state


@keras.saving.register_keras_serializable(package="kbptt", name="optimizers.ClipByGlobalNorm")
class ClipByGlobalNorm(_FixedClip):
    """Scales the gradient of all selected variables together to a norm of at most `threshold`.

    Keeps the direction of the step: the usual remedy for exploding gradients in recurrent networks.
    Like Keras's `global_clipnorm`, but for all or some variables, with statistics, correct under
    `MirroredStrategy`, and without turning every gradient into NaN if one is.

    Args:
        threshold: Positive float or schedule. The largest global norm. Start with 0.5 to 10 times
            the average norm, which `GradientNorm` measures.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Defaults to `"clip_by_global_norm"`.

    Reference:
        - [Pascanu, Mikolov & Bengio, 2013](https://arxiv.org/abs/1211.5063), algorithm 1
    """

    def transform(self, gradients: list, norms: list, weights: list, state: State) -> Transformed:
        return *clipping.clip_by_global_norm(gradients, state["threshold"], norms), state
