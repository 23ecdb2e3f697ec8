"""The recurrence of ∂L/∂h_t (guide 2.4) over all windows at once.

The rows of a step are (window, sample) pairs: ``(count·batch, width)``. The j-th step takes every
window from its j-th timestep, counted from its end, to the one before.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from kbptt.cells.base import Step, Tensors, Weights
from kbptt.engine.blocks import Blocks, divide
from kbptt.engine.gradient import Options
from kbptt.engine.tensors import (
    clip,
    diagonals,
    norm_per_sample,
    select,
    size,
    sum_of_gates,
    write,
)
from kbptt.truncation.windows import Windows


class Given(NamedTuple):
    """What the recurrence reads of each timestep, ``(timesteps, batch, …)``.

    Attributes:
        x: Inputs.
        previous: States before the step.
        states: States after it, before zoneout.
        residuals: Of the step.
        mask: Boolean, or None.
        resets: Boolean, or None.
        xi: ξ ``(timesteps, batch or 1)``, or None.
        through: Likewise the factors on what flows through the recurrent kernel.
        held: For each state what zoneout holds of it; empty without it.
        outputs: e_t, the gradient of the outputs, or None.
    """

    x: tf.Tensor
    previous: Tensors
    states: Tensors
    residuals: Tensors
    mask: tf.Tensor | None
    resets: tf.Tensor | None
    xi: tf.Tensor | None
    through: tf.Tensor | None
    held: Tensors
    outputs: tf.Tensor | None


class Found(NamedTuple):
    """What the recurrence leaves.

    Attributes:
        local: What the weight gradients need of each timestep, each ``(timesteps, batch, width)``.
        start: Gradients of the initial states.
        restart: Gradients of the states that resets put in.
        norms: Σ_b ‖∂L/∂h_t‖, ``(timesteps,)``.
        lags: `Monitor.lags`, or None.
        lag_sums: `Monitor.lag_sums`, or None.
        penalty: `Monitor.penalty`, or None.
        weights: Gradients of the weights if they were summed on the way, or None. Then `local` is
            the gradient of the inputs alone.
        hidden: What the gradient of the recurrent kernel takes for h_{t-1} because of the penalty,
            or None.
    """

    local: Tensors
    start: Tensors
    restart: Tensors
    norms: tf.Tensor
    lags: tf.Tensor | None
    lag_sums: tf.Tensor | None
    penalty: tf.Tensor | None
    weights: Tensors | None
    hidden: tf.Tensor | None


class Recurrence:
    """One backward pass, as it is traced.

    Args:
        step: The `kbptt.cells.Step`.
        options: The `Options`.
        jit: Whether the code is compiled by XLA.
        given: The `Given`.
        weights: What the step reads.
        by_row: Whether the gradients of the weights are not to be summed on the way.
    """

    def __init__(
        self,
        step: Step,
        options: Options,
        jit: bool,
        given: Given,
        weights: tuple[Any, ...],
        by_row: bool = False,
    ) -> None:
        self.step: Any = step
        self.options = options
        self.jit = jit
        self.weights: Any = weights
        self.given = given
        self.timesteps: int | tf.Tensor = size(given.x, 0)
        self.batch: int | tf.Tensor = size(given.x, 1)
        self.dtype: tf.DType = given.states[0].dtype
        # The final state alone sends its gradient through one window, which `given` is cut to.
        self.windows: Windows = divide(
            self.timesteps, options if given.outputs is not None else Options(align="end")
        )
        self.blocks: Blocks = Blocks(self.windows)
        self.overlapping: bool = self.windows.overlapping
        self.penalized: bool = options.penalty is not None
        self.by_block: list[Tensors] = [
            tuple(map(self.blocks.split, group)) for group in self._groups()
        ]
        self.e: tf.Tensor | None = (
            None if given.outputs is None else self.blocks.split(given.outputs)
        )
        self.keep: tf.Tensor | None = self._keep()
        self.resets: tf.Tensor | None = (
            None if given.resets is None else self.blocks.split(given.resets[:, :, None])
        )
        self.xi: tf.Tensor | None = self._xi()
        self.clip: tf.Tensor | None = self._clip()
        self.diagonal: tf.Tensor | None = None
        if options.diagonal and not step.called_again:
            self.diagonal = diagonals(self.weights.recurrent_kernel)
        # Not where rows do not count: what their zero gradients are multiplied by may be no number.
        sums = step.called_again and not by_row
        self.sums_weights: bool = sums and self.keep is None and not self.overlapping

    def _each(self, values: tf.Tensor) -> tf.Tensor:
        """``(blocks, stride)`` for every sample."""
        return tf.tile(values[:, :, None, None], [1, 1, self.batch, 1])

    def _keep(self) -> tf.Tensor | None:
        """False at masked and padded timesteps; None where there are none."""
        if self.given.mask is not None:
            return self.blocks.split(self.given.mask[:, :, None])
        if self.blocks.padded or self.overlapping:
            return self._each(self.blocks.real())
        return None

    def _xi(self) -> tf.Tensor | None:
        xi = self.given.xi
        if xi is None:
            return None
        xi = tf.broadcast_to(tf.cast(xi, self.dtype), [self.timesteps, self.batch])[:, :, None]
        return tf.where(self.blocks.real()[:, :, None, None], self.blocks.split(xi), 1)

    def _clip(self) -> tf.Tensor | None:
        """The bounds by block, where padding behind the sequence passes the final gradient on."""
        clip = self.options.clip
        if clip is None or not (self.options.align == "start" and self.blocks.padded):
            return None
        bounds = tf.where(self.blocks.real(), tf.constant(clip, self.dtype), self.dtype.max)
        return self._each(bounds)

    def _groups(self) -> tuple[Tensors, ...]:
        """What `_vjp` reads of each timestep."""
        given, through = self.given, ()
        if given.through is not None:
            shape = [self.timesteps, self.batch]
            through = (tf.broadcast_to(given.through, shape)[:, :, None],)
        return (given.x,), given.previous, given.states, given.residuals, given.held, through

    # One step ---------------------------------------------------------------------------------

    def _vjp(self, gradient, inputs, previous, states, residuals, held, through):
        """J_tᵀ ∂L/∂h_t, the local gradients, and those of the weights if they are summed here."""
        (x,), passed = inputs, ()
        if held:  # what zoneout holds passes the step by
            passed = tuple(d * g for d, g in zip(held, gradient, strict=True))
            gradient = tuple((1 - d) * g for d, g in zip(held, gradient, strict=True))
        found: Tensors = ()
        if self.sums_weights:
            carried, *local, found = self.step.vjp_of_all(x, previous, gradient, self.weights)
        else:

            def back(product: tf.Tensor) -> tf.Tensor:
                weights = self._weights_of(product)
                if self.diagonal is None:
                    hidden = self.step.product_vjp(product, weights)
                else:
                    units, passed = weights.recurrent_kernel.shape[0], product * self.diagonal
                    hidden = sum_of_gates(passed, units, weights.h_masks)
                return tf.math.multiply_no_nan(hidden, through[0]) if through else hidden

            step = x, previous, states, residuals, gradient, self.weights
            carried, local = self.step.vjp(*step, back)
        if held:
            carried = tuple(a + b for a, b in zip(carried, passed, strict=True))
        return carried, tuple(local), found

    def _weights_of(self, rows: tf.Tensor) -> Weights:
        """The weights, with the dropout of every sample for all of its rows."""
        masks = self.weights.h_masks
        if masks is None:
            return self.weights
        times: Any = size(rows, 0) // size(masks, 1)
        return self.weights._replace(h_masks=tf.tile(masks, [1, times, 1]))

    def _read(self, at: tuple, tensor: tf.Tensor) -> tf.Tensor:
        """A timestep of `count` blocks as rows; `at` is the first block and the place in it."""
        count, width = self.windows.count, size(tensor, 3)
        part = tf.slice(tensor, [*at, 0, 0], [count, 1, self.batch, width])
        return tf.reshape(part, [count * self.batch, width])

    def _place(self, buffer: tf.Tensor, rows: tf.Tensor, at: tuple) -> tf.Tensor:
        """The inverse of `_read`; what overlapping windows send to one timestep adds up."""
        count, width = self.windows.count, size(rows, 1)
        value = tf.reshape(rows, [count, 1, self.batch, width])
        if self.overlapping:
            value += tf.slice(buffer, [*at, 0, 0], [count, 1, self.batch, width])
        return write(buffer, value, [*at, 0, 0], self.jit)

    def _body(self, j, carried, kept, norms, vjp, restart, sums):
        step, stride = self.step, self.windows.stride
        at = (self.blocks.before - j // stride, stride - 1 - j % stride)
        gradient = self._add_loss(carried, j, at)  # ∂L/∂h_t
        rows = (tuple(self._read(at, v) for v in group) for group in self.by_block)
        carried, local, found = self._vjp(gradient, *rows)
        sums = tuple(a + b for a, b in zip(sums, found, strict=True))
        if self.penalized and not self.overlapping:
            vjp = self._place(vjp, carried[step.hidden], at)
        real = gradient[step.hidden]
        if self.keep is not None:
            keep = self._read(at, self.keep)
            carried = select(keep, carried, gradient)
            local = tuple(tf.where(keep, v, tf.zeros_like(v)) for v in local)
            real = tf.where(keep, real, tf.zeros_like(real))
        carried, restart = self._carry(carried, restart, at)
        # Windows overlap in the gradients of the states, of which everything else is linear.
        local = gradient if self.overlapping else local
        kept = tuple(self._place(k, v, at) for k, v in zip(kept, local, strict=True))
        norms = self._record(norms, gradient[step.hidden], real, j, at)
        return j + 1, carried, kept, norms, vjp, restart, sums

    def _add_loss(self, carried: Tensors, j: tf.Tensor, at: tuple) -> Tensors:
        """∂L/∂h_t: what is carried from t+1, and e_t where losses enter (guide 2.3, 2.4)."""
        gradient = list(carried)
        if self.e is not None:
            e = self._read(at, self.e)
            if self.overlapping:
                # Losses enter a window in its last `stride` steps alone.
                e = tf.where(j < self.windows.stride, e, tf.zeros_like(e))
            gradient[self.step.output] += e
        return tuple(gradient)

    def _carry(self, carried: Tensors, restart: Tensors, at: tuple) -> tuple[Tensors, Tensors]:
        """Applies reset, ξ and clipping to the gradient carried from t to t−1."""
        if self.resets is not None:
            reset = self._read(at, self.resets)
            zeros = tuple(map(tf.zeros_like, carried))
            into = select(reset, carried, zeros)
            restart = tuple(d + v for d, v in zip(restart, into, strict=True))
            carried = select(reset, zeros, carried)
        if self.xi is not None:
            xi = self._read(at, self.xi)
            carried = tuple(v * xi for v in carried)
        if self.options.clip is not None:
            bound = self.options.clip if self.clip is None else self._read(at, self.clip)
            carried = clip(carried, bound, self.options.clip_by_norm)
        return carried, restart

    def _record(self, norms, gradient, real, j, at):
        """`norms` with the norm of every row; by lag also the gradients themselves."""
        lags = self.options.lags
        if self.overlapping:
            if not lags:
                return norms
            # One row per lag: the norm in every window, then the sum of the vectors.
            per_window = tf.reshape(norm_per_sample(real), [self.windows.count, self.batch])
            sums = tf.reduce_sum(tf.cast(real, tf.float32), axis=0)
            row = tf.concat([tf.reduce_sum(per_window, axis=1), sums], axis=0)
            return write(norms, row[None], [j, 0], self.jit)
        if not (self.options.record or self.penalized or lags):
            return norms
        measured = norm_per_sample(gradient)[:, None]
        if lags:
            measured = tf.concat([measured, tf.cast(real, tf.float32)], axis=1)
        return self._place(norms, measured, at)

    # All steps --------------------------------------------------------------------------------

    def run(self, final: Tensors, penalty_weight: tf.Tensor | None, at_start: tf.Tensor) -> Found:
        """Runs the recurrence.

        Args:
            final: Gradients of the final states.
            penalty_weight: Weight of the penalty, or None.
            at_start: Whether the first timestep is the first of the sequence.
        """
        step, windows = self.step, self.windows
        others = (windows.count - 1) * self.batch
        carried = tuple(
            tf.concat([tf.zeros([others, size(d, 1)], d.dtype), d], axis=0) for d in final
        )
        example = carried
        if not self.overlapping:
            # Traced for its shapes alone; XLA removes the computation.
            rows = (tuple(self._read((0, 0), v) for v in group) for group in self.by_block)
            _, example, _ = self._vjp(carried, *rows)
        shape = [self.blocks.before + windows.count, windows.stride, self.batch]
        hidden = carried[step.hidden]
        vector = size(hidden, 1) if self.options.lags else 0
        by_lag = [windows.length, windows.count + vector]
        norms = tf.zeros(by_lag if self.overlapping else [*shape, 1 + vector], tf.float32)
        vjp = ()
        if self.penalized and not self.overlapping:
            vjp = tf.zeros([*shape, size(hidden, 1)], hidden.dtype)
        sums = tuple(map(tf.zeros_like, self.weights)) if self.sums_weights else ()
        _, carried, kept, norms, vjp, restart, sums = tf.while_loop(
            lambda j, *_: j < windows.length,
            self._body,
            (
                0,
                carried,
                tuple(tf.zeros([*shape, size(v, 1)], v.dtype) for v in example),
                norms,
                vjp,
                tuple(map(tf.zeros_like, carried)) if self.resets is not None else (),
                sums,
            ),
        )
        kept = tuple(map(self.blocks.join, kept))
        finish = self._finish_overlapping if self.overlapping else self._finish
        local, norms, lags, lag_sums, vjp = finish(kept, norms, vjp)
        penalty = hidden = None
        if self.penalized:
            penalty, hidden = self._penalize(vjp, norms, penalty_weight, at_start)
        # A window that has consumed every step before its end reaches the initial state.
        reaches = at_start & (windows.start(tf.range(windows.count)) <= 0)
        return Found(
            local=local,
            start=tuple(
                tf.reduce_sum(tf.where(reaches[:, None, None], d, tf.zeros_like(d)), axis=0)
                for d in map(self._by_window, carried)
            ),
            restart=tuple(tf.reduce_sum(self._by_window(d), axis=0) for d in restart),
            norms=tf.reduce_sum(norms, axis=1),
            lags=lags,
            lag_sums=lag_sums,
            penalty=penalty,
            weights=sums if self.sums_weights else None,
            hidden=hidden,
        )

    def _by_window(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.reshape(rows, [self.windows.count, self.batch, size(rows, 1)])

    def _finish(self, local, norms, vjp):
        """What was recorded, by timestep: the norms ``(timesteps, batch)`` first."""
        measured = self.blocks.join(norms)
        sums = None
        if self.options.lags:
            sums = tf.reverse(tf.reduce_sum(measured[:, :, 1:], axis=1), [0])
        vjp = self.blocks.join(vjp) if self.penalized else None
        return local, measured[:, :, 0], None, sums, vjp

    def _finish_overlapping(self, gradient, measured, vjp):
        """The same from the sums of ∂L/∂h_t over all windows, by one more step at all timesteps."""
        step, given = self.step, self.given
        rows = self.timesteps * self.batch
        lags = sums = None
        if self.options.lags:
            count = self.windows.count
            lags, sums = measured[:, :count], measured[:, count:]
        flat, *groups = (
            tuple(tf.reshape(v, [rows, size(v, 2)]) for v in group)
            for group in (gradient, *self._groups())
        )
        back, local, _ = self._vjp(flat, *groups)
        local = tuple(tf.reshape(v, [self.timesteps, self.batch, size(v, 1)]) for v in local)
        if given.mask is not None:
            keep = given.mask[:, :, None]
            local = tuple(tf.where(keep, v, tf.zeros_like(v)) for v in local)
        if self.penalized:
            vjp = tf.reshape(back[step.hidden], [self.timesteps, self.batch, -1])
        return local, norm_per_sample(gradient[step.hidden]), lags, sums, vjp

    def _penalize(self, vjp, norms, weight, at_start):
        """The penalty on J_tᵀ ∂L/∂h_t, and what stands for h_{t-1} in ∂L/∂U because of it."""
        given = self.given
        counts = tf.fill([self.timesteps, self.batch], True)
        counts &= ((tf.range(self.timesteps) > 0) | ~at_start)[:, None]
        if given.mask is not None:
            counts &= given.mask
        if given.resets is not None:
            counts &= ~given.resets
        penalty, d_vjp = self.options.penalty(vjp, norms, counts)
        # ∂L/∂U = Σ h_{t-1}ᵀ dz_t, and of a function of J_tᵀ v = dz_t·Uᵀ it is Σ d_pulledᵀ dz_t:
        # one product serves both.
        hidden = given.previous[self.step.hidden] + weight * d_vjp
        return weight * tf.cast(penalty, weight.dtype), hidden
