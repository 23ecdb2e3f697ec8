"""Zoneout (Krueger et al., 2017): units that keep their value for a timestep, at random.

    s_t = d_t ⊙ s_{t−1} + (1 − d_t) ⊙ s̃_t,    d_t ~ Bernoulli(rate) for every sample and unit,

for each state s of a cell that would have gone to s̃_t; d_t = rate where nothing is drawn, as in
inference. Which units do is a function of a key and of where they are: the backward pass draws the
same again, and nothing is kept. The C++ loops draw the same numbers (``native/zoneout.hpp``).
"""

import tensorflow as tf

from kbptt.cells.base import Tensors
from kbptt.engine.tensors import size


def held(
    rates: tuple[float, ...], key: tf.Tensor | None, timesteps: int | tf.Tensor, state: Tensors
) -> Tensors:
    """d_t of each state, ``(timesteps, batch, units or 1)``; nothing without rates.

    Args:
        rates: For each state, the probability that a unit keeps its value. Or empty.
        key: Two uint64: the key of this call, and how many timesteps of it came before the first.
            None for the expectation.
        timesteps: How many.
        state: Any of the states, each ``(batch, units)``.
    """
    if not rates:
        return ()
    dtype, batch, units = state[0].dtype, size(state[0], 0), size(state[0], 1)
    if key is None:
        return tuple(tf.fill([timesteps, batch, 1], tf.constant(r, dtype)) for r in rates)
    words = _draw(key, timesteps, batch, len(rates), units)
    return tuple(
        tf.cast(words[:, :, i] < tf.constant(threshold(rate), tf.uint32), dtype)
        for i, rate in enumerate(rates)
    )


def threshold(rate: float) -> int:
    """A unit keeps its value if its random word is less."""
    return min(round(rate * 2**32), 2**32 - 1)


def _draw(
    key: tf.Tensor,
    timesteps: int | tf.Tensor,
    batch: int | tf.Tensor,
    states: int,
    units: int | tf.Tensor,
) -> tf.Tensor:
    """Random words, uint32 ``(timesteps, batch, states, units)``, by Philox4x32-10 (Salmon, 2011).

    Its four words for each count belong to units a quarter of a row apart. Timesteps come first, so
    that the numbers do not depend on how many there are.
    """
    quarter = (units + 3) // 4
    per_timestep = tf.cast(batch, tf.uint64) * tf.cast(states * quarter, tf.uint64)
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[timesteps, batch, states, quarter, 4],
        key=key[:1],
        counter=tf.stack([key[1] * per_timestep, tf.zeros([], tf.uint64)]),
        alg=1,  # Philox
        dtype=tf.uint32,
    )
    words = tf.transpose(words, [0, 1, 2, 4, 3])
    return tf.reshape(words, [timesteps, batch, states, 4 * quarter])[:, :, :, :units]


def hold(held: Tensors, before: Tensors, candidates: Tensors) -> Tensors:
    """The states after a step, from those before it and those that the cell would go to."""
    if not held:
        return candidates
    return tuple(
        d * previous + (1 - d) * s for d, previous, s in zip(held, before, candidates, strict=True)
    )
