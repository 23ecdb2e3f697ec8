"""Cells whose recurrent kernel is computed from a parameter."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kbptt import _blocks, _gates, _keras
from kbptt.parametrizations import Parametrization
from kbptt.regularizers import Orthogonality

# Of each cell by its id the kernel that was computed for the call that is running.
_HELD: ContextVar[Mapping[int, Any]] = ContextVar("kernels", default=MappingProxyType({}))

# Constant on orthogonal matrices, or what a parametrization promises anyway.
_MEANINGLESS = Orthogonality, keras.regularizers.OrthogonalRegularizer, keras.regularizers.L2


class ParametrizedCell:
    """Mixin in front of a Keras cell: `recurrent_kernel` is computed whenever it is read.

    The weight that the cell's `build` makes for it becomes two, in the same shape: the trainable
    `recurrent_kernel_parameter`, zeros at first, and `recurrent_kernel_base`, the initial kernel.
    Assigning a kernel, such as that of a layer trained without parametrization, restarts it from
    the nearest orthogonal one.
    """

    recurrent_parametrization: Parametrization
    recurrent_kernel_parameter: Any
    recurrent_kernel_base: Any

    def add_weight(self, *args: Any, name: str | None = None, **options: Any) -> Any:
        make: Any = super()
        if name != "recurrent_kernel":
            return make.add_weight(*args, name=name, **options)
        initializer = options.pop("initializer")
        regularizer = options.pop("regularizer", None)
        cell: Any = self
        self.recurrent_kernel_base = make.add_weight(
            *args,
            name=f"{name}_base",
            initializer=lambda shape, dtype=None: _orthogonal(initializer, shape, dtype),
            trainable=False,
            dtype="float64" if cell.variable_dtype == "float64" else "float32",
            **options,
        )
        parameter = make.add_weight(*args, name=f"{name}_parameter", initializer="zeros", **options)
        if regularizer is not None:
            parameter.regularizer = lambda value: regularizer(self._kernel(value))
        return parameter

    @property
    def recurrent_kernel(self) -> Any:
        """The kernel ``(units, gates * units)``, in the dtype that a weight is read in."""
        return ops.cast(exact_kernel(self), self.recurrent_kernel_parameter.dtype)

    @recurrent_kernel.setter
    def recurrent_kernel(self, value: Any) -> None:
        if not hasattr(self, "recurrent_kernel_parameter"):
            # `build` of the Keras cell, with what `add_weight` made.
            self.recurrent_kernel_parameter = value
            return
        base = self.recurrent_kernel_base
        value = ops.convert_to_tensor(value)
        if tuple(value.shape) != tuple(base.shape):
            raise ValueError(
                f"`recurrent_kernel` expected the shape {tuple(base.shape)}, for every gate's "
                f"block (units, units). Received the shape {tuple(value.shape)}."
            )
        if not bool(ops.all(ops.isfinite(value))):
            raise ValueError("`recurrent_kernel` expected finite numbers. Received NaN or Inf.")
        base.assign(_orthogonal(lambda *_, **__: value, base.shape, base.dtype))
        self.recurrent_kernel_parameter.assign(ops.zeros(base.shape))

    def _kernel(self, parameter: Any) -> Any:
        with _keras.autocast(None):
            base = tf.convert_to_tensor(self.recurrent_kernel_base)
            parameter = tf.convert_to_tensor(parameter)
        return self.recurrent_parametrization.kernel(parameter, base)

    def compute_kernel(self) -> Any:
        """The kernel in float32 or float64, from the present values of the weights."""
        return self._kernel(self.recurrent_kernel_parameter)


def parametrize(cell: Any, parametrization: Parametrization) -> None:
    """Makes a Keras cell that is not built yet compute its recurrent kernel."""
    # As torch.nn.utils.parametrize does: whoever reads the attribute gets the kernel.
    cell.__class__ = _parametrized(type(cell))
    cell.recurrent_parametrization = parametrization


@functools.cache
def _parametrized(kind: type) -> type:
    return type(kind.__name__, (ParametrizedCell, kind), {"__module__": kind.__module__})


def check(name: str, cell: Any) -> None:
    """Raises `ValueError` if a cell has a constraint or regularizer that is meaningless here."""
    given = {
        "recurrent_constraint": cell.recurrent_constraint,
        "recurrent_regularizer": cell.recurrent_regularizer,
    }
    for argument, value in given.items():
        constrained = argument == "recurrent_constraint" and value is not None
        constrained |= isinstance(value, keras.regularizers.L1L2) and not value.l1
        if constrained or isinstance(value, _MEANINGLESS):
            raise ValueError(
                f"Layer '{name}': with `recurrent_parametrization` the recurrent kernel is "
                f"orthogonal at every step. Expected {argument}=None. Received: "
                f"{argument}={value!r}. Leave one of the two out."
            )


def exact_kernel(cell: Any) -> Any:
    """The recurrent kernel of a cell, not rounded to half precision where it is computed."""
    if not isinstance(cell, ParametrizedCell):
        return cell.recurrent_kernel
    held = _HELD.get().get(id(cell))
    return cell.compute_kernel() if held is None else held


@contextlib.contextmanager
def holding(cell: Any, kernel: Any = None) -> Iterator[None]:
    """A scope in which the recurrent kernel of a cell is computed once, or is `kernel`.

    Of a cell without parametrization it stays what it is.
    """
    if not isinstance(cell, ParametrizedCell):
        yield
        return
    kernel = exact_kernel(cell) if kernel is None else kernel
    token = _HELD.set({**_HELD.get(), id(cell): kernel})
    try:
        yield
    finally:
        _HELD.reset(token)


def _orthogonal(initializer: Any, shape: Any, dtype: Any) -> Any:
    """An initial kernel; of a block that is not orthogonal the nearest that is."""
    _, _, gates = _gates.split(shape, square=True)
    blocks = _blocks.apart(ops.cast(initializer(shape, dtype=dtype), dtype), gates)
    # Twice what rounding n² elements of size 1/√n leaves.
    rounding = float(np.finfo(dtype).eps) * shape[0] ** 0.5
    exact = _blocks.distance_from_orthogonal(blocks) < rounding
    nearest = _blocks.where_finite(_blocks.polar, blocks)
    return _blocks.joined(ops.where(exact[:, None, None], blocks, nearest), dtype)
