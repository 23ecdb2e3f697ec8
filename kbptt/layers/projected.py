"""SimpleRNN, GRU and LSTM: input projection outside the loop, an elementwise step inside."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kbptt import normalization as normalizations, parametrizations
from kbptt._checks import number
from kbptt._frozen import frozen
from kbptt._tensorflow import is_being_exported
from kbptt.cells import ACTIVATION, CELLS, Cell, Weights, make
from kbptt.cells.layer_norm import center
from kbptt.engine import Context, Effects, Loop, Monitor, Options, in_control_flow, settings
from kbptt.gradient_clip import GradientClipLike
from kbptt.layers import parametrized
from kbptt.layers.any_cell import CellLayer, Part, as_tensors
from kbptt.layers.identifiers import resolved
from kbptt.layers.options import Detachment, Uniform
from kbptt.layers.zoneout import ZoneoutLike, zoneout_rates
from kbptt.normalization import NormalizationLike
from kbptt.parametrizations import ParametrizationLike
from kbptt.regularizers import vanishing_gradient
from kbptt.regularizers.vanishing_gradient import GradientRegularizerLike
from kbptt.truncation.policies import TruncationLike

# The functions that the engine has a derivative for, as users pass them: Keras's and TensorFlow's.
_KNOWN = [
    (name, function)
    for name, activation in ACTIVATION.items()
    for function in (keras.activations.get(name), activation.function)
]


def activation_names(cell: Any) -> tuple[str, ...] | None:
    """Names of the activations of a layer or cell, or None if the engine has no derivative for one.

    Not by `__name__`: a user's own function may bear any name.
    """
    given = [cell.activation, getattr(cell, "recurrent_activation", None)]
    names = tuple(
        next((name for name, known in _KNOWN if known is function), None)
        for function in given
        if function is not None
    )
    return None if None in names else names


def drops_out_by_gate(cell: Any) -> bool:
    """Whether in training the gates of a cell read different inputs or states."""
    by_gate = cell.recurrent_dropout or (cell.dropout and getattr(cell, "implementation", 2) == 1)
    return bool(by_gate) and cell.kernel.shape[-1] > cell.units


class ProjectedLayer(CellLayer):
    """Mixin of the layers whose inputs are projected by one product before the loop.

    Attributes:
        cell_name: Name of the cell in `kbptt.cells.CELLS`.
    """

    cell_name: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **resolved(kwargs))

    def _set_up(
        self,
        truncation: TruncationLike,
        gradient_clip: GradientClipLike,
        normalization: NormalizationLike = None,
        regularizer: GradientRegularizerLike = None,
        trainable_initial_state: bool = False,
        parametrization: ParametrizationLike = None,
        zoneout: ZoneoutLike = 0.0,
        h_detach: float = 0.0,
    ) -> None:
        super()._set_up(truncation, gradient_clip, trainable_initial_state)
        self._zoneout_key: tf.Tensor | None = None
        self.zoneout = zoneout
        self.h_detach = h_detach
        self._normalization = frozen(normalizations.get(normalization))
        self._parametrization = frozen(parametrizations.get(parametrization))
        if self._parametrization is not None:
            parametrized.check(self.name, self.cell)
        self._penalty = None
        self.gradient_regularizer = regularizer

    @property
    def normalization(self) -> normalizations.LayerNormalization | None:
        """The normalization of this layer, or None. Cannot change: it has weights."""
        return self._normalization

    @property
    def recurrent_parametrization(self) -> parametrizations.Parametrization | None:
        """The parametrization of the recurrent kernel, or None. Cannot change: it has weights."""
        return self._parametrization

    @property
    def gradient_regularizer(self) -> vanishing_gradient.VanishingGradient | None:
        """The regularizer of the gradient norm, or None. Can be set like `truncation`."""
        return self._gradient_regularizer

    @gradient_regularizer.setter
    def gradient_regularizer(self, value: GradientRegularizerLike) -> None:
        self._gradient_regularizer = frozen(vanishing_gradient.get(value))
        if self.built:
            self._build_regularizer()
        self._options_changed(windows_or_clip=False)

    @property
    def zoneout(self) -> float | tuple[float, ...]:
        """The probability that a unit keeps its value for a timestep, or one for each state.

        Can be set at any time: `fit`, `evaluate` and `predict` use it from then on. Your own
        function that was traced before keeps the old value until you train through it.
        """
        return self._zoneout

    @zoneout.setter
    def zoneout(self, value: ZoneoutLike) -> None:
        self._zoneout, self._zoneout_rates = self._fields("zoneout", value).values()
        self._options_changed(windows_or_clip=False, forward=True)

    @property
    def h_detach(self) -> float:
        """Probability, per timestep, that no gradient flows through h; c's path stays."""
        return 0.0 if self._detachment is None else self._detachment.rate

    @h_detach.setter
    def h_detach(self, value: float) -> None:
        (self._detachment,) = self._fields("h_detach", value).values()
        self._options_changed(windows_or_clip=False)

    def _fields(self, option: str, value: Any) -> dict[str, Any]:
        if option == "zoneout":
            shown, rates = zoneout_rates(value, CELLS[self.cell_name].states)
            return {"zoneout": shown, "zoneout_rates": rates}
        if option == "h_detach":
            rate = number("h_detach", value, at_least=0, at_most=1)
            if not rate:
                return {"detachment": None}
            if CELLS[self.cell_name].gates == 1:
                raise ValueError(
                    f"Layer '{self.name}': `h_detach` needs a second gradient path past the "
                    "recurrent kernel, which only LSTM and GRU have. Expected h_detach=0. "
                    f"Received: h_detach={value!r}."
                )
            if self._uniform is None:
                seed = self.cell.seed if isinstance(self.cell.seed, int) else None
                self._uniform = Uniform(seed)
            return {"detachment": Detachment(rate, self._uniform)}
        return super()._fields(option, value)

    def _draw(self, training: bool, step_input: Any, states: Any) -> None:
        super()._draw(training, step_input, states)
        self._zoneout_key = None
        if training and self._zoneout_rates:
            # As the dropout masks, once for the whole sequence and from the same generator.
            seed = ops.cast(self.cell.seed_generator.next(), "uint64")
            self._zoneout_key = seed[0] + seed[1] * tf.constant(2**32, tf.uint64)

    def _context(self, x: tf.Tensor, loop: Loop) -> Context:
        context = super()._context(x, loop)
        if self._zoneout_key is None:
            return context
        key = tf.stack([self._zoneout_key, tf.constant(self._burnt, tf.uint64)])
        return context._replace(zoneout_key=key)

    def _recurrence(self, training: bool = False) -> Cell | None:
        """The cell of the loops, or None if the layer's options need the path for any cell."""
        names = activation_names(self)
        if names is None:
            return None
        normalization = self.normalization
        centres = normalization is not None and normalization.centred
        centres = centres and training and drops_out_by_gate(self.cell)
        return make(self.cell_name, names, normalization, centres)

    def _weights(self, centres: bool = False) -> Weights:
        """What the cell reads; `centres`: whether it centres h·U and x·W itself."""
        kernel, recurrent = self.cell.kernel, parametrized.exact_kernel(self.cell)
        if self.normalization is not None and self.normalization.centred and not centres:
            groups = CELLS[self.cell_name].groups(self.units)
            kernel, recurrent = (
                center(ops.convert_to_tensor(w), groups) for w in (kernel, recurrent)
            )
        gains = {name: getattr(self, name, None) for name in CELLS[self.cell_name].gains}
        return Weights(kernel, recurrent, bias=self.cell.bias, **gains)

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        if self.recurrent_parametrization is not None:
            parametrized.parametrize(self.cell, self.recurrent_parametrization)
        super().build(sequences_shape, initial_state_shape)
        self._build_regularizer()

    def _before_loops(self) -> contextlib.AbstractContextManager[None]:
        return parametrized.holding(self.cell)

    def _build_further_weights(self) -> None:
        if self.normalization is not None:
            for name, blocks in CELLS[self.cell_name].gains.items():
                initializer = "zeros" if name.endswith("bias") else "ones"
                weight = self.add_weight((blocks * self.units,), initializer, name=name)
                setattr(self, name, weight)

    def _build_regularizer(self) -> None:
        if self.gradient_regularizer is not None and self._penalty is None:
            with tf.init_scope():
                self._penalty = _of_replica(-1.0, "gradient_penalty")
                self._loss_scale = _of_replica(1.0, "loss_scale")
                self._updates = tf.Variable(0, trainable=False, name="updates", dtype=tf.int64)

    @property
    def gradient_penalty(self) -> float | None:
        """Weight times value of `gradient_regularizer` in the last backward pass, or None."""
        if self._penalty is None or self._penalty.numpy() < 0:
            return None
        return float(self._penalty.numpy())

    def advance(self, x_t: Any, states: Sequence[Any]) -> list[Any]:
        """Runs one timestep without dropout and zoneout, for analyses of the dynamics.

        The gradient is that of ordinary operations: it is not truncated, clipped or recorded.

        Args:
            x_t: Inputs of one timestep, ``(batch, features)``.
            states: The states before it, each ``(batch, units)``: h, and for an LSTM c.

        Returns:
            List of the states after it, of which the first is the output.
        """
        if self.normalization is None:
            return list(self.cell(x_t, list(states), training=False)[1])
        # The gains belong to the layer; its cell alone is the one without normalization.
        cell = self._recurrence()
        weights = as_tensors(self._weights(), self.compute_dtype)
        projected, weights = cell.project(x_t[:, None], weights)
        return list(cell.forward(projected[:, 0], tuple(states), weights)[0])

    def inner_loop(self, sequences, initial_state, mask, training=False, resets=None):
        recurrence = self._recurrence(training)
        self._check_options(recurrence)
        if recurrence is None:
            return super().inner_loop(sequences, initial_state, mask, training, resets)
        problem = self._prepare(sequences, initial_state, mask, resets)
        known = self.cell, recurrence, self._weights(recurrence.centres)
        results = self._run_loop(*self._projected(*known, problem, training=training))
        if self.gradient_regularizer is None or not settings().gradient:
            return results
        return self._find_loss_scale(results)

    def parts(self, training: bool) -> list[Part]:
        why = "the engine does not implement an activation, or the GRU has `reset_after=False`"
        recurrence = self._recurrence(training)
        self._check_options(recurrence)
        return [self._part(self.cell, recurrence, why)]

    def _influential(self) -> tuple[list[Any], bool]:
        return [w for w in self._weights() if w is not None], False

    def _check_options(self, recurrence: Cell | None) -> None:
        """Raises `ValueError` if options do not go together."""
        if self.truncation.diagonal:
            self._check_diagonal(recurrence)
        if recurrence is None:
            self._check_known()

    def _check_diagonal(self, recurrence: Cell | None) -> None:
        """Raises `ValueError` if SnAp-1 cannot follow what happens between units."""
        for name in ("normalization", "gradient_regularizer", "h_detach"):
            if getattr(self, name):
                raise ValueError(
                    f"Layer '{self.name}': truncation=SnAp(1) follows each unit separately, but "
                    f"`{name}` acts between units. Remove one of them."
                )
        if recurrence is None:
            raise ValueError(
                f"Layer '{self.name}': truncation=SnAp(1) needs activations among "
                f"{sorted(ACTIVATION)} with default arguments, and for GRU `reset_after=True`, "
                "since a reset gate before the product makes every unit act on all others. For "
                "full BPTT pass `truncation=None`."
            )

    def _check_known(self) -> None:
        """Raises `ValueError` if an option acts where the path for any cell cannot reach."""
        for name in ("normalization", "gradient_regularizer", "h_detach"):
            if getattr(self, name):
                raise ValueError(
                    f"Layer '{self.name}': `{name}` needs activations among "
                    f"{sorted(ACTIVATION)} with default arguments, and for GRU `reset_after=True`."
                )

    # The regularizer ----------------------------------------------------------------------------

    def _options(self) -> Options:
        more = {"penalty": self.gradient_regularizer, "zoneout": self._zoneout_rates}
        return super()._options()._replace(**more)

    def _find_loss_scale(self, results):
        """Returns `results`; their backward pass sets `_loss_scale`, the factor on the loss.

        The optimizer divides every gradient by the factor that it put on the loss, so that Ω's
        must have it too. The gradient of a zero among the losses is that factor.
        """
        if in_control_flow():
            raise ValueError(
                f"Layer '{self.name}': `gradient_regularizer` adds to the losses of the model, "
                "which is not possible inside a branch or loop of a graph (`tf.cond`, `tf.map_fn`, "
                "`tf.while_loop`). Call the layer outside, or remove the regularizer."
            )
        effects = Effects()
        scale = effects.capture(self._loss_scale)

        @tf.custom_gradient
        def beside_zero(*values):
            def gradient(*upstream):
                *upstream, factor = upstream
                if not is_being_exported():
                    factor *= _replicas()
                    # A loop of the user's own may leave the losses of the layers out.
                    scale.assign(tf.where(factor > 0, factor, 1.0))
                return effects.before(tuple(upstream))

            return (*values, tf.zeros([])), gradient

        *values, zero = beside_zero(*tf.nest.flatten(results))
        self.add_loss(zero)
        return tf.nest.pack_sequence_as(results, values)

    def _penalty_weight(self, effects: Effects) -> Callable[[], tf.Tensor] | None:
        if self.gradient_regularizer is None:
            return None
        updates, scale = effects.capture(self._updates), effects.capture(self._loss_scale)

        def weight():
            # Replicas add up their gradients.
            return self.gradient_regularizer.weight_at(updates.read()) / _replicas() * scale.read()

        return weight

    def _recorder(self, effects: Effects) -> Callable[[Monitor], None]:
        keep = super()._recorder(effects)
        if self.gradient_regularizer is None:
            return keep
        names = "_penalty", "_loss_scale", "_updates"
        penalty, scale, updates = (effects.capture(getattr(self, name)) for name in names)

        def record(measured: Monitor) -> None:
            keep(measured)
            penalty.assign(tf.cast(measured.penalty, tf.float32) / scale.read())
            updates.assign(updates.read() + 1)

        return record

    def changing_variables(self) -> list[tf.Variable]:
        own = [] if self._penalty is None else [self._updates]
        return [*super().changing_variables(), *own]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["normalization"] = normalizations.serialize(self.normalization)
        if self.recurrent_parametrization is not None:
            parametrization = parametrizations.serialize(self.recurrent_parametrization)
            config["recurrent_parametrization"] = parametrization
        regularizer = self.gradient_regularizer
        for name in ("zoneout", "h_detach"):
            if getattr(self, name):
                config[name] = getattr(self, name)
        config["gradient_regularizer"] = (
            None if regularizer is None else keras.saving.serialize_keras_object(regularizer)
        )
        return config


def _replicas() -> int:
    return tf.distribute.get_replica_context().num_replicas_in_sync


def _of_replica(value: float, name: str) -> tf.Variable:
    """A variable whose value is each replica's own there, and the sum over them outside."""
    return tf.Variable(
        value,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
        name=name,
    )
