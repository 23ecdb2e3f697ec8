"""What kbptt uses of Keras without a public name, each with its reason.

Overridden, with no function here: `RNN._create_state_variables`, where a stateful layer makes its
states; kbptt keeps those of training and inference apart (`kbptt.layers.states`).
"""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import keras

from kbptt._fence import Fence

_fence = Fence("keras", checked="3.15.1")

with _fence.importing():
    from keras.src.backend.common.global_state import (
        get_global_attribute,
        set_global_attribute,
    )

    # The mask that Keras's losses and metrics read from a prediction, however it was made.
    from keras.src.backend.common.masking import (
        get_keras_mask as get_keras_mask,
        set_keras_mask as set_keras_mask,
    )
    from keras.src.backend.common.stateless_scope import in_stateless_scope

    # `fit` shuffles what a PyDataset yields unless told not to; an adapter it takes as it is.
    from keras.src.trainers.data_adapters.data_adapter import DataAdapter as DataAdapter


# Layers and models.


def flatten_layers(layer: keras.Layer) -> list[keras.Layer]:
    """`layer` and every layer inside it, at any depth.

    The walk that Keras uses for losses and metrics. The public `Model.layers` has neither the
    layers inside a wrapper nor those held by a user's own layer.
    """
    return _fence.get(layer, "_flatten_layers")()


def first_inputs(layer: keras.Layer) -> list[Any]:
    """The symbolic inputs of the first call of a layer in a functional model.

    The public `layer.input` refuses a layer that is called twice.
    """
    return _fence.get(layer, "_inbound_nodes")[0].input_tensors


@contextlib.contextmanager
def any_timesteps(model: keras.Layer) -> Iterator[None]:
    """A scope in which the functional models in `model` take inputs of any number of timesteps.

    Their graphs run with any, and only the check of the inputs refuses another than that of
    `keras.Input`. A copy of the graph on another `keras.Input` would leave nodes in its layers. The
    public `input_spec` can be set; to set it back to what it was needs its attribute.
    """
    name, missing, kept = "_manual_input_spec", object(), []
    try:
        for one in flatten_layers(model):
            if type(one).input_spec is not keras.Model.input_spec and isinstance(one, keras.Model):
                kept.append((one, vars(one).get(name, missing)))
                one.input_spec = _any_timesteps(one.input_spec)
                _fence.get(one, name)
        yield
    finally:
        for one, spec in kept:
            if spec is missing:
                vars(one).pop(name, None)
            else:
                vars(one)[name] = spec


def _any_timesteps(specs: Any) -> Any:
    if isinstance(specs, (list, tuple)):
        return [_any_timesteps(spec) for spec in specs]
    if specs is None or specs.shape is None or len(specs.shape) < 2:
        return specs
    return keras.layers.InputSpec(
        dtype=specs.dtype,
        shape=(specs.shape[0], None, *specs.shape[2:]),
        axes=specs.axes,
        allow_last_axis_squeeze=specs.allow_last_axis_squeeze,
        name=specs.name,
        optional=specs.optional,
    )


def layer_being_built() -> keras.Layer | None:
    """The innermost layer or cell whose `build` is running, or None.

    An initializer is called with a shape alone, and `LSTMCell` with `unit_forget_bias` calls the
    bias initializer for two parts of the bias, whose shapes are those of smaller cells.
    """
    return next(iter(running_layers()), None)


def running_layers() -> list[keras.layers.Layer]:
    """The layers whose `build` or call is running, from the innermost on."""
    scopes = get_global_attribute("name_scope_stack") or []
    return [scope.caller for scope in reversed(scopes)]


def running(method: str) -> dict[str, Any] | None:
    """The arguments of the innermost `fit`, `evaluate` or `predict` that is running, or None.

    Neither a layer nor a callback is told what a model is trained on, nor data how: by the time
    they are called it is an iterator. The arguments are those of the Python frame.
    """
    frame = inspect.currentframe()
    while frame is not None:
        code, values = frame.f_code, frame.f_locals
        if code.co_name == method and isinstance(values.get("self"), keras.Model):
            names = code.co_varnames[: code.co_argcount]
            if "epoch_iterator" in code.co_varnames:  # Keras's own, which others may call
                return {name: values[name] for name in names if name in values}
        frame = frame.f_back
    return None


def build_for(model: keras.Model, batch: Any) -> None:
    """Makes all variables of a compiled model, those of its metrics and its optimizer too.

    Keras makes them when the first step is traced; a file is restored before it.
    """
    _fence.get(model, "_symbolic_build")(data_batch=batch)


def begin_with_epoch(model: keras.Model, epoch: int | None) -> None:
    """Has the `fit` that calls `on_train_begin` begin with an epoch; None: as it was told.

    What `keras.callbacks.BackupAndRestore` does.
    """
    _fence.get(model, "_initial_epoch")
    model._initial_epoch = epoch


# The call that is running.


def entry_layer() -> keras.Layer | None:
    """The outermost layer or model whose call is running, or None.

    A layer whose options change has to find the models that were traced with the old ones.
    """
    context = get_global_attribute("current_call_ctx")
    return None if context is None else context.entry_layer


def is_symbolic() -> bool:
    """Whether a call only infers shapes and dtypes.

    Public code can open a `keras.StatelessScope`, but not see whether it runs in one.
    """
    return in_stateless_scope()


def autocast_scope() -> Any:
    """The scope that casts variables when they are read, or None."""
    return get_global_attribute("autocast_scope")


@contextlib.contextmanager
def autocast(scope: Any) -> Iterator[None]:
    """A scope in which variables are read as inside `scope`; None: as they are.

    The backward pass calls a cell again, long after the scope of its layer has ended, and the
    weights must reach the loop unrounded.
    """
    before = autocast_scope()
    set_global_attribute("autocast_scope", scope)
    try:
        yield
    finally:
        set_global_attribute("autocast_scope", before)


# Dropout masks of cells. Keras draws one for the whole sequence and keeps it on the cell. The
# backward pass calls the cell on several windows at once, with that mask repeated for each.


def draw_dropout_masks(layer: keras.layers.RNN, step_input: Any, states: Any) -> None:
    """Draws the masks of a recurrent layer's cells for one sequence, as `RNN.call` does."""
    _fence.get(layer, "_maybe_config_dropout_masks")(layer.cell, step_input, states)


def clear_dropout_masks(layer: keras.layers.RNN) -> None:
    """Removes the masks after a sequence, as `RNN.call` does."""
    _fence.get(layer, "_maybe_reset_dropout_masks")(layer.cell)


def dropout_masks(cell: Any) -> list[Any]:
    """The input and the recurrent dropout mask that a `DropoutRNNCell` keeps, None without one.

    Its public methods that return a mask draw one if there is none.
    """
    masks = []
    for name, reset in (
        ("_dropout_mask", "reset_dropout_mask"),
        ("_recurrent_dropout_mask", "reset_recurrent_dropout_mask"),
    ):
        if name not in vars(cell):  # until a mask is drawn or reset
            getattr(cell, reset)()
        masks.append(_fence.get(cell, name))
    return masks


def set_dropout_masks(cell: Any, masks: list[Any]) -> None:
    """Keeps these masks, as `dropout_masks` returns them, on the cell."""
    cell._dropout_mask, cell._recurrent_dropout_mask = masks


# Optimizers.

# Attributes that `Optimizer.__init__` sets and its methods use. An optimizer around an optimizer
# forwards them to the inner one, like the public ones.
OPTIMIZER_STATE = ("_iterations", "_learning_rate", "_trainable_variables")


def built_variables(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that an optimizer was built for, which `apply` updates by default."""
    return _fence.get(optimizer, "_trainable_variables")


# Gradient accumulation. Keras has no public access to the sums, nor to the count of batches of
# which `optimizer.iterations` counts only every `gradient_accumulation_steps`-th.


def accumulated_batches(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """The number of batches that an optimizer has seen."""
    return _fence.get(optimizer, "_iterations")


def accumulated_gradient(
    optimizer: keras.optimizers.Optimizer, weight: keras.Variable
) -> keras.Variable:
    """The sum of a weight's gradients since the last update, of a built optimizer."""
    index = _fence.get(optimizer, "_get_variable_index")(weight)
    return _fence.get(optimizer, "_accumulated_gradients")[index]
