"""SnAp-1 across calls: what the weights have done to the states, carried on with them.

A call that goes on where another one ended starts from states that depend on the weights. With
their influence J = ∂s/∂θ the losses of the call have one more gradient, Σ_b J(b)ᵀ ∂L/∂s(b), and

    J at the end = D J + J of the call,    D = ∂s_end/∂s_start.

D and the J of the call are gradients of the states at the end, for each sample by itself. Units do
not mix in SnAp-1, so that one backward pass per state finds those of all units, from a gradient of
1 at each. In a cell of which the engine knows no equations all numbers of the state may mix: then
each takes a pass of its own, and the same is real-time recurrent learning.
"""

import functools
from typing import Any, NamedTuple

import tensorflow as tf

from kbptt.cells.base import Tensors, Weights
from kbptt.engine.compiled import Compiled
from kbptt.engine.settings import settings
from kbptt.engine.tensors import in_this_graph


class Reached(NamedTuple):
    """Gradients of the final states, ``(probes, batch, …)``.

    Attributes:
        x: Of the inputs after their projection, ``(probes, batch, timesteps, gates·units)``; None
            where the weights have those of the kernel and bias.
        start: Of the initial states.
        weights: Of the weights, nested as the loop has them.
    """

    x: tf.Tensor | None
    start: Tensors
    weights: Any


class Influence:
    """The influence of a loop's weights on its states, at the start of a call and at its end.

    Args:
        before: J at the start, ``(batch, size)``, as `size` counts; or None: none.
        mixing: Whether units mix.

    Attributes:
        after: J at the end, once the loop has run; else None.
    """

    def __init__(self, before: tf.Tensor, mixing: bool) -> None:
        self.before = before
        self.mixing = mixing
        self.after: tf.Tensor | None = None

    @staticmethod
    def size(parameters: int, widths: list[int], mixing: bool) -> int:
        """Numbers of J for one sample: of each parameter on each state of its unit, or on all.

        Args:
            parameters: How many the weights have.
            widths: Of the states.
            mixing: Whether units mix.
        """
        return parameters * (sum(widths) if mixing else len(widths))

    def attach(
        self, x: tf.Tensor, start: Tensors, weights: Any, masks: tf.Tensor | None = None
    ) -> Tensors:
        """The initial states as functions of the weights, which they are through earlier calls.

        Args:
            x: Inputs of the loop, ``(batch, timesteps, features)``.
            start: Initial states.
            weights: All weights.
            masks: Dropout, ``(gates, batch, features)``: factors on what each gate reads of x.
        """
        self._x, self._weights, self._masks = x, _flat(weights), masks
        widths: Any = [s.shape[1] for s in start]
        self._widths: list[int] = widths
        self._units: int = 1 if self.mixing else self._widths[0]
        self._probes = sum(self._widths) // self._units
        count, dtype = len(start), start[0].dtype
        before = tf.reshape(
            tf.stop_gradient(tf.cast(self.before, dtype)),
            [tf.shape(x)[0], self._probes, -1, self._units],
        )
        self._before = before
        shapes: Any = [w.shape for w in self._weights]

        @tf.custom_gradient
        def attached(before, *values) -> Any:
            def gradient(*upstream):
                d = tf.reshape(tf.concat(upstream, axis=1), [-1, self._probes, self._units])
                if self.mixing:
                    found = tf.einsum("bsu,bsku->ku", d, before)
                else:  # by passes over what is large, none of which is written down
                    found = tf.add_n(
                        [
                            tf.reduce_sum(before[:, s] * d[:, s, None], 0)
                            for s in range(self._probes)
                        ]
                    )
                sizes = [shape.num_elements() // self._units for shape in shapes]
                parts = tf.split(found, sizes, axis=0)
                parts = [tf.reshape(p, shape) for p, shape in zip(parts, shapes, strict=True)]
                return (None, *upstream, *parts)

            return tuple(map(tf.identity, values[:count])), gradient

        return tuple(attached(*in_this_graph((before, *start, *self._weights))))

    def probes(self, start: Tensors) -> Tensors:
        """Gradients of the final states to go back from, each ``(probes, width)``."""
        eye = tf.eye(self._probes, dtype=start[0].dtype)
        parts = tf.split(tf.repeat(eye, self._units, axis=1), self._widths, axis=1)
        # An output that is no state of the cell's is carried behind them.
        rest = start[len(self._widths) :]
        return (*parts, *(tf.zeros([self._probes, s.shape[1]], s.dtype) for s in rest))

    def advance(self, reached: Reached) -> None:
        """Sets `after`."""
        weights = reached.weights
        if reached.x is not None:
            weights = self._of_projection(reached.x, weights)
        probes, units, batch = self._probes, self._units, tf.shape(self._x)[0]
        own = [tf.reshape(w, [probes, batch, -1, units]) for w in _flat(weights)]
        start = tf.concat(reached.start[: len(self._widths)], axis=2)
        d = tf.reshape(start, [probes, batch, probes, units])
        go_on = _mixed if self.mixing else _compiled(probes, settings().jit)
        j = go_on(d, self._before, own)
        self.after = tf.stop_gradient(tf.reshape(j, tf.shape(self.before)))

    def _of_projection(self, dx: tf.Tensor, weights: Weights) -> Weights:
        """With the gradients of kernel and bias, which projected the inputs before the loop."""
        kernel = tf.einsum("btd,sbtn->sbdn", tf.cast(self._x, dx.dtype), dx)
        if self._masks is not None:
            gate = kernel.shape[3] // self._masks.shape[0]
            kernel *= tf.repeat(tf.transpose(self._masks, [1, 2, 0]), gate, axis=2)
        has_bias = len(self._weights) > len(_flat(weights)) + 1
        return weights._replace(kernel=kernel, bias=tf.reduce_sum(dx, 2) if has_bias else None)


def _mixed(d: tf.Tensor, before: tf.Tensor, own: list[tf.Tensor]) -> tf.Tensor:
    """D J of all numbers of the state, and J of the call: ``(batch, probes, parameters, 1)``."""
    own_j = tf.transpose(tf.concat(own, axis=2), [1, 0, 2, 3])
    return tf.einsum("sbtu,btku->bsku", d, before) + own_j


def _by_unit(count: int, d: tf.Tensor, before: tf.Tensor, own: list[tf.Tensor]) -> tf.Tensor:
    """The same of units that do not mix: ``(batch, states, parameters of a unit, units)``."""
    states = range(count)
    own_j = tf.concat(own, axis=2)
    passed = [tf.add_n([d[s, :, t, None] * before[:, t] for t in states]) for s in states]
    return tf.stack([own_j[s] + passed[s] for s in states], axis=1)


@functools.cache
def _compiled(states: int, jit: bool) -> Compiled:
    return Compiled(functools.partial(_by_unit, states), jit)


def _flat(weights: Any) -> list[tf.Tensor]:
    return [w for w in tf.nest.flatten(weights) if w is not None]
