"""Training steps in JAX: `lax.scan` inside one jitted function."""

# An optional peer: the types are checked with it or without.
# pyright: reportMissingImports=false

import os
from collections.abc import Callable
from typing import Any

from .sizes import GATES, Size


def make(options: dict[str, str], cell: str, size: Size) -> Callable[[], object]:
    """Forward, backward, Adam.

    Args:
        options: `detach`: no gradient crosses the end of a chunk.
        cell: "SimpleRNN", "GRU" or "LSTM".
        size: The model and its batch.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    from jax import lax, numpy as jnp

    window = size.window if "detach" in options else size.timesteps
    weights, x, y = problem(cell, size)

    def layer(w, x, state, reverse):
        z = x @ w["kernel"] + w["bias"]

        def timestep(state, z):
            state = STEPS[cell](z, state, w)
            return state, state[0]

        def chunk(state, z):
            return lax.scan(timestep, lax.stop_gradient(state), z, reverse=reverse)

        chunks = z.reshape(size.timesteps // window, window, *z.shape[1:])
        state, outputs = lax.scan(chunk, state, chunks, reverse=reverse)
        return outputs.reshape(size.timesteps, size.batch, size.units), state

    def loss(weights, states, x, y):
        x = weights["embedding"][x] if size.words else x
        after = []
        for w, s in zip(weights["layers"], states, strict=True):
            ran = [layer(w[d], x, s[d], reverse=d == 1) for d in range(size.directions)]
            x = jnp.concatenate([outputs for outputs, _ in ran], axis=-1)
            after.append([state for _, state in ran])
        output = (x[-1] if size.last else x) @ weights["head"] + weights["head_bias"]
        if size.words:
            logs = jax.nn.log_softmax(output)
            return -jnp.take_along_axis(logs, y[..., None], axis=-1).mean(), after
        return ((output - y) ** 2).mean(), after

    def adam(weights, moments, states, x, y):
        (_, after), gradients = jax.value_and_grad(loss, has_aux=True)(weights, states, x, y)
        map_, (t, m, v) = jax.tree.map, moments
        t += 1
        m = map_(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
        v = map_(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)
        rate = 0.001 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weights = map_(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-8), weights, m, v)
        return weights, (t, m, v), after

    start = jnp.zeros([size.batch, size.units])
    state = (start, start) if cell == "LSTM" else (start,)
    zeros = [[state] * size.directions] * size.layers
    moments = (jnp.zeros([]), *(jax.tree.map(jnp.zeros_like, weights) for _ in range(2)))
    update = jax.jit(adam, donate_argnums=(0, 1))
    carried: Any = (weights, moments, zeros)

    def step():
        nonlocal carried
        weights, moments, after = jax.block_until_ready(update(*carried, x, y))
        carried = weights, moments, after if size.stateful else zeros

    step()
    return step


def problem(cell: str, size: Size) -> tuple[Any, ...]:
    """Weights, inputs and targets, time first."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    width, features = GATES[cell] * size.units, size.features

    def normal(*shape):
        return jax.numpy.asarray(rng.normal(size=shape, scale=shape[0] ** -0.5), "float32")

    layers = []
    for _ in range(size.layers):
        layers.append(
            [
                {
                    "kernel": normal(features, width),
                    "recurrent": normal(size.units, width),
                    "bias": jax.numpy.zeros(width),
                    "recurrent_bias": jax.numpy.zeros(width if cell == "GRU" else 0),
                }
                for _ in range(size.directions)
            ]
        )
        features = size.directions * size.units
    head = normal(features, size.outputs)
    weights = {"layers": layers, "head": head, "head_bias": jax.numpy.zeros(size.outputs)}
    shape = (size.timesteps, size.batch)
    if size.words:
        weights["embedding"] = normal(size.words, size.features)
        return weights, rng.integers(size.words, size=shape), rng.integers(size.words, size=shape)
    x = normal(*shape, size.features)
    return weights, x, normal(*(shape[1:] if size.last else shape), 1)


def simple_rnn(z, state, w):
    import jax.numpy as jnp

    return (jnp.tanh(z + state[0] @ w["recurrent"]),)


def gru(z, state, w):
    import jax
    from jax import numpy as jnp

    (h,) = state
    u, r, n = jnp.split(z, 3, axis=-1)
    hu, hr, hn = jnp.split(h @ w["recurrent"] + w["recurrent_bias"], 3, axis=-1)
    u, r = jax.nn.sigmoid(u + hu), jax.nn.sigmoid(r + hr)
    return (u * h + (1 - u) * jnp.tanh(n + r * hn),)


def lstm(z, state, w):
    import jax
    from jax import numpy as jnp

    h, c = state
    i, f, g, o = jnp.split(z + h @ w["recurrent"], 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


STEPS = {"SimpleRNN": simple_rnn, "GRU": gru, "LSTM": lstm}
