"""Truncated BPTT the slow and obvious way: every loss window is differentiated on its own.

Nothing here comes from kbptt. The cells are written out in a few lines, time is a Python loop, a
window is one tape over its own timesteps with the state at its start taken as a constant, and the
gradients of all windows are added up. Everything is float64 and batch-major, as in a layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf


def simple_rnn(x, state, weights, activation=tf.tanh):
    kernel, recurrent, *bias = weights
    z = x @ kernel + state[0] @ recurrent
    return (activation(z + bias[0] if bias else z),)


def lstm(x, state, weights, activation=tf.tanh, recurrent_activation=tf.sigmoid):
    kernel, recurrent, *bias = weights
    z = x @ kernel + state[0] @ recurrent
    i, f, g, o = tf.split(z + bias[0] if bias else z, 4, axis=-1)
    i, f, o = map(recurrent_activation, (i, f, o))
    c = f * state[1] + i * activation(g)
    return o * activation(c), c


def gru(x, state, weights, activation=tf.tanh, recurrent_activation=tf.sigmoid):
    """`reset_after=True`."""
    kernel, recurrent, *bias = weights
    inputs, product = x @ kernel, state[0] @ recurrent
    if bias:
        inputs, product = inputs + bias[0][0], product + bias[0][1]
    xz, xr, xn = tf.split(inputs, 3, axis=-1)
    hz, hr, hn = tf.split(product, 3, axis=-1)
    z = recurrent_activation(xz + hz)
    n = activation(xn + recurrent_activation(xr + hr) * hn)
    return (z * state[-1] + (1 - z) * n,)  # the same h, but where h-detach tells them apart


CELLS = {"SimpleRNN": simple_rnn, "GRU": gru, "LSTM": lstm}
STATES = {"SimpleRNN": 1, "GRU": 1, "LSTM": 2}


@dataclass(frozen=True)
class Window:
    """The losses of timesteps `first` … `end` − 1, which flow back to timestep `start`."""

    start: int
    first: int
    end: int


def windows(timesteps, length=None, stride=None, align="end") -> list[Window]:
    """TBPTT(k1 = stride, k2 = length), straight from its definition."""
    if length is None:
        return [Window(0, 0, timesteps)]
    stride = length if stride is None else stride
    if align == "end":
        ends = range(timesteps, 0, -stride)
    else:
        ends = range(stride, timesteps + stride, stride)
    # A last window that the sequence leaves unfinished ends, as planned, after the sequence.
    return [Window(max(0, e - length), max(0, e - stride), min(e, timesteps)) for e in ends]


@dataclass
class Problem:
    """One recurrent layer, its inputs, and a loss Σ_t e_t·y_t + Σ d·(final state).

    Args:
        cell: ``(x, state, weights) -> state``; the first state is the output.
        x: ``(batch, timesteps, features)``.
        state: Initial states ``(batch, units)``.
        weights: Arrays that the cell reads.
        e: ``(batch, timesteps, units)``, the gradient of the loss with respect to the outputs.
        d: The gradient with respect to the final states.
        mask: Boolean ``(batch, timesteps)`` or None.
        resets: Boolean ``(batch, timesteps)`` or None.
        restart: Where resets go back to; None for the initial states.
        xi: ``(timesteps, batch or 1)`` or None, the factors of the carried gradient.
        clip: Bound on the elements of the carried gradient, or None.
        clip_norm: Bound on the norm of each sample's carried gradient, all states together.
        held: For each state what zoneout holds, ``(timesteps, batch, units or 1)``.
        through: ``(timesteps, batch or 1)`` or None, factors on the gradient through h·U alone.
        zero_output_for_mask: As in `keras.layers.RNN`.
    """

    cell: Callable
    x: np.ndarray
    state: Sequence[np.ndarray]
    weights: Sequence[np.ndarray]
    e: np.ndarray
    d: Sequence[np.ndarray]
    mask: np.ndarray | None = None
    resets: np.ndarray | None = None
    restart: Sequence[np.ndarray] | None = None
    xi: np.ndarray | None = None
    clip: float | None = None
    clip_norm: float | None = None
    held: Sequence[np.ndarray] = ()
    through: np.ndarray | None = None
    zero_output_for_mask: bool = False


@dataclass
class Gradients:
    x: np.ndarray
    state: list[np.ndarray]
    weights: list[np.ndarray]
    h: np.ndarray  # ∂L/∂h_t (batch, timesteps, units)
    outputs: np.ndarray = field(repr=False)
    final: list[np.ndarray] = field(repr=False)

    @property
    def norms(self) -> np.ndarray:
        return np.linalg.norm(self.h, axis=-1).sum(axis=0)


def gradients(problem: Problem, windows: list[Window]) -> Gradients:
    """The truncated gradient of `problem`, one tape per window."""
    p = problem
    to_tensor = tf.convert_to_tensor
    x, weights = to_tensor(p.x), [to_tensor(w) for w in p.weights]
    start = tuple(map(to_tensor, p.state))
    timesteps = p.x.shape[1]
    history, outputs = _forward(p, x, start, weights)

    total = None
    for window in windows:
        taps = [tf.zeros_like(start[0]) for _ in range(timesteps)]
        sources = [x, *start, *weights, *taps]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            state = start if window.start == 0 else history[window.start - 1]
            loss = tf.constant(0.0, tf.float64)
            for t in range(window.start, window.end):
                state = _step(p, x[:, t], state, start, weights, t)
                state = (state[0] + taps[t], *state[1:])
                if t >= window.first:
                    loss += tf.reduce_sum(_shown(p, state[0], t) * p.e[:, t])
            if window.end == timesteps:
                for s, d in zip(state, p.d, strict=True):
                    loss += tf.reduce_sum(s * d)
        parts = tape.gradient(loss, sources, unconnected_gradients="zero")
        parts = [v.numpy() for v in parts]
        total = parts if total is None else [a + b for a, b in zip(total, parts, strict=True)]
    n = len(start)
    return Gradients(
        x=total[0],
        state=total[1 : 1 + n],
        weights=total[1 + n : 1 + n + len(weights)],
        h=np.stack(total[1 + n + len(weights) :], axis=1),
        outputs=outputs,
        final=[s.numpy() for s in history[-1]],
    )


def _forward(p, x, start, weights):
    state, history, outputs = start, [], []
    for t in range(p.x.shape[1]):
        state = _step(p, x[:, t], state, start, weights, t)
        history.append(state)
        outputs.append(_shown(p, state[0], t).numpy())
    return history, np.stack(outputs, axis=1)


def _step(p, x, state, start, weights, t):
    xi = 1.0 if p.xi is None or t == 0 else np.asarray(p.xi, "float64")[t][:, None]
    previous = _gate(state, xi, p.clip, p.clip_norm)
    if p.resets is not None:
        reset = p.resets[:, t, None]
        fresh = start if p.restart is None else p.restart
        previous = tuple(tf.where(reset, a, b) for a, b in zip(fresh, previous, strict=True))
    if p.mask is not None:
        x = tf.where(p.mask[:, t, None], x, tf.zeros_like(x))
    read = previous
    if p.through is not None:
        factor = np.asarray(p.through, "float64")[t][:, None]
        (h,) = _gate(previous[:1], factor, None, None)
        read = (h, *(previous[1:] or previous))
    new = p.cell(x, read, weights)
    if p.held:
        kept = zip(p.held, previous, new, strict=True)
        new = tuple(d[t] * s + (1 - d[t]) * n for d, s, n in kept)
    if p.mask is not None:
        kept = p.mask[:, t, None]
        new = tuple(tf.where(kept, a, b) for a, b in zip(new, previous, strict=True))
    return new


def _gate(state, xi, clip, clip_norm):
    """The identity; what comes back is multiplied by ξ and clipped."""

    @tf.custom_gradient
    def identity(*state):
        def gradient(*upstream):
            carried = [d * xi for d in upstream]
            if clip is not None:
                carried = [tf.clip_by_value(d, -clip, clip) for d in carried]
            if clip_norm is not None:
                norm = tf.norm(tf.concat(carried, axis=1), axis=1, keepdims=True)
                carried = [d * tf.minimum(1.0, clip_norm / norm) for d in carried]
            return carried

        return tuple(map(tf.identity, state)), gradient

    return identity(*state)


def _shown(p, h, t):
    """The output that Keras shows at t: zeros where nothing has been read yet."""
    if p.mask is None:
        return h
    seen = p.mask[:, t] if p.zero_output_for_mask else p.mask[:, : t + 1].any(axis=1)
    return tf.where(seen[:, None], h, tf.zeros_like(h))


def central_difference(f, array, step=1e-5):
    """∂f/∂array by central differences, one element at a time; `array` is changed and restored."""
    gradient = np.zeros_like(array)
    for i in np.ndindex(array.shape):
        saved = array[i]
        array[i] = saved + step
        above = f()
        array[i] = saved - step
        below = f()
        array[i] = saved
        gradient[i] = (above - below) / (2 * step)
    return gradient
