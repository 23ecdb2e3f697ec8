"""How far back in time a gradient flows: the policies for ``truncation=`` (guide, section 1).

The forward pass does not depend on truncation; only the gradient is cut. All policies act on the
same recurrence of backpropagation through time, ``∂L/∂h_{t-1} = J_tᵀ ∂L/∂h_t + e_{t-1}``, and
differ in when the carried term ``J_tᵀ ∂L/∂h_t`` is dropped or scaled.
"""

import math
from typing import Any, TypeAlias

import keras
import numpy as np

from kbptt._checks import number, one_of, positive_integer
from kbptt._frozen import Freezable
from kbptt._typing import Config
from kbptt.truncation.windows import Align

MEND = (
    "Pass None for full BPTT, an integer such as 64 for chunks, or an object of kbptt.truncation."
)


class Truncation(Freezable):
    """Base class of the truncation policies.

    A policy is serializable and free of tensors: it holds a window length, a stride and an
    alignment and, if it is stochastic, the distribution of the factors ξ_t. It is immutable once a
    layer uses it.
    """

    length: int | None = None
    """Timesteps that a window reaches back; None is the whole sequence."""
    stride: int | None = None
    """Timesteps between the ends of two windows."""
    align: Align = "end"
    diagonal: bool = False
    """Whether the gradient flows only from a unit to itself: `SnAp`."""

    @property
    def stochastic(self) -> bool:
        """Whether the backward pass draws new factors ξ_t for every batch."""
        return False

    def factors(self, timesteps: Any, columns: Any) -> Any:
        """ξ_t, ``(timesteps, columns)``, of stochastic policies that draw it themselves.

        None, the default, draws ξ_t with `cut_probability`. Columns are the samples of the batch if
        `per_sample`, else there is one. See `Randomized`.
        """
        return None

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Truncation":
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Truncation) or type(self) is not type(other):
            return False
        return self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.get_config())))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(package="kbptt")
class Full(Truncation):
    """No truncation: the exact gradient (guide 1.1)."""


@keras.saving.register_keras_serializable(package="kbptt")
class Windowed(Truncation):
    """Regular truncation, TBPTT(k1, k2) with k1 = `stride` and k2 = `length` (guide 1.2).

    Every `stride` steps a window ends, and the losses of its last `stride` steps flow back until
    the window has covered `length` steps. With ``stride=length`` (the default) the windows are
    chunks, and the gradient equals that of the usual hand-written loop with a
    ``stop_gradient`` between chunks. With ``stride=1`` every single loss flows back through exactly
    `length` hidden states; the work grows with ``length / stride``.

    Chunks cut every layer of a stack at the same places. Sliding windows are per layer: through two
    layers a loss can reach back up to twice as far. For one shared horizon put the cells into one
    ``kbptt.RNN([cell, cell])``.

    Args:
        length: Positive integer. Timesteps that a window reaches back (k2). If it is at least the
            sequence length, this is full BPTT.
        stride: Positive integer of at most `length`. Timesteps between the ends of two windows
            (k1). Defaults to `length`.
        align: `"end"` counts the windows from the end of the sequence, so that the last loss
            reaches back the full `length` and the first window is the short one; `"start"` counts
            from the start, as hand-written loops do. They agree whenever `stride` divides the
            number of timesteps. Defaults to `"end"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: [Williams & Peng, 1990](https://doi.org/10.1162/neco.1990.2.4.490).
    """

    def __init__(self, length: int, stride: int | None = None, align: Align = "end") -> None:
        self.length = positive_integer("length", length, MEND)
        self.stride = self.length if stride is None else positive_integer("stride", stride)
        if self.stride > self.length:
            raise ValueError(
                "Invalid value for argument `stride`. Expected at most `length`, since losses "
                f"between two windows would be lost. Received: stride={stride}, length={length}."
            )
        self.align = one_of("align", align, ("end", "start"))

    def get_config(self) -> dict[str, Any]:
        return {"length": self.length, "stride": self.stride, "align": self.align}


@keras.saving.register_keras_serializable(package="kbptt")
class Randomized(Truncation):
    """Randomized truncation: unbiased, but with a larger variance (guide 1.3).

    The gradient carried from step t to step t−1 is multiplied by a random ξ_t with
    P(ξ_t = 0) = 1 − π_t and P(ξ_t = 1/π_t) = π_t, hence E ξ_t = 1. The gradient that flows from the
    first step to the initial state is never cut.

    Args:
        keep_probability: π, a float in (0, 1] or a sequence of one float per timestep (its length
            must be the number of timesteps; its first entry is unused).
        per_sample: Boolean. Draw separately for every sample of a batch instead of once per batch.
            Defaults to `False`.
        seed: Integer or None. Makes the draws repeatable. Defaults to `None`.

    Raises:
        ValueError: If a probability is 0, above 1 or NaN.

    Reference: [Tallec & Ollivier, 2017](https://arxiv.org/abs/1705.08209).
    """

    def __init__(
        self,
        keep_probability: float | list[float],
        per_sample: bool = False,
        seed: int | None = None,
    ) -> None:
        if isinstance(keep_probability, np.ndarray):
            keep_probability = keep_probability.tolist()
        if isinstance(keep_probability, list | tuple) and keep_probability:
            self.keep_probability: float | list[float] = [
                number("keep_probability", p, above=0, at_most=1) for p in keep_probability
            ]
        else:
            self.keep_probability = number("keep_probability", keep_probability, above=0, at_most=1)
        self.per_sample = bool(per_sample)
        self.seed = seed

    @classmethod
    def artbp(
        cls,
        mean_length: float = 50,
        alpha: float = 3,
        per_sample: bool = False,
        seed: int | None = None,
    ) -> "AnticipatedReweighted":
        """Tallec & Ollivier's schedule: see `AnticipatedReweighted`."""
        return AnticipatedReweighted(mean_length, alpha, per_sample, seed)

    @property
    def stochastic(self) -> bool:
        return True

    def cut_probability(self, timestep: Any, since_cut: Any) -> Any:
        """P(ξ_t = 0) at `timestep`, `since_cut` ≥ 1 steps back from the last cut (or the end).

        The arguments are numbers, or tensors of any backend, of one shape up to broadcasting: the
        result is element by element.
        """
        if isinstance(self.keep_probability, list):
            return 1 - keras.ops.take(np.asarray(self.keep_probability), timestep)
        return 1 - self.keep_probability

    def check_timesteps(self, timesteps: int) -> None:
        """Raises `ValueError` if a schedule and the sequence differ in length."""
        schedule = self.keep_probability
        if isinstance(schedule, list) and len(schedule) != timesteps:
            raise ValueError(
                "Invalid value for argument `keep_probability`. Expected one value per timestep "
                f"({timesteps}). Received {len(schedule)} values."
            )

    def get_config(self) -> dict[str, Any]:
        return {
            "keep_probability": self.keep_probability,
            "per_sample": self.per_sample,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="kbptt")
class AnticipatedReweighted(Randomized):
    """ARTBP: the longer the last cut lies back, the rarer cuts get, so long lags stay reachable.

    Going backward, the gradient is cut with probability ``c(δ) = α / ((α − 1)·L₀ + δ)`` where δ is
    the number of steps since the last cut, and divided by ``1 − c(δ)`` otherwise. The mean length
    between cuts is L₀, and P(length ≥ n) falls as n^(−α).

    Args:
        mean_length: Number above 1. L₀. Defaults to 50.
        alpha: Number above 1. α; the paper's own α is this plus 1. Defaults to 3.
        per_sample: Boolean. See `Randomized`.
        seed: Integer or None. See `Randomized`.

    Reference: [Tallec & Ollivier, 2017](https://arxiv.org/abs/1705.08209), section 5.
    """

    def __init__(
        self,
        mean_length: float = 50,
        alpha: float = 3,
        per_sample: bool = False,
        seed: int | None = None,
    ) -> None:
        self.mean_length = number("mean_length", mean_length, above=1)
        self.alpha = number("alpha", alpha, above=1)
        self.per_sample = bool(per_sample)
        self.seed = seed

    def cut_probability(self, timestep: Any, since_cut: Any) -> Any:
        return self.alpha / ((self.alpha - 1) * self.mean_length + since_cut)

    def check_timesteps(self, timesteps: int) -> None:
        """Accepts any length."""

    def get_config(self) -> dict[str, Any]:
        return {
            "mean_length": self.mean_length,
            "alpha": self.alpha,
            "per_sample": self.per_sample,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="kbptt")
class SnAp(Truncation):
    """SnAp-1, sparse real-time recurrent learning for streams.

    Of all paths from a loss back to a parameter, only those within the parameter's own unit are
    kept. From one timestep to the previous one, the gradient uses only the diagonal blocks of J_t
    (for an LSTM, from h and c of a unit to h and c of that unit), and the product with Uᵀ becomes
    one with its diagonal elements. This is exact if units do not interact.

    The past of each parameter is then summarized by one number per state of its unit, the influence
    J = ∂s/∂θ. Where states are carried from call to call in training, in a stateful layer or by
    `kbptt.callbacks.StreamState`, J is carried with them. Losses thus reach back through all
    earlier windows, in constant memory: ``batch · states · parameters`` numbers. Where the states
    are reset, so is J. When the weights change in between, J keeps the influence that earlier
    weights had, as in the paper.

    In `kbptt.RNN` with a custom cell, every parameter is assumed to act on all units. Then nothing
    is left out, and carrying J is real-time recurrent learning: exact, with one backward pass per
    state element, so only for small cells.

    Args:
        order: The n of SnAp-n. Only 1 is supported. Defaults to `1`.

    Raises:
        ValueError: If `order` is not 1. Raised by a call if units interact in ways that SnAp-1 does
            not follow (layer normalization, a GRU with ``reset_after=False``) or there is a
            `gradient_regularizer`.

    Reference: [Menick et al., 2020](https://arxiv.org/abs/2006.07232).
    """

    diagonal = True

    def __init__(self, order: int = 1) -> None:
        self.order = positive_integer("order", order)
        if self.order != 1:
            raise ValueError(
                "Invalid value for argument `order`. Expected 1: in a dense network SnAp-2 keeps "
                "the influence of every parameter on all units, which is real-time recurrent "
                f"learning. Received: order={order!r}. For more of the gradient use full BPTT "
                "(`truncation=None`) or longer windows."
            )

    def get_config(self) -> dict[str, Any]:
        return {"order": self.order}


_NAMES = {
    "full": Full,
    "windowed": Windowed,
    "randomized": Randomized,
    "artbp": AnticipatedReweighted,
    "snap": SnAp,
}


TruncationLike: TypeAlias = int | str | Config | Truncation | None


def get(identifier: TruncationLike) -> Truncation:
    """Returns the `Truncation` for an identifier.

    Args:
        identifier: None or `"full"` (full BPTT), a positive integer (chunks of that length),
            `"artbp"`, `"snap1"`, a serialized configuration, or a `Truncation`.

    Raises:
        ValueError: If the identifier is none of these.
    """
    if identifier is None or identifier == "full":
        return Full()
    if isinstance(identifier, Truncation):
        return identifier
    if identifier == "artbp":
        return AnticipatedReweighted()
    if identifier == "snap1":
        return SnAp()
    if isinstance(identifier, dict):
        if "class_name" in identifier:
            return keras.saving.deserialize_keras_object(identifier)
        arguments = dict(identifier)
        name = one_of("truncation", arguments.pop("name", "windowed"), _NAMES)
        try:
            return _NAMES[name](**arguments)
        except TypeError as error:  # a missing or an unknown argument
            raise ValueError(
                f"Invalid value for argument `truncation`. Received: truncation={identifier!r}. "
                f"{error}."
            ) from None
    if isinstance(identifier, float) and math.isfinite(identifier) and identifier.is_integer():
        raise ValueError(
            "Invalid value for argument `truncation`. Expected an integer. "
            f"Received: truncation={identifier!r} (of type float). Write {int(identifier)}."
        )
    return Windowed(positive_integer("truncation", identifier, MEND))


def serialize(truncation: Truncation) -> dict[str, Any] | None:
    """Returns the configuration that `get` turns back into `truncation`."""
    return keras.saving.serialize_keras_object(truncation)
