"""Backpropagation through time in TensorFlow, for any cell.

BPTT is one linear recurrence over the states (guide 2.4)

    ∂L/∂h_{t-1} = J_tᵀ ∂L/∂h_t + e_{t-1}        e_t: what the loss sends to output t directly

and every weight gradient is one sum over t of products with the cached ∂L/∂h_t (guide 2.5). So the
loop is not left to automatic differentiation:

1. `forward` runs T steps and keeps the residuals of each; no tape.
2. `backward` runs the recurrence. Gradients do not cross the end of a window, so all windows run
   at the same time, stacked into the batch: `length` sequential steps over more rows instead of T
   steps (see `kbptt.engine.recurrence`).
3. The gradients of the weights and inputs are one matrix product each over all timesteps.
4. The norms of ∂L/∂h_t at every timestep fall out of 2.

Everything here is time-major: ``(timesteps, batch, width)``.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from kbptt.cells.base import Step, Tensors
from kbptt.engine.blocks import divide
from kbptt.engine.compiled import Compiled
from kbptt.engine.gradient import Context, Loop, Monitor, Observation, Options
from kbptt.engine.influence import Reached
from kbptt.engine.recurrence import Given, Recurrence
from kbptt.engine.settings import settings
from kbptt.engine.tensors import select, size, write
from kbptt.engine.zoneout import held, hold


class Trace(NamedTuple):
    """What the forward pass leaves for the backward pass.

    Attributes:
        residuals: Of the step, each ``(timesteps, batch, width)``.
        trajectory: The states from the initial one on, ``(timesteps + 1, batch, width)``: all but
            the first are the states, all but the last the previous states, and neither is a copy.
        candidates: The states before zoneout, ``(timesteps, batch, width)``; empty without it.
    """

    residuals: Tensors
    trajectory: Tensors
    candidates: Tensors


class TensorFlowLoop(Loop):
    """A recurrent loop with its own truncated gradient, compiled by XLA.

    Args:
        step: The `kbptt.cells.Step`.
        options: The `Options`.
    """

    time_major = True

    def __init__(self, step: Step, options: Options) -> None:
        super().__init__(options)
        self.step = step
        self.output = step.output
        self.jit = settings().jit
        self.compiled_forward = Compiled(self._forward, self.jit)
        self.compiled_backward = Compiled(self._backward, self.jit)
        self.compiled_reach = Compiled(self._reach, self.jit)
        self.compiled_by_row = Compiled(self._by_row, False)

    def _read(self, weights: Any, context: Context) -> Any:
        """What the step reads: the weights, and what is dropped out."""
        masks = context.dropout.h_masks
        return weights if masks is None else weights._replace(h_masks=masks)

    def forward(self, x, start, weights, context):
        weights = self._read(weights, context)
        final, trace = self.compiled_forward(
            x, start, weights, context.mask, context.resets, context.zoneout_key
        )
        return trace.trajectory[self.output][1:], final, trace

    def observe(self, x, start, weights, context):
        outputs, final, trace = self.forward(x, start, weights, context)
        states = tuple(h[1:] for h in trace.trajectory)
        return Observation(outputs, tuple(final), states, self.step.named_gates(trace.residuals))

    def _forward(self, x, start, weights, mask, resets, key) -> tuple[Tensors, Trace]:
        """Runs the recurrence; returns the final states and the trace."""
        step, jit = self.step, self.jit
        timesteps = size(x, 0)
        candidates, example = step.forward(x[0], start, weights)
        kept = len(example)
        holds = held(self.options.zoneout, key, timesteps, tuple(start))
        # Without masks, resets and zoneout some states can be recomputed from others, so only
        # `step.written` is stored.
        everything = mask is not None or resets is not None or bool(holds)
        written = range(len(start)) if everything else step.written

        if holds:
            example = (*example, *candidates)

        def body(t, state, residuals, stored):
            previous = state
            if resets is not None:
                previous = select(resets.at[t][:, None], resets.states, previous)
            candidates, values = step.forward(x[t], previous, weights)
            state = hold(tuple(d[t] for d in holds), previous, candidates)
            if holds:
                values = (*values, *candidates)
            if mask is not None:
                state = select(mask[t][:, None], state, previous)
            residuals = _write_all(residuals, values, t, jit)
            stored = _write_all(stored, tuple(state[i] for i in written), t + 1, jit)
            return t + 1, state, residuals, stored

        def history(value):
            return tf.zeros([timesteps, size(value, 0), size(value, 1)], value.dtype)

        _, final, residuals, stored = tf.while_loop(
            lambda t, *_: t < timesteps,
            body,
            (
                0,
                tuple(start),
                tuple(map(history, example)),
                tuple(tf.concat([start[i][None], history(start[i])], axis=0) for i in written),
            ),
        )
        if not everything:
            stored = step.recover(start, residuals, stored)
        return final, Trace(residuals[:kept], stored, residuals[kept:])

    def _given(self, x, start, context, trace, first=0) -> Given:
        """What the recurrence reads of the timesteps from `first` on, without gradients."""
        resets = context.resets
        previous = tuple(h[:-1] for h in trace.trajectory)
        states = trace.candidates or tuple(h[1:] for h in trace.trajectory)
        if resets is not None:
            restart = tuple(s[None] for s in resets.states)
            previous = select(resets.at[:, :, None], restart, previous)
        key = context.zoneout_key
        holds = held(self.options.zoneout, key, size(x, 0), tuple(start))

        def cut(tensor: Any) -> Any:
            return None if tensor is None else tensor[first:]

        return Given(
            x=cut(x),
            previous=tuple(map(cut, previous)),
            states=tuple(map(cut, states)),
            residuals=tuple(map(cut, trace.residuals)),
            mask=cut(context.mask),
            resets=None if resets is None else cut(resets.at),
            xi=None,
            through=None,
            held=tuple(map(cut, holds)),
            outputs=None,
        )

    def backward(self, x, start, weights, context, trace, upstream):
        weights = self._read(weights, context)
        first = 0
        windows = divide(size(x, 0), self.options)
        one_window = isinstance(windows.count, int) and windows.count == 1
        if upstream.outputs is None and not one_window:
            # Only the final state has a gradient: nothing flows outside the last window.
            first = windows.start(windows.count - 1)
            first = max(first, 0) if isinstance(first, int) else tf.maximum(first, 0)
        given = self._given(x, start, context, trace, first)
        xi, through = (None if v is None else v[first:] for v in (upstream.xi, upstream.through))
        given = given._replace(xi=xi, through=through, outputs=upstream.outputs)
        found = self.compiled_backward(
            given, weights, upstream.final, upstream.penalty_weight, tf.equal(first, 0)
        )
        previous = given.previous
        if found.hidden is not None:
            at = self.step.hidden
            previous = (*previous[:at], found.hidden, *previous[at + 1 :])
        if found.weights is not None:
            (dx,), d_weights = found.local, found.weights
        else:
            # ∂L/∂W = Σ_t of products with the cached ∂L/∂h_t (guide 2.5).
            dx, d_weights = self.step.weight_gradients(
                given.x, previous, given.residuals, found.local, weights
            )
        norms = found.norms
        if not (isinstance(first, int) and first == 0):
            dx = tf.pad(dx, [[first, 0], [0, 0], [0, 0]])
            norms = tf.pad(norms, [[first, 0]])
        measured = Monitor(norms, found.lags, found.penalty, found.lag_sums)
        return (dx, found.start, found.restart, d_weights), measured

    def _backward(self, given, weights, final, penalty_weight, at_start):
        recurrence = Recurrence(self.step, self.options, self.jit, given, weights)
        return recurrence.run(final, penalty_weight, at_start)

    # The influence on the final states --------------------------------------------------------

    def reach(self, x, start, weights, context, trace, probes):
        given = self._given(x, start, context, trace)
        read = self._read(weights, context)
        rows, local, d_start = self.compiled_reach(given, read, probes)
        dx, d_weights = self.compiled_by_row(rows, local, read)
        shape = [size(probes[0], 0), size(x, 1)]

        def by_probe(tensor):
            return tf.reshape(tensor, [*shape, *tf.unstack(tf.shape(tensor))[1:]])

        dx, d_start, d_weights = tf.nest.map_structure(by_probe, (dx, d_start, d_weights))
        values = iter(d_weights)
        flat = [None if w is None else next(values) for w in tf.nest.flatten(weights)]
        d_weights = tf.nest.pack_sequence_as(weights, flat)
        return Reached(None if self.step.called_again else dx, d_start, d_weights)

    def _reach(self, given, weights, probes):
        """The rows ``(timesteps, probes·batch, …)``, and what their recurrence leaves."""
        count, batch = size(probes[0], 0), size(given.x, 1)

        def repeated(tensor):
            if tensor is None:
                return None
            multiples: Any = [1, count, *[1] * (len(tensor.shape) - 2)]
            return tf.tile(tensor, multiples)

        rows = tf.nest.map_structure(repeated, given)
        options = self.options._replace(clip=None, clip_by_norm=False, record=False)
        recurrence = Recurrence(self.step, options, self.jit, rows, weights, by_row=True)
        final = tuple(tf.repeat(p, batch, axis=0) for p in probes)
        found = recurrence.run(final, None, tf.constant(True))
        return rows, found.local, found.start

    def _by_row(self, rows, local, weights):
        """The gradients of the inputs and weights of each row by itself."""
        masks = None if self.step.called_again else weights.h_masks
        if masks is not None:
            times: Any = size(rows.x, 1) // size(masks, 1)
            masks = (tf.tile(masks, [1, times, 1]),)
        given = rows.x, rows.previous, rows.residuals, local, masks or ()
        given = tf.nest.map_structure(lambda v: tf.transpose(v, [1, 0, 2]), given)

        def of_one(row):
            row = tf.nest.map_structure(lambda v: v[:, None], row)
            x, previous, residuals, local, masks = row
            own = weights._replace(h_masks=masks[0]) if masks else weights
            dx, found = self.step.weight_gradients(x, previous, residuals, local, own)
            return dx[:, 0], tuple(d for d in tf.nest.flatten(found) if d is not None)

        return tf.vectorized_map(of_one, given)


def _write_all(buffers: Tensors, values: Tensors, t: tf.Tensor, jit: bool) -> Tensors:
    return tuple(write(b, v[None], [t, 0, 0], jit) for b, v in zip(buffers, values, strict=True))
