"""Backpropagation through time, with the layer owning its gradient.

BPTT is one linear recurrence over the states (guide 2.4)

    ∂L/∂h_{t-1} = J_tᵀ ∂L/∂h_t + e_{t-1}        e_t: what the loss sends to output t directly

and every weight gradient is one sum over t of products with the cached ∂L/∂h_t (guide 2.5). So the
loop is not left to automatic differentiation:

1. `_forward` runs T steps and keeps of each what the backward pass needs; no tape.
2. `_backward` runs the recurrence. Gradients do not cross the end of a window, so all windows run
   at the same time, stacked into the batch: `length` sequential steps over more rows instead of T
   steps (see `kbptt.engine.blocks`).
3. The gradients of the weights and inputs are one matrix product each over all timesteps.
4. The norms of ∂L/∂h_t at every timestep fall out of 2.

Everything here is time-major: ``(timesteps, batch, width)``.
"""

from typing import NamedTuple

import tensorflow as tf

from kbptt.engine.blocks import Blocks
from kbptt.engine.compiled import Compiled, write
from kbptt.engine.loop import Loop, Monitor, Options
from kbptt.engine.steps import Step, Tensors


class Trace(NamedTuple):
    """What the forward pass leaves for the backward pass.

    Attributes:
        stored: What the step wants kept, each ``(timesteps, batch, width)``.
        trajectory: The states from the initial one on, ``(timesteps + 1, batch, width)``: all but
            the first are the states, all but the last the previous states, and neither is a copy.
    """

    stored: Tensors
    trajectory: Tensors


class BPTT(Loop):
    """A recurrent loop with its own truncated gradient.

    Args:
        step: The `Step` of the cell.
        options: The `Options`.
        jit: Whether XLA compiles the loops. Defaults to `True`.
    """

    time_major = True

    def __init__(self, step: Step, options: Options, jit: bool = True) -> None:
        super().__init__(options)
        self.step = step
        self.output = step.output
        self.jit = jit
        self._compiled_forward = Compiled(self._forward, jit)
        self._compiled_backward = Compiled(self._backward, jit)

    def _run(self, x, start, weights, mask, resets):
        final, trace = self._compiled_forward(x, start, weights, mask, resets)
        return trace.trajectory[self.output][1:], final, trace

    # Forward ---------------------------------------------------------------------------------

    def _forward(self, x, initial_state, weights, mask, resets) -> tuple[Tensors, Trace]:
        """Runs the recurrence; returns the final states and the trace."""
        step, jit = self.step, self.jit
        timesteps = _size(x, 0)
        _, example = step.forward(x[0], initial_state, weights)
        # The step can tell some states from others, unless a mask holds or a reset replaces them.
        everything = mask is not None or resets is not None
        written = range(len(initial_state)) if everything else step.written

        def body(t, state, stored, kept):
            previous = state
            if resets is not None:
                previous = _select(resets.at[t][:, None], resets.states, previous)
            state, values = step.forward(x[t], previous, weights)
            if mask is not None:
                state = _select(mask[t][:, None], state, previous)
            stored = _write_all(stored, values, t, jit)
            kept = _write_all(kept, tuple(state[i] for i in written), t + 1, jit)
            return t + 1, state, stored, kept

        def trajectory(state):
            return tf.concat([state[None], _history(timesteps, state)], axis=0)

        _, final, stored, kept = tf.while_loop(
            lambda t, *_: t < timesteps,
            body,
            (
                0,
                tuple(initial_state),
                tuple(_history(timesteps, v) for v in example),
                tuple(trajectory(initial_state[i]) for i in written),
            ),
        )
        if not everything:
            kept = step.recover(initial_state, stored, kept)
        return final, Trace(stored, kept)

    # Backward --------------------------------------------------------------------------------

    def _pull(self, x, start, weights, mask, resets, trace, dy, d_final, xi, weight):
        timesteps = _size(x, 0)
        previous = tuple(h[:-1] for h in trace.trajectory)
        states = tuple(h[1:] for h in trace.trajectory)
        if resets is not None:
            previous = tuple(
                tf.where(resets.at[:, :, None], s[None], p)
                for s, p in zip(resets.states, previous, strict=True)
            )
        blocks = Blocks.of(timesteps, self.options.length, self.options.stride, self.options.align)
        first = 0
        if dy is None and not (isinstance(blocks.count, int) and blocks.count == 1):
            # Only the final state has a gradient: nothing flows outside the last window.
            first = tf.maximum(blocks.count * blocks.stride - blocks.front - blocks.length, 0)
            if isinstance(timesteps, int):
                first = max(blocks.count * blocks.stride - blocks.front - blocks.length, 0)

        def cut(tensor):
            return None if tensor is None else tensor[first:]

        window = (cut(x), *(tuple(map(cut, p)) for p in (previous, states, trace.stored)))
        local, d_start, d_reset, norms, lags, penalty, hidden = self._compiled_backward(
            *window,
            weights,
            cut(mask),
            None if resets is None else cut(resets.at),
            cut(xi),
            weight,
            dy,
            d_final,
            tf.equal(first, 0),
        )
        x_window, previous, _, stored = window
        if hidden is not None:
            at = self.step.hidden
            previous = (*previous[:at], hidden, *previous[at + 1 :])
        dx, d_weights = self.step.weight_gradients(x_window, previous, stored, local, weights)
        if not (isinstance(first, int) and first == 0):
            dx = tf.pad(dx, [[first, 0], [0, 0], [0, 0]])
            norms = tf.pad(norms, [[first, 0]])
        return (dx, d_start, d_reset, d_weights), Monitor(norms, lags[0], penalty, lags[1])

    def _backward(
        self, x, previous, states, stored, weights, mask, resets, xi, weight, dy, d_final, at_start
    ):
        """Runs the recurrence of ∂L/∂h_t over all windows at once.

        Returns what the weight gradients need of each timestep, the gradients of the initial state
        and of the states that `resets` puts in, the norms ``(timesteps,)``, both measures by lag,
        the penalty, and what the gradient of the recurrent kernel takes for h_{t-1} because of the
        penalty.
        """
        step, jit, clip = self.step, self.jit, self.options.clip
        penalized = self.options.penalty is not None
        recorded = self.options.record or penalized
        timesteps, batch = _size(x, 0), _size(x, 1)
        dtype = d_final[0].dtype
        if dy is None:
            blocks = Blocks.of(timesteps, None, None, "end")
        else:
            blocks = Blocks.of(
                timesteps, self.options.length, self.options.stride, self.options.align
            )
        count, stride, before = blocks.count, blocks.stride, blocks.reach - 1
        overlapping = blocks.overlapping
        rows = count * batch

        def view(tensors):
            return tuple(blocks.split(v, before) for v in tensors)

        blocked = [view((x,)), view(previous), view(states), view(stored)]
        blocked_e = None if dy is None else blocks.split(dy, before)
        keep = None
        if mask is not None:
            keep = blocks.split(mask[:, :, None], before)
        elif blocks.padded or overlapping:
            keep = tf.tile(blocks.real(before)[:, :, None, None], [1, 1, batch, 1])
        if resets is not None:
            resets = blocks.split(resets[:, :, None], before)
        if xi is not None:
            xi = tf.broadcast_to(tf.cast(xi, dtype), [timesteps, batch])[:, :, None]
            xi = tf.where(blocks.real(before)[:, :, None, None], blocks.split(xi, before), 1)

        bounds = None
        if clip is not None and self.options.align == "start" and blocks.padded:
            bounds = tf.where(blocks.real(before), tf.constant(clip, dtype), dtype.max)
            bounds = tf.tile(bounds[:, :, None, None], [1, 1, batch, 1])

        def read(block, s, tensor):
            """Timestep `s` of `count` blocks from `block` on, as rows ``(count·batch, width)``."""
            width = _size(tensor, 3)
            part = tf.slice(tensor, [block, s, 0, 0], [count, 1, batch, width])
            return tf.reshape(part, [rows, width])

        def place(buffer, value, block, s):
            value = tf.reshape(value, [count, 1, batch, _size(value, 1)])
            if overlapping:
                width = _size(value, 3)
                value += tf.slice(buffer, [block, s, 0, 0], [count, 1, batch, width])
            return write(buffer, value, [block, s, 0, 0], jit)

        def body(j, carry, kept, norms, pulled, d_reset):
            block = before - j // stride
            s = stride - 1 - j % stride
            gradient = list(carry)
            if blocked_e is not None:
                e = read(block, s, blocked_e)
                if overlapping:
                    # Losses enter a window in its last `stride` steps alone.
                    e = tf.where(j < stride, e, tf.zeros_like(e))
                gradient[step.output] += e
            gradient = tuple(gradient)
            x_t, previous_t, state_t, stored_t = (
                tuple(read(block, s, v) for v in group) for group in blocked
            )
            carry, local = step.backward(x_t[0], previous_t, state_t, stored_t, gradient, weights)
            if penalized and not overlapping:
                pulled = place(pulled, carry[step.hidden], block, s)
            if keep is not None:
                keep_t = read(block, s, keep)
                carry = _select(keep_t, carry, gradient)
                local = tuple(tf.where(keep_t, v, tf.zeros_like(v)) for v in local)
            if resets is not None:
                reset_t = read(block, s, resets)
                zeros = tuple(map(tf.zeros_like, carry))
                d_reset = tuple(
                    d + v for d, v in zip(d_reset, _select(reset_t, carry, zeros), strict=True)
                )
                carry = _select(reset_t, zeros, carry)
            if xi is not None:
                xi_t = read(block, s, xi)
                carry = tuple(v * xi_t for v in carry)
            if clip is not None:
                # Padding behind the sequence passes what is given for the final state.
                bound = clip if bounds is None else read(block, s, bounds)
                carry = tuple(tf.clip_by_value(v, -bound, bound) for v in carry)
            # Windows overlap in the gradients of the states, of which everything else is linear.
            local = gradient if overlapping else local
            kept = tuple(place(k, v, block, s) for k, v in zip(kept, local, strict=True))
            measured = norm_per_sample(gradient[step.hidden])[:, None]
            if self.options.lags:
                real = gradient[step.hidden]
                if keep is not None:
                    real = tf.where(keep_t, real, tf.zeros_like(real))
                measured = tf.concat([measured, tf.cast(real, tf.float32)], axis=1)
            if overlapping and self.options.lags:
                # One row per lag: the norm in every window, then the sum of the vectors.
                per_window = tf.reshape(norm_per_sample(real), [count, batch])
                row = [tf.reduce_sum(per_window, axis=1), tf.reduce_sum(measured[:, 1:], axis=0)]
                norms = write(norms, tf.concat(row, axis=0)[None], [j, 0], jit)
            elif recorded and not overlapping:
                norms = place(norms, measured, block, s)
            return j + 1, carry, kept, norms, pulled, d_reset

        carry = tuple(
            tf.concat([tf.zeros([(count - 1) * batch, _size(d, 1)], d.dtype), d], axis=0)
            for d in d_final
        )
        if overlapping:
            example = carry
        else:
            # Traced for its shapes alone; XLA removes the computation.
            (x_0,), *trace_0 = (tuple(read(0, 0, v) for v in group) for group in blocked)
            _, example = step.backward(x_0, *trace_0, carry, weights)
        shape = [before + count, stride, batch]
        vector = _size(carry[step.hidden], 1) if self.options.lags else 0
        by_lag = [blocks.length, count + vector]
        norms = tf.zeros(by_lag if overlapping else [*shape, 1 + vector], tf.float32)
        pulled = ()
        if penalized and not overlapping:
            hidden = carry[step.hidden]
            pulled = tf.zeros([*shape, _size(hidden, 1)], hidden.dtype)
        _, carry, kept, norms, pulled, d_reset = tf.while_loop(
            lambda j, *_: j < blocks.length,
            body,
            (
                0,
                carry,
                tuple(tf.zeros([*shape, _size(v, 1)], v.dtype) for v in example),
                norms,
                pulled,
                tuple(map(tf.zeros_like, carry)) if resets is not None else (),
            ),
        )

        lags = sums = None
        kept = tuple(blocks.join(k, before) for k in kept)
        if overlapping:
            gradient = kept
            if self.options.lags:
                lags, sums = norms[:, :count], norms[:, count:]
            norms = norm_per_sample(gradient[step.hidden])
            flat = [
                tuple(tf.reshape(v, [timesteps * batch, _size(v, 2)]) for v in group)
                for group in ((x,), previous, states, stored, gradient)
            ]
            back, local = step.backward(flat[0][0], *flat[1:], weights)
            kept = tuple(tf.reshape(v, [timesteps, batch, _size(v, 1)]) for v in local)
            if mask is not None:
                real = blocks.join(keep, before)
                kept = tuple(tf.where(real, v, tf.zeros_like(v)) for v in kept)
            if penalized:
                pulled = tf.reshape(back[step.hidden], [timesteps, batch, -1])
        else:
            measured = blocks.join(norms, before)
            norms = measured[:, :, 0]
            if self.options.lags:
                sums = tf.reverse(tf.reduce_sum(measured[:, :, 1:], axis=1), [0])
            if penalized:
                pulled = blocks.join(pulled, before)

        # A window that has consumed every step before its end reaches the initial state.
        steps_to_start = stride * (tf.range(count) + 1) - blocks.front
        reaches = at_start & (steps_to_start <= blocks.length)

        def by_window(d):
            return tf.reshape(d, [count, batch, _size(d, 1)])

        zero = tf.zeros([], dtype)
        d_start = tuple(
            tf.reduce_sum(tf.where(reaches[:, None, None], by_window(d), zero), axis=0)
            for d in carry
        )
        d_reset = tuple(tf.reduce_sum(by_window(d), axis=0) for d in d_reset)
        penalty = hidden = None
        if penalized:
            counts = tf.fill([timesteps, batch], True)
            counts &= ((tf.range(timesteps) > 0) | ~at_start)[:, None]
            if mask is not None:
                counts &= mask
            if resets is not None:
                counts &= ~blocks.join(resets, before)[:, :, 0]
            penalty, d_pulled = self.options.penalty(pulled, norms, counts)
            # ∂L/∂U = Σ h_{t-1}ᵀ dz_t, and of a function of J_tᵀ v = dz_t·Uᵀ it is Σ d_pulledᵀ dz_t:
            # one product serves both.
            penalty = weight * tf.cast(penalty, weight.dtype)
            hidden = previous[step.hidden] + weight * d_pulled
        norms = tf.reduce_sum(norms, axis=1)
        return kept, d_start, d_reset, norms, (lags, sums), penalty, hidden


def _size(tensor: tf.Tensor, axis: int) -> int | tf.Tensor:
    """The static size of an axis if known, else the dynamic one."""
    size = tensor.shape[axis]
    return tf.shape(tensor)[axis] if size is None else size


def _history(timesteps, value: tf.Tensor) -> tf.Tensor:
    return tf.zeros([timesteps, _size(value, 0), _size(value, 1)], value.dtype)


def _write_all(buffers: Tensors, values: Tensors, t: tf.Tensor, jit: bool) -> Tensors:
    return tuple(write(b, v[None], [t, 0, 0], jit) for b, v in zip(buffers, values, strict=True))


def _select(condition: tf.Tensor, yes: Tensors, no: Tensors) -> Tensors:
    return tuple(tf.where(condition, a, b) for a, b in zip(yes, no, strict=True))


def norm_per_sample(gradient: tf.Tensor) -> tf.Tensor:
    """‖·‖₂ over the last axis, as float32.

    Computed in float64, whose squares neither underflow nor overflow: a gradient that has vanished
    to 1e-30 must not be shown as an exact 0.
    """
    gradient = tf.cast(gradient, tf.float64)
    # A product with ones is a vectorized sum; XLA's own reduction over a row is not, on a CPU.
    ones = tf.ones([_size(gradient, -1), 1], tf.float64)
    norms = tf.sqrt(tf.matmul(gradient * gradient, ones)[..., 0])
    return tf.cast(norms, tf.float32)
