"""Pascanu's vanishing-gradient regularizer Ω, the value ``gradient_regularizer=`` of a layer."""

from typing import Any, TypeAlias

import keras
from keras import ops

from kbptt._checks import number, one_of
from kbptt._frozen import Freezable
from kbptt._typing import Config


@keras.saving.register_keras_serializable(package="kbptt")
class VanishingGradient(Freezable):
    """Ω: preserves the norm of the gradient as it flows one timestep back.

    Ω = mean over the batch of Σ_t (‖J_tᵀ v_t‖ / ‖v_t‖ − 1)², where v_t = ∂L/∂h_t and J_t is the
    Jacobian ∂h_t/∂h_{t−1}. As in the paper, its gradient is taken with respect to the recurrent
    kernel only, with the states and v_t held constant. For the LSTM it acts on the h path, not on
    the cell state. Combine it with gradient clipping, because Ω increases the gradient.

    The layer adds ``weight·∂Ω/∂U`` to the kernel's gradient in its own backward pass; the value of
    ``weight·Ω`` is in ``layer.gradient_penalty``, not in the loss. The layer also adds a loss of 0
    to find the loss scale.

    Args:
        weight: Positive float. λ. Defaults to 4, the paper's value for the temporal order task.
        decay_steps: Positive float or None. If given, the weight after n steps is
            ``weight / (1 + n / decay_steps)``, the 1/t schedule. Defaults to `None`.
        squared: Boolean. Use the ratio of the squared norms, as the authors' code does. Defaults
            to `False`, the paper's formula.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: [Pascanu, Mikolov & Bengio, 2013](https://arxiv.org/abs/1211.5063), eqs. 9 and 10.
    """

    # Below this the ratio is noise: the authors' code skips ‖v‖² < 1e-20.
    SMALLEST_NORM = 1e-10

    def __init__(
        self, weight: float = 4.0, decay_steps: float | None = None, squared: bool = False
    ) -> None:
        self.weight = number("weight", weight, above=0)
        if decay_steps is not None:
            decay_steps = number("decay_steps", decay_steps, above=0)
        self.decay_steps = decay_steps
        self.squared = bool(one_of("squared", squared, (True, False)))

    def weight_at(self, step: Any) -> Any:
        """λ after `step` updates, a number or tensor."""
        if self.decay_steps is None:
            return ops.ones_like(ops.cast(step, "float32")) * self.weight
        return self.weight / (1 + ops.cast(step, "float32") / self.decay_steps)

    def __call__(self, vjp: Any, norms: Any = None, counts: Any = None) -> tuple[Any, Any]:
        """Returns Ω and its gradient with respect to `vjp`.

        Args:
            vjp: J_tᵀ v_t, ``(timesteps, batch, units)``.
            norms: ‖v_t‖, ``(timesteps, batch)``.
            counts: Boolean ``(timesteps, batch)``: which terms belong to the sum.
        """
        if norms is None:
            raise TypeError(
                "VanishingGradient regularizes gradients. Received a tensor of weights or outputs. "
                "Pass it to a kbptt layer as `gradient_regularizer`."
            )
        norms = ops.cast(norms, vjp.dtype)
        vjp_norms = ops.sqrt(ops.sum(vjp * vjp, axis=-1))
        valid = counts & (norms > self.SMALLEST_NORM) & ops.isfinite(norms)
        safe = ops.where(valid, norms, ops.ones_like(norms))
        ratio = ops.where(valid, vjp_norms / safe, ops.ones_like(norms))
        batch = ops.cast(ops.shape(vjp)[1], vjp.dtype)
        if self.squared:
            error = ratio * ratio - 1
            scale = 4 * error / (safe * safe)
        else:
            error = ratio - 1
            moving = valid & (vjp_norms > 0)
            scale = 2 * error / (safe * ops.where(moving, vjp_norms, ops.ones_like(norms)))
        scale = ops.where(valid, scale, ops.zeros_like(scale)) / batch
        return ops.sum(error * error) / batch, scale[..., None] * vjp

    def get_config(self) -> dict[str, Any]:
        return {"weight": self.weight, "decay_steps": self.decay_steps, "squared": self.squared}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VanishingGradient":
        return cls(**config)


GradientRegularizerLike: TypeAlias = str | Config | VanishingGradient | None


def get(identifier: GradientRegularizerLike) -> VanishingGradient | None:
    """Returns the gradient regularizer for None, `"vanishing_gradient"`, a config or an object.

    Raises:
        ValueError: If the identifier is none of these.
    """
    if identifier is None or isinstance(identifier, VanishingGradient):
        return identifier
    if isinstance(identifier, dict) or identifier in ("vanishing_gradient", "VanishingGradient"):
        from kbptt import regularizers  # not at the top: the package imports this module

        result = regularizers.get(identifier)
        if isinstance(result, VanishingGradient):
            return result
    raise ValueError(
        "Invalid value for argument `gradient_regularizer`. Expected None, 'vanishing_gradient' or "
        "a kbptt.regularizers.VanishingGradient. "
        f"Received: gradient_regularizer={identifier!r} (of type {type(identifier).__name__})."
    )
