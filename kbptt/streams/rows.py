"""The states of the rows of a stream, carried from window to window inside the traced steps.

Layers do not depend on streams. While a step of a model runs, `Rows` replaces their states:
`kbptt.layers.call.Carry`. It keeps them in its own variables, so the model has no state outside a
step.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from keras import tree

from kbptt import _keras
from kbptt.data.windows import Places
from kbptt.layers.call import Beginning
from kbptt.streams.layers import check_called_once, output_width, repeat_before


class _Window:
    """A window as one replica reads it.

    Attributes:
        first: int32 ``(rows, 1)``, the first timestep that belongs to a sequence.
        stop: int32 ``(rows, 1)``, the timestep after the last one.
        fresh: Boolean ``(rows, 1)``: whether states are those of a fresh sequence before `first`.
        real: int64, how many sample weights of all replicas are not 0.
        after: For each layer that was called the states to carry on.
        masked: The layers that the model itself gives a mask.
        last: For these the last output.
        influence: For each layer that carries it the influence of its weights on the states.
    """

    def __init__(
        self, first: tf.Tensor, stop: tf.Tensor, fresh: tf.Tensor, real: tf.Tensor
    ) -> None:
        self.first = first
        self.stop = stop
        self.fresh = fresh
        self.real = real
        self.after: dict[Any, list[tf.Tensor]] = {}
        self.masked: set[Any] = set()
        self.last: dict[Any, tf.Tensor] = {}
        self.influence: dict[Any, tf.Tensor] = {}


class Rows:
    """Carries the states of a model's layers: a `Carry` for all of them.

    Args:
        layers: The recurrent kbptt layers, built.
        data: The `kbptt.data.Streams`.
        strategy: The `tf.distribute.Strategy`; each replica keeps its share of the rows.
        trained: Whether the steps train: then the influence of weights on states is carried, too.

    Attributes:
        burn_in: See `Carry`.
        length: See `Carry`.
    """

    def __init__(
        self, layers: Sequence[Any], data: Any, strategy: Any, trained: bool = False
    ) -> None:
        self.layers: list[Any] = list(layers)
        self.trained: bool = trained
        self.packed: bool = data.pack
        self.timesteps: int = data.context + data.length
        self.burn_in: int = 0 if data.context_gradient else data.context
        self.length: int | None = data.length if data.context else None
        self.rows: int = data.rows // strategy.num_replicas_in_sync
        self._windows: dict[Any, _Window] = {}  # for each replica the one that is being traced
        shape = len(data), data.rows
        with strategy.scope():
            self._first = tf.Variable(tf.zeros(shape, tf.int32), trainable=False)
            self._stop = tf.Variable(tf.zeros(shape, tf.int32), trainable=False)
            self._fresh = tf.Variable(tf.zeros(shape, tf.bool), trainable=False)
            self._real = tf.Variable(tf.zeros(shape[:1], tf.int64), trainable=False)
            self._window = _own(tf.zeros([], tf.int64))
            self._states: dict[Any, list[tf.Variable]] = {
                layer: [
                    _own(tf.zeros(state.shape, layer.variable_dtype))
                    for state in tree.flatten(layer.get_initial_state(self.rows))
                ]
                for layer in self.layers
            }
            self._last: dict[Any, tf.Variable] = {
                layer: _own(tf.zeros([self.rows, output_width(layer)], layer.variable_dtype))
                for layer in self.layers
            }
            self._influence: dict[Any, tf.Variable] = {
                layer: _own(tf.zeros([self.rows, size], _whole(layer.variable_dtype)))
                for layer, size in self._influence_sizes().items()
            }

    def _influence_sizes(self) -> dict[Any, int]:
        sizes = {layer: layer.influence_size() for layer in self.layers if self.trained}
        return {layer: size for layer, size in sizes.items() if size}

    # Between steps ----------------------------------------------------------------------------

    def start(self, places: Places, window: int, afresh: bool = False) -> None:
        """Begins an epoch at one of its windows.

        Args:
            places: The `Places` of the epoch.
            window: Number of the window.
            afresh: Whether all rows start from the states of a fresh sequence there.
        """
        fresh = places.fresh.copy()
        fresh[window] |= afresh
        self._first.assign(places.first)
        self._stop.assign(places.stop)
        self._fresh.assign(fresh)
        self._real.assign(places.real)
        for value in _values(self._window):
            value.assign(window)

    def fits(self) -> bool:
        """Whether the layers carry what they did when this was made."""
        now = self._influence_sizes()
        return now == {layer: v.shape[1] for layer, v in self._influence.items()}

    def states(self) -> list[tf.Tensor]:
        """Of each layer each state ``(rows, width)``, rows of all replicas."""
        return [_rows(v) for states in self._states.values() for v in states]

    def everything(self) -> list[tf.Tensor]:
        """All that is carried on: `states`, and of each layer the last output and influence."""
        return [_rows(variable) for variable in self._variables()]

    def set_everything(self, values: Sequence[Any]) -> None:
        """Sets what `everything` returned."""
        for variable, value in zip(self._variables(), values, strict=True):
            parts = _values(variable)
            for part, share in zip(parts, tf.split(value, len(parts)), strict=True):
                part.assign(share)

    def _variables(self) -> list[tf.Variable]:
        states = [v for states in self._states.values() for v in states]
        return [*states, *self._last.values(), *self._influence.values()]

    @contextlib.contextmanager
    def carrying(self) -> Iterator[None]:
        """A scope in which the layers' states are carried here."""
        with contextlib.ExitStack() as stack:
            for layer in self.layers:
                stack.enter_context(layer.overriding(carry=self))
            yield

    # In a step --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def window(self, keep: bool = True) -> Iterator[None]:
        """A step of one replica: at its end the states are kept and the next window comes.

        Without `keep` nothing is, and the next step reads the same window.
        """
        number = replica()
        mine = slice(number * self.rows, (number + 1) * self.rows)
        index = self._window.read_value()

        def now(table: tf.Variable) -> tf.Tensor:
            return tf.gather(table, index)[mine, None]

        self._windows[number] = _Window(
            now(self._first), now(self._stop), now(self._fresh), tf.gather(self._real, index)
        )
        try:
            yield
            window = self._windows[number]
        finally:
            del self._windows[number]
        if not keep:
            return
        for layer, states in window.after.items():
            for variable, state in zip(self._states[layer], states, strict=True):
                variable.assign(tf.cast(state, variable.dtype))
        for layer, output in window.last.items():
            self._last[layer].assign(tf.cast(output, self._last[layer].dtype))
        for layer, influence in window.influence.items():
            self._influence[layer].assign(influence)
        self._window.assign(index + 1)

    def real_steps(self) -> tf.Tensor:
        """How many sample weights of the window, those of all replicas, are not 0: int64."""
        return self._windows[replica()].real

    def begin(
        self, layer: Any, sequences: Any, fresh: Any, mask: Any, given: bool, resets: bool
    ) -> Beginning:
        if self.packed and not resets:
            raise ValueError(
                f"Layer '{layer.name}' expected `resets`, since sequences begin inside the windows "
                "of Streams(pack=True): pass it the second input of the model as `resets=`."
            )
        window = self._windows.get(replica())
        if window is None:  # shapes alone, as Keras infers them
            return Beginning(fresh, mask)
        self._check(layer, sequences, window)
        carried = [
            tf.where(window.fresh, tf.cast(start, variable.dtype), variable.read_value())
            for start, variable in zip(tree.flatten(fresh), self._states[layer], strict=True)
        ]
        timesteps = tf.range(self.timesteps)[None]
        inside = (window.first <= timesteps) & (timesteps < window.stop)
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        if mask is not None:
            inside &= tf.cast(mask, tf.bool)
            window.masked.add(layer)
        influence = None
        if layer in self._influence:
            variable = self._influence[layer]
            influence = tf.where(window.fresh, tf.zeros_like(variable), variable.read_value())
        # The sample weights of the other timesteps are 0.
        states = tree.pack_sequence_as(fresh, carried)
        return Beginning(states, inside, holds=mask is None, influence=influence)

    def end(self, layer: Any, states: Any, influence: Any) -> None:
        window = self._windows.get(replica())
        # A second evaluation of the same step keeps nothing.
        if window is not None and not _keras.is_symbolic():
            window.after[layer] = [tf.stop_gradient(state) for state in tree.flatten(states)]
            if influence is not None:
                window.influence[layer] = influence

    def show(self, layer: Any, last: Any, outputs: Any, mask: Any) -> tuple[Any, Any]:
        window = self._windows.get(replica())
        if window is None or layer not in window.masked or layer.zero_output_for_mask:
            return last, outputs
        # The mask of the model itself: its first timesteps repeat the output before the window.
        variable = self._last[layer]
        before = tf.where(window.fresh, tf.zeros_like(variable), variable.read_value())
        last, outputs = repeat_before(layer, tf.cast(before, last.dtype), last, outputs, mask)
        if not _keras.is_symbolic():
            window.last[layer] = tf.stop_gradient(last)
        return last, outputs

    def _check(self, layer: Any, sequences: Any, window: _Window) -> None:
        if not _keras.is_symbolic():
            check_called_once("StreamState", layer, layer in window.after)
        expected, shape = (self.rows, self.timesteps), tuple(sequences.shape[:2])
        if any(size not in (None, right) for size, right in zip(shape, expected, strict=True)):
            raise ValueError(
                f"Layer '{layer.name}' expected the windows of StreamState's Streams, (batch, "
                f"timesteps) = {expected}. Received {shape}. Layers between the data and it must "
                "preserve batch and timesteps, and `fit` must get the same Streams."
            )


def _own(value: tf.Tensor) -> tf.Variable:
    """A variable of which each replica has its own value."""
    return tf.Variable(
        value,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _whole(dtype: str) -> tf.DType:
    """Not half precision, in which sums over time are lost."""
    return tf.float32 if tf.as_dtype(dtype).size < 4 else tf.as_dtype(dtype)


def _values(variable: Any) -> Sequence[Any]:
    """The variable of each replica."""
    return getattr(variable, "values", None) or [variable]


def _rows(variable: Any) -> tf.Tensor:
    return tf.concat([value.read_value() for value in _values(variable)], 0)


def replica() -> int:
    """The number of the replica whose step is running."""
    context = tf.distribute.get_replica_context()
    number = 0 if context is None else context.replica_id_in_sync_group
    return int(tf.get_static_value(number) if tf.is_tensor(number) else number)
