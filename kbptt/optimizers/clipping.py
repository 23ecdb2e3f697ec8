"""Gradient clipping as pure functions of lists of gradients.

Each function takes dense gradients (and, where it helps, their norms, so that a chain of clips
measures every gradient once) and returns new ones. `kbptt.optimizers.Clipped` applies them.

A gradient that is small enough is returned unchanged, bit for bit: its factor is exactly 1. Norms
are computed in at least float32 and neither overflow nor underflow while the gradient itself does
not. NaN and Inf are not repaired: the norm is NaN or Inf, and the caller skips the step.
"""

from collections.abc import Sequence
from typing import Any

from keras import backend, ops

Tensor = Any

# Avoids 0/0 for a zero gradient; the quotient by it only ever meets `minimum(1, ...)`.
_TINY = 1e-37


def safe_norm(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The Euclidean norm of `x` over `axis`, in at least float32.

    The norm of a gradient of 1e30 is not Inf, and that of 1e-30 is not 0: the squares of float32
    are summed in float64, and those of float64 after division by the largest magnitude.
    """
    x = _at_least_float32(x)
    if _dtype(x) == "float32":
        return ops.cast(ops.sqrt(_sum_of_squares(x, axis, keepdims)), "float32")
    largest = ops.max(ops.abs(x), axis=axis, keepdims=True, initial=0.0)
    usable = ops.logical_and(largest > 0, ops.isfinite(largest))
    scale = ops.where(usable, largest, ops.ones_like(largest))
    norm = scale * ops.sqrt(ops.sum(ops.square(x / scale), axis=axis, keepdims=True))
    if keepdims:
        return norm
    return ops.reshape(norm, ()) if axis is None else ops.squeeze(norm, axis=axis)


def norms(gradients: Sequence[Tensor]) -> list[Tensor]:
    """The norm of each gradient, all in one dtype."""
    if any(_dtype(gradient) == "float64" for gradient in gradients):
        return [ops.cast(safe_norm(gradient), "float64") for gradient in gradients]
    # As `safe_norm`, but one root for all: an operation costs more than the root.
    squares = ops.stack([_sum_of_squares(gradient) for gradient in gradients])
    return ops.unstack(ops.cast(ops.sqrt(squares), "float32"), len(gradients))


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients together, as if concatenated into one vector."""
    return combine(norms(gradients))


def combine(norms: Sequence[Tensor]) -> Tensor:
    """The global norm from the `norms` of the single gradients."""
    return safe_norm(ops.stack(list(norms)))


def all_finite(norms: Sequence[Tensor]) -> Tensor:
    """Whether no gradient holds NaN or Inf, judged by the `norms`: one number per variable."""
    return ops.all(ops.isfinite(ops.stack(list(norms))))


def shrank(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """Whether a clip acted, by the norms before and after it.

    More than rounding: a gradient that lies on its bound already counts as not clipped.
    """
    return ops.any(ops.stack(list(after)) < ops.stack(list(before)) * (1 - 1e-6))


def clip_by_value(gradients: Sequence[Tensor], threshold: Tensor) -> list[Tensor]:
    """Limits every element to [-threshold, threshold]."""
    limits = [ops.cast(threshold, _dtype(gradient)) for gradient in gradients]
    return [ops.clip(g, -limit, limit) for g, limit in zip(gradients, limits, strict=True)]


def clip_by_norm(
    gradients: Sequence[Tensor], threshold: Tensor, norms: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Scales each gradient whose norm exceeds `threshold` to that norm.

    Returns the gradients and their new norms.
    """
    factors = [shrink_factor(norm, threshold) for norm in norms]
    return scaled(gradients, factors), scaled(norms, factors)


def clip_by_global_norm(
    gradients: Sequence[Tensor], threshold: Tensor, norms: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Scales all gradients by one factor so that their global norm is at most `threshold`.

    Keeps the direction of the step (Pascanu, Mikolov & Bengio 2013, algorithm 1). Returns the
    gradients and their new norms.
    """
    factors = [shrink_factor(combine(norms), threshold)] * len(gradients)
    return scaled(gradients, factors), scaled(norms, factors)


def unit_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """The axes over which the norm of one output unit of a weight of this `shape` runs.

    The last axis of a Keras kernel counts its outputs, so the fan-in is all other axes. A bias, a
    scalar, or any vector in disguise such as `(1, n)`, is one unit.
    """
    axes = tuple(range(len(shape)))
    return axes if sum(size != 1 for size in shape) <= 1 else axes[:-1]


def adaptive_clip(
    gradients: Sequence[Tensor],
    weights: Sequence[Tensor],
    clip_factor: Tensor,
    epsilon: float = 1e-3,
) -> list[Tensor]:
    """Adaptive gradient clipping: bounds each unit's gradient by its weights' norm.

    With G and W the gradient and weights of one output unit (Brock et al. 2021, equation 3):

        G  <-  G * bound / |G|  where |G| > bound,  bound = clip_factor * max(|W|, epsilon)
    """
    clipped = []
    for gradient, weight in zip(gradients, weights, strict=True):
        axes = unit_axes(weight.shape)
        norm = safe_norm(gradient, axis=axes, keepdims=True)
        dtype = _dtype(norm)
        size = ops.maximum(ops.cast(safe_norm(weight, axis=axes, keepdims=True), dtype), epsilon)
        bound = ops.cast(clip_factor, dtype) * size
        clipped.append(_times(gradient, shrink_factor(norm, bound)))
    return clipped


def percentile(values: Tensor, count: Tensor, percent: float) -> Tensor:
    """The percentile of the first `count` of ascending `values`, linear between ranks."""
    rank = ops.cast(count - 1, values.dtype) * (percent / 100.0)
    low = ops.floor(rank)
    below = ops.take(values, ops.cast(low, "int32"))
    above = ops.take(values, ops.cast(ops.ceil(rank), "int32"))
    return below + (above - below) * (rank - low)


def replace_sorted(values: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Ascending `values` with one element `old` replaced by `new`, ascending again.

    A shift by one place between the two positions: linear, where sorting again would not be.
    """
    place = ops.arange(values.shape[0], dtype="int32")
    out = ops.sum(ops.cast(values < old, "int32"))
    into = ops.sum(ops.cast(values < new, "int32"))
    up = into > out  # the elements between move down one place, and `new` lands below `into`
    into = ops.where(up, into - 1, into)
    down_shifted, up_shifted = ops.roll(values, -1), ops.roll(values, 1)
    moved = ops.where(up, down_shifted, up_shifted)
    between = ops.logical_and(place >= ops.minimum(out, into), place <= ops.maximum(out, into))
    return ops.where(place == into, new, ops.where(between, moved, values))


def z_clip_threshold(
    norm: Tensor, mean: Tensor, variance: Tensor, z_score: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Whether `norm` is a spike for ZClip, and the norm that a spike is scaled to.

    With z = (norm - mean) / (std + epsilon), a spike has z > z_score and is scaled to
    mean + z_score * std / (z / z_score): the further out, the closer to the mean (Kumar et al.
    2025, "adaptive scaling").
    """
    std = ops.sqrt(variance)
    z = (norm - mean) / (std + epsilon)
    spike = z > z_score
    return spike, mean + z_score * std / (ops.where(spike, z, z_score) / z_score)


def running_mean(mean: Tensor, value: Tensor, count: Tensor, decay: float) -> Tensor:
    """The bias-corrected exponential moving average of `count + 1` values, in float64.

    That is m_t / (1 - decay^t) with m_t = decay m_{t-1} + (1 - decay) x_t, as a step from the
    average before, `mean`, towards the new `value`: the first value and a constant one come out
    exactly.
    """
    mean, value = ops.cast(mean, "float64"), ops.cast(value, "float64")
    share = (1.0 - decay) / (1.0 - ops.power(decay, ops.cast(count + 1, "float64")))
    return mean + share * (value - mean)


def clip_spikes(
    gradients: Sequence[Tensor], bounds: Sequence[Tensor], largest: Sequence[Tensor]
) -> list[Tensor]:
    """Shrinks the elements of each gradient whose magnitude exceeds its bound.

    With `largest` the largest magnitude in a gradient, such an element g becomes g * bound /
    largest: all of them are scaled by the same factor (Huang et al. 2025, "AdaClip").
    """
    clipped = []
    for gradient, bound, top in zip(gradients, bounds, largest, strict=True):
        bound = ops.cast(bound, _dtype(gradient))
        factor = bound / ops.maximum(ops.cast(top, _dtype(gradient)), _TINY)
        clipped.append(ops.where(ops.abs(gradient) > bound, gradient * factor, gradient))
    return clipped


def rescale(
    gradients: Sequence[Tensor], targets: Tensor, norms: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Scales each gradient to the norm in `targets` and keeps its direction; zero stays zero.

    Returns the gradients and their new norms.
    """
    found = ops.stack(list(norms))
    # A subnormal norm is no direction, and its factor would be Inf.
    factors = ops.cast(targets, _dtype(found)) / ops.maximum(found, _TINY)
    factors = ops.unstack(ops.where(found > _TINY, factors, 1.0), len(norms))
    return scaled(gradients, factors), scaled(norms, factors)


def shrink_factor(norm: Tensor, threshold: Tensor) -> Tensor:
    """The factor that scales `norm` down to `threshold`: exactly 1 if it is not larger."""
    return ops.minimum(1.0, ops.cast(threshold, _dtype(norm)) / ops.maximum(norm, _TINY))


def scaled(tensors: Sequence[Tensor], factors: Sequence[Tensor]) -> list[Tensor]:
    """Each tensor times its factor, in the dtype of the tensor."""
    return [_times(tensor, factor) for tensor, factor in zip(tensors, factors, strict=True)]


def _sum_of_squares(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """In float64: no square of a float32 is 0 or Inf there."""
    return ops.sum(ops.square(ops.cast(x, "float64")), axis=axis, keepdims=keepdims)


def _times(tensor: Tensor, factor: Tensor) -> Tensor:
    # Multiplied in the precision of the factor: a float16 factor could be 0 or far off the bound.
    wide = ops.cast(tensor, _dtype(factor))
    return ops.cast(wide * factor, _dtype(tensor))


def _at_least_float32(x: Tensor) -> Tensor:
    x = ops.convert_to_tensor(x)
    return x if _dtype(x) in ("float32", "float64") else ops.cast(x, "float32")


def _dtype(x: Tensor) -> str:
    return backend.standardize_dtype(x.dtype)
