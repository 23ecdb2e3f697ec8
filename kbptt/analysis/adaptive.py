"""The window length that keeps the bias of the truncated gradient below a tolerance: arithmetic.

φ_k is the mean norm of ∂L_s/∂h_{s−k}, the gradient of the loss at step s with respect to the state
k steps earlier, k = 0 … n−1. A window of length K keeps the lags k < K. From lag τ on the norms are
taken to fall geometrically, φ_{τ+t} ≤ β^t φ_τ, so what a window leaves out can be bounded.

Arrays over window lengths start with K = 1: entry K−1 belongs to the length K.

Reference: [Aicher, Foti & Fox, 2019](https://arxiv.org/abs/1905.07473), Adaptively Truncating
Backpropagation Through Time to Control Gradient Bias.
"""

import math
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from kbptt import _checks

Method: TypeAlias = Literal["least_squares", "largest_ratio", "quantile"]
METHODS: tuple[Method, ...] = get_args(Method)

# The authors measure the decay from lag 80 on where the window is at most 100.
DECAY_STARTS_AT = 0.8


class WindowEstimate(NamedTuple):
    """Result of `estimate_window`.

    Attributes:
        length: Integer. The window's length K.
        beta: Float. The factor per lag by which the norms fall from lag τ on.
        relative_bias: Float. The estimated bound of the bias of a window of this length, relative
            to the norm of the gradient; infinite where the data give no bound.
        biases: `(lags,)`. The same for every length K = 1 … lags.
    """

    length: int
    beta: float
    relative_bias: float
    biases: np.ndarray


def decay(norms: np.ndarray, tau: int = 0, method: Method = "least_squares") -> float:
    """β: the factor per lag by which φ falls from lag `tau` on.

    Args:
        norms: φ, `(lags,)`, not negative.
        tau: Integer below the number of lags. Defaults to `0`.
        method: `"least_squares"`: the line through log φ; `"largest_ratio"`: the smallest β with
            φ_{τ+t} ≤ β^t φ_τ at all measured lags; `"quantile"`: the 0.95 quantile of the factors
            per lag between all pairs of lags. Defaults to `"least_squares"`.

    Returns:
        β: above 1 if the norms grow, 0 if at most one of them is nonzero, NaN for a single lag.
    """
    norms = _check(norms, tau)[tau:]
    _checks.one_of("method", method, METHODS)
    if norms.size < 2:
        return math.nan
    lags = np.flatnonzero(norms)  # an exact zero has no logarithm and contributes nothing
    if lags.size < 2:
        return 0.0
    logs = np.log(norms[lags])
    if method == "least_squares":
        centred = lags - lags.mean()
        return float(np.exp(centred @ logs / (centred @ centred)))
    if method == "largest_ratio":
        return float(np.exp(np.max((logs[1:] - logs[0]) / (lags[1:] - lags[0]))))
    earlier, later = np.triu_indices(lags.size, k=1)
    slopes = (logs[later] - logs[earlier]) / (lags[later] - lags[earlier])
    return float(np.exp(np.quantile(slopes, 0.95)))


def remaining_gradient(
    norms: np.ndarray, beta: float, tau: int, timesteps: int | None = None
) -> np.ndarray:
    """E(K) for K = 1 … lags: bound of the norm of the gradient that a window of length K omits.

    Σ_{k=K}^{τ−1} φ_k + φ_τ Σ_{t≥0} β^t for K < τ, and φ_τ Σ_{t≥K−τ} β^t from there on: measured up
    to lag τ, extrapolated beyond. (The published sum for K < τ counts φ_τ twice.)

    Args:
        norms: φ, `(lags,)`.
        beta: Number of at least 0.
        tau: Integer below the number of lags.
        timesteps: Integer, length of the sequences, where the sums end, or None for infinite
            sums, as in the paper. Defaults to `None`.

    Returns:
        `(lags,)`; infinite for β ≥ 1 without an end.
    """
    norms = _check(norms, tau)
    lengths = np.arange(1, norms.size + 1)
    first = np.maximum(lengths, tau)  # the first extrapolated lag
    tail = norms[tau] * _geometric(
        beta, first - tau, timesteps if timesteps is None else timesteps - tau
    )
    measured = np.concatenate([np.cumsum(norms[:tau][::-1])[::-1], [0.0]])
    return measured[np.minimum(lengths, tau)] + tail


def relative_biases(
    norms: np.ndarray,
    truncated: np.ndarray,
    beta: float,
    tau: int,
    timesteps: int | None = None,
) -> np.ndarray:
    """δ̂(K) = E(K) / max_{K'}(‖ĝ_{K'}‖ − E(K')) for K = 1 … lags.

    The denominator is a lower bound of the norm of the whole gradient.

    Args:
        norms: φ, `(lags,)`.
        truncated: ‖ĝ_K‖, `(lags,)`: norm of the gradient of a window of length K.
        beta, tau, timesteps: See `remaining_gradient`.

    Returns:
        `(lags,)`; infinite if the bound of the whole gradient's norm is not above 0.
    """
    remaining = remaining_gradient(norms, beta, tau, timesteps)
    with np.errstate(invalid="ignore"):
        whole = np.max(np.asarray(truncated, "float64") - remaining)
    if not whole > 0:
        return np.where(remaining == 0, 0.0, np.inf)
    return remaining / whole


def estimate_window(
    norms: np.ndarray,
    truncated: np.ndarray,
    tolerance: float = 0.1,
    minimum: int = 1,
    maximum: int | None = None,
    tau: int | None = None,
    method: Method = "least_squares",
    timesteps: int | None = None,
) -> WindowEstimate:
    """κ = min{K : δ̂(K) < δ}, within `minimum` and `maximum`.

    Args:
        norms: φ, `(lags,)`.
        truncated: ‖ĝ_K‖, `(lags,)`.
        tolerance: Number above 0. δ, the tolerated relative bias. Defaults to `0.1`.
        minimum: Positive integer. Defaults to `1`.
        maximum: Integer of at least `minimum`; never above the number of lags. Defaults to it.
        tau: Integer. The lag τ from which the norms fall geometrically. Defaults to 0.8 times the
            number of lags.
        method: See `decay`. Defaults to `"least_squares"`.
        timesteps: See `remaining_gradient`.

    Returns:
        A `WindowEstimate`. If no length has a bias below the tolerance, its length is `maximum`.

    Raises:
        ValueError: If an argument is out of its range, or the norms are not finite or all zero.
    """
    norms = np.asarray(norms, "float64")
    tolerance = _checks.number("tolerance", tolerance, above=0)
    minimum, maximum = check_bounds(minimum, maximum)
    if not (norms.ndim == 1 and norms.size and np.all(np.isfinite(norms))):
        raise ValueError("The gradients by lag are not finite: the model has diverged.")
    if not norms.any():
        raise ValueError("The gradients by lag are all zero: the loss sends no gradient back.")
    tau = default_tau(norms.size) if tau is None else tau
    beta = decay(norms, tau, method)
    # A single lag has no decay: what follows is unknown, unless the sequences end there.
    assumed = 1.0 if math.isnan(beta) else beta
    biases = relative_biases(norms, truncated, assumed, tau, timesteps)
    longest = norms.size if maximum is None else min(maximum, norms.size)
    below = np.flatnonzero(biases[:longest] < tolerance)
    length = max(int(below[0]) + 1 if below.size else longest, min(minimum, longest))
    return WindowEstimate(length, beta, float(biases[length - 1]), biases)


def check_bounds(minimum: int, maximum: int | None) -> tuple[int, int | None]:
    """Returns both bounds, or raises `ValueError` if one is invalid."""
    minimum = _checks.positive_integer("minimum", minimum)
    if maximum is not None:
        maximum = _checks.positive_integer("maximum", maximum)
        if maximum < minimum:
            raise ValueError(
                "Invalid value for argument `maximum`. Expected at least `minimum`. "
                f"Received: maximum={maximum}, minimum={minimum}."
            )
    return minimum, maximum


def default_tau(lags: int) -> int:
    """The default lag from which the decay is measured: 0.8 times the number of lags."""
    return min(int(DECAY_STARTS_AT * lags), max(lags - 2, 0))


def window(length: int, overlap: bool = False) -> tuple[int, int]:
    """`(length, stride)` of `kbptt.truncation.Windowed` for an estimated length K.

    Chunks of K, in which losses reach back K/2 steps on average; with `overlap` windows in which
    every loss reaches back at least K states.
    """
    return (2 * length - 1 if overlap else length), length


def length_grid(minimum: int, maximum: int, ratio: float = 1.5) -> np.ndarray:
    """Lengths from `minimum` to `maximum`, each about `ratio` times the one before.

    Rounding estimates up to this grid bounds the number of compilations of a model.
    """
    minimum, maximum = check_bounds(minimum, maximum)
    ratio = _checks.number("ratio", ratio, above=1)
    lengths = [minimum]
    while lengths[-1] < maximum:
        lengths.append(min(maximum, max(lengths[-1] + 1, math.ceil(lengths[-1] * ratio))))
    return np.array(lengths)


def round_up(length: int, grid: np.ndarray) -> int:
    """The smallest value of `grid` that is at least `length`, or its largest."""
    return int(grid[min(np.searchsorted(grid, length), len(grid) - 1)])


def _geometric(beta: float, start: np.ndarray, end: int | None) -> np.ndarray:
    """Σ_{t=start}^{end−1} β^t, without an end Σ_{t≥start} β^t."""
    if end is None:
        return np.full(start.shape, np.inf) if beta >= 1 else float(beta) ** start / (1 - beta)
    with np.errstate(over="ignore"):
        powers = float(beta) ** np.arange(max(end, 0))
    sums = np.append(np.cumsum(powers[::-1])[::-1], 0.0)
    return sums[np.minimum(start, sums.size - 1)]


def _check(norms: np.ndarray, tau: int) -> np.ndarray:
    norms = np.asarray(norms, "float64")
    if not (isinstance(tau, int | np.integer) and 0 <= tau < norms.size):
        raise ValueError(
            "Invalid value for argument `tau`. Expected a lag of 0 to one below the number of lags "
            f"({norms.size}). Received: tau={tau!r} (of type {type(tau).__name__})."
        )
    return norms
