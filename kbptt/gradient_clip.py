"""Clipping of the gradient carried from timestep to timestep: values of ``gradient_clip=``."""

from typing import Any, TypeAlias

import keras

from kbptt._checks import number
from kbptt._frozen import Freezable
from kbptt._identifiers import from_config
from kbptt._typing import Config


@keras.saving.register_keras_serializable(package="kbptt")
class ByNorm(Freezable):
    """Scales the gradient carried to the previous timestep down to a norm, sample by sample.

    With v_t = J_tᵀ ∂L/∂h_t of one sample (for an LSTM, of h and c together), the gradient carried
    back is ``v_t · min(1, norm / ‖v_t‖)``. Unlike a bound on every element, this keeps its
    direction. An infinite element counts as the largest finite number; NaN stays NaN.

    Args:
        norm: Positive float.

    Raises:
        ValueError: If `norm` is not a positive number.

    Reference: [Pascanu et al., 2013](https://arxiv.org/abs/1211.5063), algorithm 1, applied at
    every timestep as the bound on elements of [Graves, 2013](https://arxiv.org/abs/1308.0850).
    """

    def __init__(self, norm: float) -> None:
        self.norm: float = number("norm", norm, above=0)

    def get_config(self) -> dict[str, Any]:
        return {"norm": self.norm}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ByNorm":
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByNorm) and self.norm == other.norm

    def __hash__(self) -> int:
        return hash((ByNorm, self.norm))


GradientClipLike: TypeAlias = float | Config | ByNorm | None


def get(identifier: GradientClipLike) -> float | ByNorm | None:
    """Returns the clip for None, a positive number, a `ByNorm` or its configuration.

    Raises:
        ValueError: If the identifier is none of these.
    """
    if identifier is None or isinstance(identifier, ByNorm):
        return identifier
    if (made := from_config(identifier, ByNorm)) is not None:
        return made
    mend = (
        "A bound on the norm of each sample's is kbptt.clipping.ByNorm(1.0), on the command line "
        "the method timestep_clip_norm."
    )
    return number("gradient_clip", identifier, above=0, mend=mend)


def serialize(clip: float | ByNorm | None) -> float | dict[str, Any] | None:
    """Returns the configuration that `get` turns back into `clip`."""
    return keras.saving.serialize_keras_object(clip) if isinstance(clip, ByNorm) else clip
