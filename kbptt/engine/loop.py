"""What the engines share: options, what they measure, and how they own their gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from kbptt._tensorflow import is_being_exported
from kbptt.engine.compiled import in_this_graph
from kbptt.engine.effects import Effects
from kbptt.engine.steps import Tensors


class Options(NamedTuple):
    """How the backward pass treats the carried gradient.

    Attributes:
        length: Timesteps a window reaches back; None for the whole sequence.
        stride: Timesteps between the ends of two windows.
        align: `"end"` or `"start"`: from where windows are counted.
        clip: Bound on every element of the carried gradient, or None.
        record: Whether the norms of every timestep are wanted.
        lags: Whether the gradients by lag are wanted too. For windows of stride 1, or where only
            the final state has a gradient.
        penalty: None, or a function of J_tᵀ ∂L/∂h_t ``(timesteps, batch, width)``, of ‖∂L/∂h_t‖ and
            of which timesteps count, both ``(timesteps, batch)``. Returns a penalty and its
            gradient with respect to the first argument. It adds to the gradient of the recurrent
            kernel alone.
    """

    length: int | None = None
    stride: int | None = None
    align: str = "end"
    clip: float | None = None
    record: bool = True
    lags: bool = False
    penalty: Callable | None = None


class Monitor(NamedTuple):
    """What the backward pass measures on its way; fields that were not asked for are None.

    Attributes:
        norms: Σ_b ‖∂L/∂h_t‖₂, float32 ``(timesteps,)``.
        lags: Σ_b ‖∂L_s/∂h_{s−k}‖₂, float32 ``(length, windows)``: lag k, window s. Zero where s−k
            is no timestep or a masked one. None for the final state alone: `norms` tell it.
        lag_sums: Σ_s Σ_b ∂L_s/∂h_{s−k}, float32 ``(length, units)``.
        penalty: Value of `Options.penalty`, a scalar.
    """

    norms: tf.Tensor | None = None
    lags: tf.Tensor | None = None
    penalty: tf.Tensor | None = None
    lag_sums: tf.Tensor | None = None


class Resets(NamedTuple):
    """Where samples start afresh.

    Attributes:
        at: Boolean ``(timesteps, batch)``: True where the state is replaced by `states` before the
            step. No gradient crosses such a place; it flows into `states`.
        states: Tuple of ``(batch, width)``. Not always the initial state of the sequence: that of a
            stateful layer is carried over from the batch before.
    """

    at: tf.Tensor
    states: Tensors


class Backward(NamedTuple):
    """What the backward pass of one call asks for and reports.

    Attributes:
        effects: The `Effects` through which the others read and write variables.
        factors: Called with (timesteps, batch); returns ξ as ``(timesteps, batch or 1)``,
            time-major in any case, with which the carried gradient is multiplied. Or None.
        monitor: Called with a `Monitor`. Or None.
        penalty_weight: Called for the weight of `Options.penalty`. Or None.
    """

    effects: Effects
    factors: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None
    monitor: Callable[[Monitor], None] | None = None
    penalty_weight: Callable[[], tf.Tensor] | None = None


class Loop:
    """A recurrent loop that owns its gradient.

    A subclass runs the loop in `_run` and its gradient in `_pull`.

    Args:
        options: The `Options`.

    Attributes:
        time_major: Whether tensors are ``(timesteps, batch, …)``, else ``(batch, timesteps, …)``.
        output: Index of the state that is the output.
        reads_windows_late: Whether windows and clip may change after a graph has been traced.
    """

    time_major: bool
    reads_windows_late = False
    output: int

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(
        self,
        x: tf.Tensor,
        initial_state: Tensors,
        weights: Tensors,
        mask: tf.Tensor | None = None,
        resets: Resets | None = None,
        sequences: bool = True,
        backward: Backward | None = None,
    ) -> tuple[tf.Tensor | None, Tensors]:
        """Runs the loop; the result is differentiable once.

        Shapes are those of a time-major loop; the first two axes are exchanged otherwise.

        Args:
            x: Inputs, ``(timesteps, batch, features)``.
            initial_state: Tuple of ``(batch, width)``.
            weights: Tuple of what the loop reads, with None for what it has not got.
            mask: Boolean ``(timesteps, batch)``: False where the state is held.
            resets: `Resets`, or None.
            sequences: Whether the output of every timestep is wanted.
            backward: The `Backward`. Defaults to one that asks for nothing.

        Returns:
            Outputs ``(timesteps, batch, units)`` (None unless `sequences`) and the final states.

        Raises:
            ValueError: If a gradient of the gradient is asked for.
        """
        backward = Backward(Effects()) if backward is None else backward
        resets_at, restart = (None, ()) if resets is None else resets
        # The gradient of a branch sees no tensors of the graphs around it.
        structure, mask, resets_at = in_this_graph(
            ((x, tuple(initial_state), tuple(restart), weights), mask, resets_at)
        )
        everything = tf.nest.flatten(structure)
        time, batch = (0, 1) if self.time_major else (1, 0)

        @tf.custom_gradient
        def run(*given):
            # Without this an eager tape would try to differentiate the compiled loop as well.
            values = iter([tf.stop_gradient(v) for v in given])
            values = [None if v is None else next(values) for v in everything]
            x, start, restart, weights = tf.nest.pack_sequence_as(structure, values)
            resets = None if resets_at is None else Resets(resets_at, restart)
            problem = (x, start, weights, mask, resets)
            outputs, final, kept = self._run(*problem)

            @tf.custom_gradient
            def gradients(*inputs):
                # `given` is among the inputs so that a gradient of these gradients is refused and
                # not just missing where the loss is linear in the outputs.
                upstream = tuple(map(tf.stop_gradient, inputs[len(given) :]))
                dy, d_final = (upstream[0], upstream[1:]) if sequences else (None, upstream)
                xi = weight = None
                if backward.factors is not None:
                    shape = tf.shape(x)
                    xi = tf.cast(backward.factors(shape[time], shape[batch]), start[0].dtype)
                if self.options.penalty is not None:
                    value = backward.penalty_weight() if backward.penalty_weight else 0
                    weight = tf.cast(value, start[0].dtype)
                pulled, measured = self._pull(*problem, kept, dy, d_final, xi, weight)
                if backward.monitor is not None:
                    backward.monitor(measured)
                pulled = zip(everything, tf.nest.flatten(pulled), strict=True)
                pulled = tuple(d for v, d in pulled if v is not None)
                return backward.effects.before(pulled), _refuse_second_order

            outputs = (outputs,) if sequences else ()
            # A gather of outputs sends back IndexedSlices.
            return (*outputs, *final), lambda *upstream: gradients(
                *given, *map(tf.convert_to_tensor, upstream)
            )

        result = run(*(v for v in everything if v is not None))
        if sequences:
            return result[0], tuple(result[1:])
        return None, tuple(result)

    def _run(self, x, start, weights, mask, resets) -> tuple[tf.Tensor, Tensors, Any]:
        """Returns the outputs, the final states, and what `_pull` wants kept."""
        raise NotImplementedError

    def _pull(
        self, x, start, weights, mask, resets, kept, dy, d_final, xi, weight
    ) -> tuple[tuple, Monitor]:
        """Gradients of (x, start, resets.states, weights), from those of outputs and final states.

        `dy` is None if the outputs have none; ξ is ``(timesteps, batch or 1)``; `weight` is that
        of the penalty.
        """
        raise NotImplementedError


def _refuse_second_order(*upstream):
    if is_being_exported():
        # A saved model has a function for every gradient, whether or not anybody calls it.
        return (None,) * len(upstream)
    raise ValueError(
        "Gradients of gradients through a kbptt layer are not defined: its backward pass is "
        "hand-made. Call the layer inside `with kbptt.engine.differentiable():` to run a loop "
        "that TensorFlow differentiates itself."
    )
