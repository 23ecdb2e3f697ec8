"""Burn-in: the first timesteps of a sequence only warm up the state, without a gradient.

Reference: [Kapturowski et al., 2019](https://openreview.net/forum?id=r1lyTjAqYX) (R2D2).
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import tree

from kbptt.engine import Resets


def after_burn_in(
    layer: Any, burn_in: int, sequences: Any, state: Any, mask: Any, training: bool, resets: Any
) -> tuple[Any, Any, Any]:
    """What `layer.inner_loop` returns, run as two loops, the first of which keeps no gradient."""
    first, rest = (
        (x, m, r)
        for x, m, r in zip(
            divide(sequences, burn_in, layer.go_backwards),
            divide(mask, burn_in, layer.go_backwards),
            _divide_resets(resets, burn_in, layer.go_backwards),
            strict=True,
        )
    )
    x, early, restart = first
    last, before, warm = layer.inner_loop(x, state, early, training, restart)
    last, before = tf.stop_gradient(last), tf.stop_gradient(before)
    warm = _mapped(tf.stop_gradient, warm)
    if early is not None:
        # A sample that has not begun holds its initial state, which may be learned.
        begun = tf.reduce_any(tf.cast(early, tf.bool), axis=1, keepdims=True)
        warm = _mapped(
            lambda w, s: tf.where(begun, w, tf.cast(s, w.dtype)), warm, _like(warm, state)
        )
    x, late, restart = rest
    warm = list(warm) if tree.is_nested(warm) else [warm]
    with layer.overriding(burnt=burn_in):
        final_last, after, final = layer.inner_loop(x, warm, late, training, restart)
    if late is not None and not layer.zero_output_for_mask:
        # Masked steps repeat the output before them, which may lie in the burn-in.
        started = tf.cast(late, tf.bool)
        started = started[:, ::-1] if layer.go_backwards else started
        started = tf.cumsum(tf.cast(started, tf.int32), axis=1) > 0
        final_last = tf.where(started[:, -1:], final_last, last)
        after = _repeat(started, after, last) if layer.return_sequences else after
    outputs = tf.concat([before, after], axis=1) if layer.return_sequences else after
    return final_last, outputs, final


def divide(value: Any, timesteps: int, backwards: bool) -> tuple[Any, Any]:
    """The timesteps of ``(batch, timesteps, …)`` that are processed first, and the rest."""
    if value is None:
        return None, None
    if isinstance(value, (list, tuple)):  # masks of several inputs, of which the first counts
        value = value[0]
    if backwards:
        return value[:, -timesteps:], value[:, :-timesteps]
    return value[:, :timesteps], value[:, timesteps:]


def _divide_resets(resets: Resets | None, timesteps: int, backwards: bool) -> tuple[Any, Any]:
    if resets is None:
        return None, None
    first, rest = divide(resets.at, timesteps, backwards)
    return resets._replace(at=first), resets._replace(at=rest)


def _mapped(function: Callable[..., Any], *structures: Any) -> Any:
    return tree.map_structure(function, *structures)


def _like(structure: Any, state: Any) -> Any:
    return tree.pack_sequence_as(structure, tree.flatten(state))


def _repeat(started: tf.Tensor, outputs: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    return tf.where(started[:, :, None], outputs, last[:, None])
