"""Gradients by lag of a model on data: how far its losses reach back, and which window suffices."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kbptt import _checks
from kbptt._typing import Arrays
from kbptt.analysis import adaptive
from kbptt.analysis.unchanged import unchanged
from kbptt.layers import find
from kbptt.truncation.policies import TruncationLike

# Lags measured by default. The cost grows with lags × timesteps.
MAX_LAGS = 512


@dataclass(frozen=True, eq=False)
class LagProfile:
    """Gradients by lag of one layer.

    Attributes:
        layer: The layer's name.
        norms: φ, `(lags,)`: the mean over samples and losses of ‖∂L_s/∂h_{s−k}‖.
        truncated: ‖ĝ_K‖ for K = 1 … lags, `(lags,)`: the norm of the mean of Σ_{k<K} ∂L_s/∂h_{s−k}
            over samples and losses. This is the gradient, truncated at K, with respect to a shift
            added to all states.
        timesteps: Integer or None: where the sums over lags end. None for a stateful layer, whose
            sequence continues in the next batch.
    """

    layer: str
    norms: np.ndarray
    truncated: np.ndarray
    timesteps: int | None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.norms, dtype)

    def __len__(self) -> int:
        return self.norms.size

    def estimate(self, tolerance: float = 0.1, **arguments: Any) -> adaptive.WindowEstimate:
        """`kbptt.analysis.adaptive.estimate_window` of this profile."""
        arguments.setdefault("timesteps", self.timesteps)
        return adaptive.estimate_window(self.norms, self.truncated, tolerance, **arguments)


class SuggestedLength(int):
    """A window length that can be passed as ``truncation=``, and how it was found.

    Attributes:
        beta: Float. Factor per lag by which the gradients fall.
        relative_bias: Float. Estimated bound of the relative bias of the gradient, or infinity.
        tolerance: Float. The requested tolerance.
        within_tolerance: Boolean. Whether the bias is below the tolerance; if not, the length is
            the largest that was allowed or measured.
        profile: The `LagProfile` of the layer that needs this length.
    """

    beta: float
    relative_bias: float
    tolerance: float
    within_tolerance: bool
    profile: LagProfile

    def __new__(
        cls, estimate: adaptive.WindowEstimate, tolerance: float, profile: LagProfile
    ) -> "SuggestedLength":
        self = super().__new__(cls, estimate.length)
        self.beta = estimate.beta
        self.relative_bias = estimate.relative_bias
        self.tolerance = tolerance
        self.within_tolerance = estimate.relative_bias < tolerance
        self.profile = profile
        return self

    def __repr__(self) -> str:
        return (
            f"<SuggestedLength {int(self)}: layer={self.profile.layer!r}, beta={self.beta:.4g}, "
            f"relative_bias={self.relative_bias:.3g}, tolerance={self.tolerance:g}>"
        )

    __str__: Callable[[Any], str] = int.__repr__


def lag_profile(
    model: keras.Model,
    x: Arrays,
    y: Arrays,
    maximum: int | None = None,
    layer: keras.layers.RNN | str | None = None,
    sample_weight: Arrays | None = None,
    batch_size: int = 32,
) -> LagProfile:
    """φ_k: the mean norm of ∂L_s/∂h_{s−k}, how strongly a loss reaches the state k steps earlier.

    One backward pass measures all losses s and all lags k, whatever the layer's truncation is. The
    mean is over samples and over the timesteps s at which a loss enters the layer and s−k ≥ 0. The
    model is unchanged: weights, states, truncation, recorded norms.

    L_s is the loss that enters the layer's output at step s: for the topmost recurrent layer the
    loss at that step, below a recurrent layer all losses that step s reaches through that layer.
    Dropout is off. Pass sequences without padding: masked timesteps count as lags.

    Args:
        model: A compiled `keras.Model`.
        x, y, sample_weight: As for `model.fit`, arrays of `(samples, timesteps, …)`.
        maximum: Integer of at least 2. Number of lags; at most the number of timesteps. The work
            grows with `maximum` × timesteps. Defaults to the number of timesteps up to 512.
        layer: The recurrent kbptt layer or its name. Defaults to the model's only one.
        batch_size: Integer. Samples measured at a time. Defaults to `32`.

    Returns:
        A `LagProfile`; `np.asarray` of it is φ, `(lags,)`.

    Raises:
        ValueError: If the model has no such layer or no loss reaches it.
    """
    layers = find.truncated_layers(model)
    if layer is None and len(layers) > 1:
        names = ", ".join(repr(one.name) for one in layers)
        raise ValueError(f"The model has several recurrent layers. Pass `layer`, one of {names}.")
    layers = find.choose_layers(model, layer)
    return lag_profiles(model, x, y, maximum, layers, sample_weight, batch_size)[0]


def lag_profiles(
    model: keras.Model,
    x: Arrays,
    y: Arrays,
    maximum: int | None = None,
    layers: list[Any] | None = None,
    sample_weight: Arrays | None = None,
    batch_size: int = 32,
) -> list[LagProfile]:
    """`lag_profile` of several layers (all, by default) at the cost of one."""
    layers = find.truncated_layers(model) if layers is None else layers
    maximum = MAX_LAGS if maximum is None else _checks.positive_integer("maximum", maximum)
    if maximum < 2:
        raise ValueError(
            "Invalid value for argument `maximum`. Expected at least 2 lags. "
            f"Received: maximum={maximum}."
        )
    sums = [_Sums(maximum) for _ in layers]
    recorded = {id(one): [] for one in find.truncated_layers(model)}
    with unchanged(model), contextlib.ExitStack() as stack:
        # All of them: chunks of an upper layer would cut the gradient that enters the lower one.
        for one in find.truncated_layers(model):
            stack.enter_context(one.recording_lags(maximum, recorded[id(one)].append))
        for samples, batch in _batches(x, y, sample_weight, batch_size):
            scale, _ = _gradients(model, *batch)
            for one, total in zip(layers, sums, strict=True):
                if not recorded[id(one)]:
                    raise ValueError(
                        f"No gradient reaches layer '{one.name}': the loss does not depend on it, "
                        "or its weights and those of the layers before it are frozen."
                    )
                for monitor in recorded[id(one)]:
                    total.add(monitor, samples, scale)
            for monitors in recorded.values():
                monitors.clear()
    return [
        LagProfile(one.name, *total.means(), None if one.stateful else total.timesteps)
        for one, total in zip(layers, sums, strict=True)
    ]


def suggest_truncation(
    model: keras.Model,
    x: Arrays,
    y: Arrays,
    tolerance: float = 0.1,
    minimum: int = 1,
    maximum: int | None = None,
    layer: keras.layers.RNN | str | None = None,
    tau: int | None = None,
    method: str = "least_squares",
    sample_weight: Arrays | None = None,
    batch_size: int = 32,
) -> SuggestedLength:
    """Estimates the window length that `model` needs: ``truncation=`` for its layers.

    The bias of the truncated gradient is bounded from the gradients by lag (see `lag_profile`),
    assuming that from lag `tau` on they fall geometrically. The estimate holds for the current
    weights: an untrained network hardly uses its past.

    Args:
        model: A compiled `keras.Model`.
        x, y, sample_weight: As for `model.fit`; a few hundred unpadded sequences suffice.
        tolerance: Number above 0. Tolerated bias, relative to the gradient. Defaults to `0.1`.
        minimum: Positive integer. Shortest length to return. Defaults to `1`.
        maximum: Integer of at least 2. Longest length to return, and number of lags measured.
            Defaults to the number of timesteps up to 512.
        layer: A recurrent kbptt layer or its name. Defaults to all; the longest window counts,
            since chunks cut every layer of a stack at the same places.
        tau: Integer. Lag from which the gradients fall geometrically. Defaults to 0.8 × lags.
        method: How β is estimated; see `kbptt.analysis.adaptive.decay`.
        batch_size: Integer. Samples measured at a time. Defaults to `32`.

    Returns:
        A `SuggestedLength`, an integer with `beta`, `relative_bias`, `within_tolerance`.

    Raises:
        ValueError: If an argument is out of its range, the model has no such layer, or the
            gradients are not finite or all zero.
    """
    minimum, maximum = adaptive.check_bounds(minimum, maximum)
    layers = find.choose_layers(model, layer)
    suggestions = [
        SuggestedLength(
            profile.estimate(tolerance, minimum=minimum, tau=tau, method=method),
            tolerance,
            profile,
        )
        for profile in lag_profiles(model, x, y, maximum, layers, sample_weight, batch_size)
    ]
    return max(suggestions, key=int)


def truncation_bias(
    model: keras.Model,
    x: Arrays,
    y: Arrays,
    truncation: TruncationLike,
    sample_weight: Arrays | None = None,
    batch_size: int = 32,
) -> float:
    """‖ĝ − g‖/‖g‖: relative difference between the gradient of all weights and that of full BPTT.

    Measured, not estimated, at the cost of two backward passes. Dropout is off.

    Args:
        model: A compiled `keras.Model`.
        x, y, sample_weight: As for `model.fit`.
        truncation: Of all recurrent kbptt layers of the model; see `kbptt.LSTM`.
        batch_size: Integer. Samples measured at a time. Defaults to `32`.
    """
    whole, truncated = (
        _mean_gradient(model, x, y, one, sample_weight, batch_size) for one in (None, truncation)
    )
    norm = np.linalg.norm(whole)
    return float(np.linalg.norm(truncated - whole) / norm) if norm else 0.0


class _Sums:
    """Sums the measurements of one layer over the backward passes of several batches."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.norms: Any = 0.0
        self.vectors: Any = 0.0
        self.samples = 0
        self.timesteps = 0

    def add(self, monitor: Any, samples: int, scale: float) -> None:
        norms, vectors = monitor.norms.numpy(), monitor.lag_sums.numpy().astype("float64")
        if self.timesteps not in (0, norms.size):
            raise ValueError(
                "One layer is called on sequences of different lengths "
                f"({self.timesteps} and {norms.size}), so its gradients by lag have no common mean."
            )
        self.timesteps = norms.size
        lags = min(self.maximum, self.timesteps)
        if monitor.lags is None:  # one loss, at the last step
            by_lag = norms[::-1][:lags, None]
        else:
            by_lag = monitor.lags.numpy()[:lags]
        # A batch's values are means over its samples.
        self.norms = self.norms + samples / scale * by_lag.astype("float64")
        self.vectors = self.vectors + samples / scale * vectors[:lags]
        self.samples += samples

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """φ and ‖ĝ_K‖."""
        lags, losses = self.norms.shape
        at = np.arange(self.timesteps - losses, self.timesteps)
        # Losses that enter the layer (NaN included) and whose lag is within the sequence.
        counts = (self.norms[0] != 0) & (at >= np.arange(lags)[:, None])
        count = self.samples * np.maximum(counts.sum(axis=1), 1)
        truncated = np.cumsum(self.vectors / count[:, None], axis=0)
        return self.norms.sum(axis=1) / count, np.linalg.norm(truncated, axis=1)


def _batches(x: Any, y: Any, sample_weight: Any, batch_size: int) -> Iterator[tuple[int, tuple]]:
    """(number of samples, (x, y, sample_weight)) of each batch."""
    batch_size = _checks.positive_integer("batch_size", batch_size)
    data = keras.tree.map_structure(
        lambda a: None if a is None else np.asarray(a), (x, y, sample_weight)
    )
    sizes = {len(a) for a in keras.tree.flatten(data) if a is not None and a.ndim}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(
            "`x`, `y` and `sample_weight` must have equally many samples, at least one. Received "
            f"{sorted(sizes)}."
        )
    (size,) = sizes
    for start in range(0, size, batch_size):
        stop = min(start + batch_size, size)
        batch = keras.tree.map_structure(
            lambda a, part=slice(start, stop): None if a is None else a[part], data
        )
        yield stop - start, batch


def _gradients(model: keras.Model, x: Any, y: Any, sample_weight: Any) -> tuple[float, list]:
    """Scale and gradients of the scaled loss of one batch with respect to all weights."""
    if not model.compiled:
        raise ValueError(f"Model {model.name!r} must be compiled with a loss.")
    optimizer = model.optimizer
    with tf.GradientTape() as tape:
        predictions = model(x, training=False)
        loss = model.compute_loss(x, y, predictions, sample_weight, training=False)
        # Without loss scaling, small gradients underflow in half precision.
        scaled = loss if optimizer is None else optimizer.scale_loss(loss)
    scale = 1.0 if optimizer is None else float(optimizer.scale_loss(keras.ops.ones(())))
    weights = [v.value for v in model.trainable_variables]
    return scale, tape.gradient(scaled, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _mean_gradient(model, x, y, truncation, sample_weight, batch_size) -> np.ndarray:
    """The gradient of all weights, one vector in float64, under a truncation of all layers."""
    total: Any = 0.0
    size = 0
    layers = find.choose_layers(model)
    with contextlib.ExitStack() as stack:
        for one in layers:
            options = {"truncation": truncation, "record_gradient_norms": False}
            stack.enter_context(one.temporarily(**options))
            stack.enter_context(one.overriding(detachment=None))
        stack.enter_context(unchanged(model))
        for samples, batch in _batches(x, y, sample_weight, batch_size):
            scale, gradients = _gradients(model, *batch)
            flat = [np.ravel(tf.convert_to_tensor(g).numpy()) for g in gradients]
            total = total + np.concatenate(flat).astype("float64") * (samples / scale)
            size += samples
    return total / size
