"""The loops for any cell: a Keras cell as a function of tensors."""

import contextlib
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops, tree

from kbptt import _keras
from kbptt.cells import Cell, Weights
from kbptt.engine import (
    AutodiffLoop,
    CellStep,
    CPULoop,
    Dropout,
    Options,
    TensorFlowLoop,
    settings,
)
from kbptt.layers.parametrized import ParametrizedCell, exact_kernel, holding
from kbptt.layers.truncated import TruncatedLayer


class Part(NamedTuple):
    """A recurrent loop of a layer.

    Attributes:
        cell: The Keras cell.
        recurrence: Its equations, or None for any cell.
        options: `Options` of the loop.
        dtype: Of what is carried from step to step.
        why: Why the C++ loops do not run it; None if they do.
    """

    cell: Any
    recurrence: Cell | None
    options: Options
    dtype: tf.DType
    why: str | None


class CellLayer(TruncatedLayer):
    """Mixin that runs the layer's cell through the engine, whatever the cell does."""

    def inner_loop(self, sequences, initial_state, mask, training=False, resets=None):
        problem = self._prepare(sequences, initial_state, mask, resets)
        # A cell is called with its own dtype, whatever carries its states from call to call.
        states = [tf.as_dtype(self.cell.compute_dtype)] * len(tree.flatten(initial_state))
        dtypes = sequences.dtype, states
        last, outputs, final = self._run_any(
            self.cell, self.state_size, problem, dtypes, training=training
        )
        return last, outputs, self._pack(final)

    def _run_any(self, cell, state_size, problem, dtypes, *, training, stacked=None):
        """Runs a cell of which nothing is known but its call.

        Args:
            cell: The cell.
            state_size: Nested list of the widths of its states.
            problem: What `_prepare` returns.
            dtypes: Of the inputs and of each state, as Keras hands them to the cell.
            training: Boolean.
            stacked: The `Stacked` of a cell that is a part of the layer's, or None.
        """
        x, state, mask, resets = problem
        features = tuple(x.shape[2:])
        shape = [*x.shape[:2], _product(features)]
        x = tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], _product(features)])
        x.set_shape(shape)
        cell = CellFunction(cell, state_size, features, training, *dtypes)
        weights = cell.weights(x[:, 0], state)
        output, hidden, changes = cell.probe(x[:, 0], state, weights)
        if self._influence is not None:
            if cell.mask_count:
                raise ValueError(
                    f"Layer '{self.name}': truncation=SnAp(1) cannot carry the influence through a "
                    "cell that has its own dropout, because the masks differ from row to row. Use "
                    "keras.layers.Dropout before the layer instead."
                )
            state = self._influence.attach(x, state, weights)
        if output is None:
            # Keras repeats the last output at masked steps; it starts as zeros.
            example, _ = cell(x[:, 0], state, weights)
            nothing = tf.zeros_like(example)
            state += (nothing,)
            if resets is not None:
                resets = resets._replace(states=(*resets.states, nothing))
        if changes or settings().differentiable:
            # Once: the loop has to call the cell with the variables themselves.
            step = CellStep(cell.stateful_call, output, hidden, cell.states)
            loop = AutodiffLoop(step, self._options())
        else:
            step = CellStep(cell, output, hidden, cell.states)
            # One loop for each way the cell can be called, since compiling costs.
            way = bool(training), cell.mask_count, cell.dtype, *cell.state_dtypes, stacked
            loop = self._loop("tensorflow", lambda options: TensorFlowLoop(step, options), *way)
        last, outputs, final = self._run_loop(loop, x, state, weights, mask, resets, stacked)
        return last, outputs, final[: cell.states]

    def _projected(self, cell, recurrence, weights, problem, *, training, stacked=None):
        """Arguments of `_run_loop` for a Keras cell whose equations the engine knows.

        Args:
            cell: The Keras cell, with its dropout masks.
            recurrence: The `kbptt.cells.Cell` with those equations.
            weights: The `kbptt.cells.Weights`, as variables or tensors.
            problem: What `_prepare` returns.
            training: Boolean.
            stacked: The `Stacked` of a cell that is a part of the layer's, or None.
        """
        x, start, mask, resets = problem
        dropout = Dropout()
        if training:
            x, dropout = drop_out(cell, x, start[0])
        dtype = self._loop_dtype()
        weights = as_tensors(weights, dtype)
        if self._influence is not None:
            start = self._influence.attach(x, start, weights, dropout.x_masks)
        key = recurrence.name, recurrence.activations, recurrence.centres, stacked
        if settings().differentiable:
            loop = AutodiffLoop(recurrence, self._options())
        elif self._is_compiled(recurrence):
            current = self._options if stacked is None else None
            loop = self._loop("cpu", lambda o: CPULoop(recurrence, o, current), *key)
            loop.reads_windows_late = stacked is None
        else:
            loop = self._loop("tensorflow", lambda o: TensorFlowLoop(recurrence, o), *key)
        if loop.time_major:
            # Half precision projects the inputs as Keras does.
            kernel = tf.cast(weights.kernel, self.compute_dtype)
            weights = weights._replace(kernel=kernel)
            x, weights = recurrence.project(x, weights, dropout.x_masks)
        x = tf.cast(x, dtype)
        return loop, x, start, weights, mask, resets, stacked, dropout

    def _is_compiled(self, recurrence: Cell) -> bool:
        """Whether the C++ loops run these equations here."""
        return self._why_not_compiled(recurrence) is None

    def _why_not_compiled(self, recurrence: Cell) -> str | None:
        if settings().differentiable:
            return "inside `kbptt.engine.differentiable()`"
        return CPULoop.why_not(recurrence, self._options(), self._loop_dtype())

    def parts(self, training: bool) -> list[Part]:
        """The loops that a call runs, one after the other, as shown by `kbptt.explain`."""
        raise NotImplementedError

    def _part(self, cell: Any, recurrence: Cell | None, why: str) -> Part:
        """`why` is the reason if there is no `recurrence`."""
        options, dtype = self._options(), self._loop_dtype()
        reason = why if recurrence is None else self._why_not_compiled(recurrence)
        return Part(cell, recurrence, options, dtype, reason)

    def _pack(self, final):
        """The flat states in the structure of the cell."""
        return tree.pack_sequence_as(self.state_size, list(final))


def drop_out(cell: Any, x: tf.Tensor, h: tf.Tensor) -> tuple[tf.Tensor, Dropout]:
    """x without what is dropped for all gates alike, and what is dropped in the loop.

    Args:
        cell: The Keras cell, with its dropout masks.
        x: Inputs ``(batch, timesteps, features)``.
        h: Initial hidden state ``(batch, units)``.
    """
    masks = cell.get_dropout_mask(x[:, 0]), cell.get_recurrent_dropout_mask(h)
    x_masks, h_masks = (
        None if m is None else tf.cast(tf.stack(tf.nest.flatten(m)), h.dtype) for m in masks
    )
    if x_masks is not None and x_masks.shape[0] == 1:
        return x * tf.cast(x_masks[0][:, None], x.dtype), Dropout(None, h_masks)
    return x, Dropout(x_masks, h_masks)


def as_tensors(weights: Weights, dtype: Any) -> Weights:
    """The weights as tensors of this dtype."""
    return Weights(
        *(None if w is None else tf.cast(ops.convert_to_tensor(w), dtype) for w in weights)
    )


class CellFunction:
    """A cell as a function of tensors alone: ``(x, flat state, weights) -> (output, flat state)``.

    The weights are the cell's variables, the kernels that are computed from them, and the dropout
    masks, which Keras draws once for the whole sequence and keeps on the cell.

    Args:
        cell: A Keras cell: a layer or any object with ``state_size`` that can be called.
        state_size: Nested list of the widths of the states.
        features: Shape of the inputs of one sample and timestep.
        training: Boolean.
        dtype: Of the inputs as Keras hands them to the cell. The loop computes with floats, and
            carries states of half precision in float32.
        state_dtypes: Likewise of each state.
    """

    def __init__(
        self,
        cell: Any,
        state_size: Any,
        features: tuple[Any, ...],
        training: bool,
        dtype: Any,
        state_dtypes: list[Any],
    ) -> None:
        self.cell = cell
        self.dtype = dtype
        self.state_dtypes = state_dtypes
        self.state_size = state_size
        self.features = features
        self.states: int = len(tree.flatten(state_size))
        self.is_layer: bool = isinstance(cell, keras.layers.Layer)
        # A layer casts its variables itself; other cells rely on the scope of the RNN layer.
        self.scope: Any = None if self.is_layer else _keras.autocast_scope()
        self.training: bool = bool(training)
        self.arguments: dict[str, Any] = {}
        if self.is_layer and "training" in cell.call_signature_parameters:
            self.arguments["training"] = training
        cells = _keras.flatten_layers(cell) if self.is_layer else [cell]
        self.parametrized: list[Any] = [c for c in cells if isinstance(c, ParametrizedCell)]
        self.masked_cells: list[Any] = [
            c
            for c in cells
            if hasattr(c, "get_dropout_mask") and (c.dropout or c.recurrent_dropout)
        ]
        self.mask_count: int = 0
        self.mask_structure: list[Any] = []

    def weights(self, x: tf.Tensor, state: tuple[Any, ...]) -> tuple[Any, ...]:
        """The variables, computed kernels and dropout masks as tensors."""
        variables = ()
        if self.is_layer:
            # In an order that freezing a part of the cell does not change.
            variables = tuple(v for v in self.cell.variables if is_float(v))
        if self.training and any(
            c.dropout and _keras.dropout_masks(c)[0] is None for c in self.masked_cells
        ):
            # A wrapper hides its cell from Keras, which then makes the masks inside the loop.
            self.stateful_call(x, state)
        # Keras clears the masks after the forward pass; the backward pass needs their structure.
        self.mask_structure = list(map(_keras.dropout_masks, self.masked_cells))
        masks = tuple(m for m in tree.flatten(self.mask_structure) if m is not None)
        self.mask_structure = tree.map_structure(lambda m: m is not None, self.mask_structure)
        self.mask_count = len(masks)
        with _keras.autocast(None):
            kernels = map(exact_kernel, self.parametrized)
            return (*(tf.convert_to_tensor(v.value) for v in variables), *kernels, *masks)

    def probe(
        self, x: tf.Tensor, state: tuple[Any, ...], weights: tuple[Any, ...]
    ) -> tuple[int | None, int, bool]:
        """Returns the state that is the output, the hidden state, and whether variables change."""
        output, new, changes = self._call(x, state, weights)
        same = [index for index, s in enumerate(new) if s is output]
        if same:
            return same[0], same[0], changes
        # The first state of the topmost cell, by the convention of all Keras cells.
        top = self.state_size[-1] if isinstance(self.state_size, (list, tuple)) else None
        hidden = self.states - len(top) if isinstance(top, (list, tuple)) else 0
        return None, hidden, changes

    def __call__(
        self, x: tf.Tensor, state: tuple[Any, ...], weights: tuple[Any, ...]
    ) -> tuple[tf.Tensor, tuple[Any, ...]]:
        output, new, _ = self._call(x, state, weights)
        return output, new

    def stateful_call(
        self, x: tf.Tensor, state: tuple[Any, ...], weights: tuple[Any, ...] = ()
    ) -> tuple[tf.Tensor, tuple[Any, ...]]:
        """Calls the cell as Keras does, with its own variables instead of `weights`."""
        x, states = self._unflatten(x, state)
        with _keras.autocast(self.scope):
            output, new = self.cell(x, states, **self.arguments)
        return self._flatten(output, new, state[0].dtype)

    def _call(self, x, state, weights):
        rows = tf.shape(x)[0]
        inputs, states = self._unflatten(x, state)
        count = len(weights) - self.mask_count
        given, masks = list(weights[:count]), list(weights[count:])
        tiled = _tiled_masks(self.masked_cells, self.mask_structure, masks, rows)
        with contextlib.ExitStack() as scopes:
            scopes.enter_context(tiled)
            scopes.enter_context(_keras.autocast(self.scope))
            for one in reversed(self.parametrized):
                scopes.enter_context(holding(one, given.pop()))
            if not self.is_layer:
                return *self._flatten(*self.cell(inputs, states), state[0].dtype), False
            # Other variables are the states of random numbers, which no gradient concerns.
            floats = filter(is_float, self.cell.variables)
            given = list(zip(floats, given, strict=True))
            with keras.StatelessScope(given) as scope:
                output, new = self.cell(inputs, states, **self.arguments)
        given = {id(v): value for v, value in given}
        changes = any(
            scope.get_current_value(v) is not given.get(id(v)) for v in self.cell.variables
        )
        return *self._flatten(output, new, state[0].dtype), changes

    def _unflatten(self, x, state):
        x = tf.cast(tf.reshape(x, [tf.shape(x)[0], *self.features]), self.dtype)
        state = map(tf.cast, state, self.state_dtypes)
        return x, tree.pack_sequence_as(self.state_size, list(state))

    def _flatten(self, output, new, dtype):
        new = tuple(tree.flatten(new))
        # Casts keep the identity of output and state, which marks them as one tensor.
        cast = {id(s): tf.cast(s, dtype) for s in (output, *new)}
        return cast[id(output)], tuple(cast[id(s)] for s in new)


def is_float(variable: keras.Variable) -> bool:
    return tf.as_dtype(variable.dtype).is_floating


def _product(shape: tuple) -> int:
    return int(tf.TensorShape(shape).num_elements() or 1)


class _tiled_masks:
    """Puts the dropout masks on the cells, repeated for the windows stacked into the batch."""

    def __init__(self, cells: list, structure: list, masks: list, rows: tf.Tensor) -> None:
        self.cells = cells
        given = iter(masks)

        def tiled(present):
            if not present:
                return None
            mask = next(given)
            return tf.tile(mask, [rows // tf.shape(mask)[0], 1])

        self.masks = tree.map_structure(tiled, structure)

    def __enter__(self) -> None:
        self.saved = list(map(_keras.dropout_masks, self.cells))
        self._put(self.masks)

    def __exit__(self, *_: Any) -> None:
        self._put(self.saved)

    def _put(self, masks: list) -> None:
        for cell, kept in zip(self.cells, masks, strict=True):
            _keras.set_dropout_masks(cell, kept)
