"""How the loops own their gradient, and what a call gives them beside its tensors.

A `Loop` has a `forward` and a `backward`; calling it joins the two by `tf.custom_gradient`. Three
loops have this one signature: `kbptt.engine.cpu`, `kbptt.engine.tensorflow` and
`kbptt.engine.autodiff`, which leaves its gradient to TensorFlow.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from kbptt._tensorflow import is_being_exported, is_watched
from kbptt.cells.base import Tensors
from kbptt.engine.effects import Effects
from kbptt.engine.influence import Influence, Reached
from kbptt.engine.settings import settings
from kbptt.engine.tensors import in_this_graph


class Options(NamedTuple):
    """How the backward pass treats the carried gradient, and what both passes hold.

    Attributes:
        length: Timesteps a window reaches back; None for the whole sequence.
        stride: Timesteps between the ends of two windows.
        align: `"end"` or `"start"`: from where windows are counted.
        clip: Bound on every element of the carried gradient, or None.
        clip_by_norm: Whether `clip` bounds the norm of each sample's instead.
        diagonal: Whether the gradient flows through the diagonals of the recurrent kernel alone,
            from each unit to itself: SnAp-1.
        record: Whether the norms of every timestep are wanted.
        lags: Whether the gradients by lag are wanted too. For windows of stride 1, or where only
            the final state has a gradient.
        penalty: None, or a function of J_tᵀ ∂L/∂h_t ``(timesteps, batch, width)``, of ‖∂L/∂h_t‖ and
            of which timesteps count, both ``(timesteps, batch)``. Returns a penalty and its
            gradient with respect to the first argument. It adds to the gradient of the recurrent
            kernel alone.
        zoneout: For each state the probability that a unit keeps its value; empty without zoneout.
    """

    length: int | None = None
    stride: int | None = None
    align: str = "end"
    clip: float | None = None
    clip_by_norm: bool = False
    record: bool = True
    lags: bool = False
    penalty: Callable[..., Any] | None = None
    zoneout: tuple[float, ...] = ()
    diagonal: bool = False


class Monitor(NamedTuple):
    """What the backward pass measures on its way; fields that were not asked for are None.

    Attributes:
        norms: Σ_b ‖∂L/∂h_t‖₂, float32 ``(timesteps,)``.
        lags: Σ_b ‖∂L_s/∂h_{s−k}‖₂, float32 ``(length, windows)``: lag k, window s. Zero where s−k
            is no timestep or a masked one. None for the final state alone: `norms` has them.
        penalty: Value of `Options.penalty`, a scalar.
        lag_sums: Σ_s Σ_b ∂L_s/∂h_{s−k}, float32 ``(length, units)``.
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


class Dropout(NamedTuple):
    """What one call drops out, the same at every timestep.

    Attributes:
        x_masks: ``(gates, batch, features)``, factors on what each gate reads of x, or None.
        h_masks: ``(gates, batch, units)``, factors on what each gate reads of h, or None.
    """

    x_masks: tf.Tensor | None = None
    h_masks: tf.Tensor | None = None


class Watched(NamedTuple):
    """What a gradient may be asked for of.

    Attributes:
        anything: Whether of anything.
        x: Whether of the inputs.
    """

    anything: bool
    x: bool


class Context(NamedTuple):
    """What one call gives a loop besides inputs, initial states and weights.

    Shapes are those of a time-major loop; the first two axes are exchanged otherwise.

    Attributes:
        effects: The `Effects` through which the functions below read and write variables.
        mask: Boolean ``(timesteps, batch)``: False where the state is held. Or None.
        resets: `Resets`, or None.
        sequences: Whether the output of every timestep is wanted.
        factors: Called in the backward pass with (timesteps, batch); returns ξ as ``(timesteps,
            batch or 1)``, time-major in any case, with which the carried gradient is multiplied.
            Or None.
        through: Likewise for factors on what flows from t to t−1 through the recurrent kernel.
        monitor: Called with the `Monitor` of each backward pass. Or None.
        penalty_weight: Called for the weight of `Options.penalty`. Or None.
        dropout: The `Dropout`. Time-major loops get inputs that are projected already: of what is
            dropped there `h_masks` alone is left to them.
        zoneout_key: What zoneout draws from, two uint64; None for its expectation.
        influence: The `Influence` to carry on, or None.
        watched: What the tapes watch when run eagerly; None in a graph.
    """

    effects: Effects
    mask: tf.Tensor | None = None
    resets: Resets | None = None
    sequences: bool = True
    factors: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None
    through: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None
    monitor: Callable[[Monitor], None] | None = None
    penalty_weight: Callable[[], tf.Tensor] | None = None
    dropout: Dropout = Dropout()
    zoneout_key: tf.Tensor | None = None
    influence: Influence | None = None
    watched: Watched | None = None


class Observation(NamedTuple):
    """A forward pass with everything it went through; all tensors ``(timesteps, batch, width)``.

    Attributes:
        outputs: Of all timesteps, as the loop returns them.
        final: The final states, each ``(batch, width)``.
        states: The states after each step.
        gates: The gates of each step by name, in [0, 1]; empty for cells that have none.
    """

    outputs: tf.Tensor
    final: Tensors
    states: Tensors
    gates: dict[str, tf.Tensor]


class Upstream(NamedTuple):
    """What a backward pass starts from.

    Attributes:
        outputs: Gradient of the outputs of all timesteps, or None.
        final: Gradients of the final states.
        xi: ξ ``(timesteps, batch or 1)``, or None.
        through: Likewise the factors on what flows through the recurrent kernel.
        penalty_weight: Weight of the penalty, a scalar, or None.
    """

    outputs: tf.Tensor | None
    final: Tensors
    xi: tf.Tensor | None
    through: tf.Tensor | None
    penalty_weight: tf.Tensor | None


class Loop:
    """A recurrent loop that owns its gradient.

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

    def forward(
        self, x: tf.Tensor, start: Tensors, weights: Any, context: Context
    ) -> tuple[tf.Tensor, Tensors, Any]:
        """Returns the outputs, the final states, and the residuals for `backward`."""
        raise NotImplementedError

    def backward(
        self,
        x: tf.Tensor,
        start: Tensors,
        weights: Any,
        context: Context,
        residuals: Any,
        upstream: Upstream,
        /,
    ) -> tuple[tuple[Any, ...], Monitor]:
        """Gradients of (x, start, states of resets, weights), and what was measured."""
        raise NotImplementedError

    def reach(
        self,
        x: tf.Tensor,
        start: Tensors,
        weights: Any,
        context: Context,
        residuals: Any,
        probes: Tensors,
        /,
    ) -> Reached:
        """Gradients of the final states, from each of `probes` and for each sample by itself.

        Not clipped, and nothing is drawn or recorded.

        Args:
            probes: Gradients of the final states, each ``(probes, width)``, of every sample.
        """
        raise NotImplementedError

    def observe(self, x: tf.Tensor, start: Tensors, weights: Any, context: Context) -> Observation:
        """Runs the loop eagerly, without a gradient, and keeps what it went through."""
        raise NotImplementedError

    def __call__(
        self, x: tf.Tensor, start: Tensors, weights: Any, context: Context
    ) -> tuple[tf.Tensor | None, Tensors]:
        """Runs the loop; the result is differentiable once.

        Args:
            x: Inputs, ``(timesteps, batch, features)`` if time-major.
            start: Initial states, a tuple of ``(batch, width)``.
            weights: Nested tuple of what the loop reads, with None for what it has not got.
            context: The `Context`.

        Returns:
            Outputs ``(timesteps, batch, units)`` (None unless `context.sequences`) and the final
            states.

        Raises:
            ValueError: If a gradient of the gradient is asked for.
        """
        resets = context.resets
        # The gradient of a branch sees no tensors of the graphs around it.
        structure, mask, at, dropout, key = in_this_graph(
            (
                (x, tuple(start), () if resets is None else tuple(resets.states), weights),
                context.mask,
                None if resets is None else resets.at,
                context.dropout,
                context.zoneout_key,
            )
        )
        context = context._replace(dropout=dropout, zoneout_key=key)
        everything = tf.nest.flatten(structure)
        if tf.executing_eagerly():
            # Here: inside, no tape records.
            given = [v for v in everything if v is not None]
            context = context._replace(watched=Watched(is_watched(given), is_watched([x])))

        def unpack(given):
            # Without this an eager tape would try to differentiate the compiled loop as well.
            values = iter([tf.stop_gradient(v) for v in given])
            values = [None if v is None else next(values) for v in everything]
            x, start, restart, weights = tf.nest.pack_sequence_as(structure, values)
            resets = None if at is None else Resets(at, restart)
            return x, start, weights, context._replace(mask=mask, resets=resets)

        if not settings().gradient:
            outputs, final, _ = self.forward(*unpack([v for v in everything if v is not None]))
            return outputs if context.sequences else None, tuple(final)

        @tf.custom_gradient
        def run(*given):
            problem = unpack(given)
            outputs, final, residuals = self.forward(*problem)
            if (influence := context.influence) is not None:
                probes = influence.probes(problem[1])
                influence.advance(self.reach(*problem, residuals, probes))

            @tf.custom_gradient
            def gradients(*inputs):
                # `given` is among the inputs so that a gradient of these gradients is refused and
                # not just missing where the loss is linear in the outputs.
                upstream = tuple(map(tf.stop_gradient, inputs[len(given) :]))
                found = self._gradients(problem, residuals, upstream)
                found = zip(everything, tf.nest.flatten(found), strict=True)
                found = tuple(d for v, d in found if v is not None)
                return context.effects.before(found), _refuse_second_order

            outputs = (outputs,) if context.sequences else ()
            # A gather of outputs sends back IndexedSlices.
            return (*outputs, *final), lambda *upstream: gradients(
                *given, *map(tf.convert_to_tensor, upstream)
            )

        result = run(*(v for v in everything if v is not None))
        if context.sequences:
            return result[0], tuple(result[1:])
        return None, tuple(result)

    def _gradients(
        self, problem: tuple[Any, ...], residuals: Any, gradients: Tensors
    ) -> tuple[Any, ...]:
        """Draws ξ, runs the backward pass and reports what it has measured."""
        x, start, weights, context = problem
        outputs, final = (gradients[0], gradients[1:]) if context.sequences else (None, gradients)
        weight = None
        shape = tf.shape(x)
        time, batch = (0, 1) if self.time_major else (1, 0)
        xi, through = (
            None if draw is None else tf.cast(draw(shape[time], shape[batch]), start[0].dtype)
            for draw in (context.factors, context.through)
        )
        if self.options.penalty is not None:
            weight = 0 if context.penalty_weight is None else context.penalty_weight()
            weight = tf.cast(weight, start[0].dtype)
        upstream = Upstream(outputs, final, xi, through, weight)
        found, measured = self.backward(x, start, weights, context, residuals, upstream)
        if context.monitor is not None:
            context.monitor(measured)
        return found


def _refuse_second_order(*upstream):
    if is_being_exported():
        # A saved model has a function for every gradient, whether or not anybody calls it.
        return (None,) * len(upstream)
    raise ValueError(
        "Second derivatives through a kbptt layer are not defined: its backward pass is "
        "hand-written. Call the layer inside `with kbptt.engine.differentiable():` to run a loop "
        "that TensorFlow differentiates itself."
    )
