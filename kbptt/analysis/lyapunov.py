"""Lyapunov exponents of a recurrent layer along real sequences, by QR decomposition."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kbptt import _checks, _keras
from kbptt.layers import find
from kbptt.layers.parametrized import holding


def lyapunov_exponents(
    model_or_layer: keras.Layer, x: Any, count: int = 1, burn_in: int = 0, seed: int = 0
) -> np.ndarray:
    """Growth rates per timestep of products of the Jacobians J_t = ∂s_t/∂s_{t−1}.

    BPTT carries a gradient backward as J_tᵀ … J_Tᵀ g, which in the long run changes by e^λ per
    timestep, where λ is the largest exponent (λ < 0: vanishes, λ > 0: explodes). The other
    exponents describe the orthogonal directions. For a linear RNN they are log |λ_i| of the
    recurrent matrix.

    s_t is the whole state of the layer: (h, c) for an LSTM. The sequences run forward once from the
    zero state, without dropout and mask; then `count` orthonormal vectors per sequence run backward
    through the vector-Jacobian products of the cell, with a QR decomposition at every step, whose
    diagonal is the growth.

    Args:
        model_or_layer: A built recurrent layer, or a functional or Sequential model that has
            exactly one at its top level.
        x: Array `(batch, timesteps, features)` without padding: the layer's input, or the model's.
            The more timesteps, the closer to the limit.
        count: Integer of at least 1, at most the size of the state: exponents to compute.
            Defaults to `1`.
        burn_in: Integer of at least 0: the last timesteps, which only align the vectors with the
            growing directions and are not counted. Defaults to `0`.
        seed: Integer, for the initial vectors. Defaults to `0`.

    Returns:
        Array `(count,)`, float64, largest first: the mean over the sequences.

    Example:

    >>> lyapunov_exponents(keras.layers.LSTM(16), np.random.normal(size=(4, 200, 3)), count=2)

    Reference:

    - [Benettin et al., 1980](https://doi.org/10.1007/BF02128237);
      [Vogt et al., 2022](https://arxiv.org/abs/2006.14123) for recurrent networks.
    """
    layer, x = _layer_and_inputs(model_or_layer, x)
    x = keras.ops.convert_to_tensor(x, dtype=layer.compute_dtype)
    if len(x.shape) != 3 or 0 in x.shape:
        raise ValueError(
            "Argument `x` must be (batch, timesteps, features), none of them 0. Received: shape "
            f"{tuple(x.shape)}."
        )
    if not layer.built:
        layer.build(x.shape)
    batch, timesteps = x.shape[:2]
    if isinstance(burn_in, bool) or not isinstance(burn_in, int) or not 0 <= burn_in < timesteps:
        raise ValueError(
            "Argument `burn_in` must be an integer from 0 to below the number of timesteps, "
            f"{timesteps}. Received: burn_in={burn_in!r}."
        )
    if layer.go_backwards:
        x = keras.ops.flip(x, axis=1)
    steps = [x[:, t] for t in range(timesteps)]

    count = _checks.positive_integer("count", count)
    size = sum(part.shape[-1] for part in initial_state(layer, batch))
    if count > size:
        raise ValueError(
            f"Argument `count` must be at most the size of the state, {size}. "
            f"Received: count={count}."
        )
    vectors = np.random.default_rng(seed).normal(size=(batch, size, count))
    with holding(layer.cell):
        growth = _growth(layer, steps, vectors)[: timesteps - burn_in]
    return growth.mean(axis=(0, 1))


def inputs_of(model: keras.Model, layer: keras.Layer, x: Any) -> Any:
    """The sequences that `layer` receives in a functional or Sequential `model` called with `x`.

    If it is called several times, those of the first call.
    """
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    sequences, *_ = _keras.first_inputs(layer)  # then a mask and initial states
    return keras.Model(inputs, sequences)(x, training=False)


def _growth(layer: keras.layers.RNN, steps: list, vectors: np.ndarray) -> np.ndarray:
    """Logarithms of the growth `(timesteps, batch, count)` of vectors pulled back through time."""
    batch, _, count = vectors.shape
    states = [initial_state(layer, batch)]
    forward = tf.function(lambda x_t, state: advance(layer, x_t, state))
    for x_t in steps[:-1]:
        states.append(forward(x_t, states[-1]))

    backward = tf.function(lambda x_t, state, rows: _pull_back(layer, x_t, state, rows))
    vectors, _ = np.linalg.qr(vectors)
    growth = np.zeros((len(steps), batch, count))
    for t in reversed(range(len(steps))):
        # One row per sequence and vector: (batch * count, size of the state).
        rows = np.swapaxes(vectors, 1, 2).reshape(batch * count, -1).astype(steps[t].dtype.name)
        rows = backward(_repeat(steps[t], count), [_repeat(s, count) for s in states[t]], rows)
        pulled = rows.numpy().astype("float64").reshape(batch, count, -1)
        vectors, r = np.linalg.qr(np.swapaxes(pulled, 1, 2))
        # A direction that is cut exactly (a ReLU at 0) has no logarithm.
        diagonal = np.abs(np.diagonal(r, axis1=1, axis2=2))
        growth[t] = np.log(np.maximum(diagonal, np.finfo("float64").tiny))
    return growth


def initial_state(layer: keras.layers.RNN, batch: int) -> list[Any]:
    """The states at the beginning of a sequence, a flat list of tensors `(batch, width)`."""
    return keras.tree.flatten(layer.get_initial_state(batch))


def advance(layer: keras.layers.RNN, x_t: Any, state: list[Any]) -> list[Any]:
    """One step of the layer: s_t from s_{t−1}, flat lists of tensors."""
    if hasattr(layer, "advance"):  # kbptt's: a layer with normalization is more than its cell
        return layer.advance(x_t, state)
    _, new = layer.cell(x_t, _nest(layer, state), training=False)
    return keras.tree.flatten(new)


def _nest(layer: keras.layers.RNN, state: list[Any]) -> list[Any]:
    structure = layer.cell.state_size
    if keras.tree.is_nested(structure):
        return keras.tree.pack_sequence_as(structure, state)
    return state


def _pull_back(layer: keras.layers.RNN, x_t: Any, state: list[Any], rows: Any) -> Any:
    """J_tᵀ v for each row v."""
    with tf.GradientTape() as tape:
        tape.watch(state)
        new = advance(layer, x_t, state)
    parts = tf.split(rows, [part.shape[-1] for part in new], axis=-1)
    pulled = tape.gradient(new, state, parts, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.concat(pulled, axis=-1)


def _repeat(tensor: Any, count: int) -> Any:
    return keras.ops.repeat(tensor, count, axis=0)


def _layer_and_inputs(model_or_layer: keras.Layer, x: Any) -> tuple[keras.layers.RNN, Any]:
    if isinstance(model_or_layer, keras.layers.RNN):
        return model_or_layer, x
    if isinstance(model_or_layer, keras.Model):
        found = find.top_level_layers(model_or_layer)
        if len(found) == 1:
            return found[0], inputs_of(model_or_layer, found[0], x)
        names = [layer.name for layer in find.recurrent_layers(model_or_layer)]
        raise ValueError(
            "Expected a model with exactly one recurrent layer at its top level. Received one "
            f"with {names}: pass one of these layers, and its input as `x`."
        )
    raise ValueError(
        "Expected a recurrent layer (keras.layers.RNN, LSTM, …, or kbptt's) or a model. "
        f"Received: {model_or_layer!r}."
    )
