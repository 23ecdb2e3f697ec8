"""The methods that an ablation can name: declarative entries, combined with "+".

An entry holds what a method adds to the baseline: arguments of the recurrent layers, callbacks,
arguments of the optimizer. It is plain data (names, numbers, and references to objects by import
path), so it can be hashed, stored and sent to a different machine, and importing this module
imports neither Keras nor TensorFlow.

```python
from kbptt import methods

methods.register(
    methods.Method(
        "clip_tight",
        "clip the global norm at 0.1",
        callbacks=(methods.ref("kbptt.callbacks:ClipByGlobalNorm", threshold=0.1),),
    )
)
methods.get("orthogonal+clip_tight")
```
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kbptt._checks import did_you_mean
from kbptt.tasks.model import CELLS

# Keras's default for recurrent kernels is orthogonal, which would already be a method.
BASE_LAYER = {"recurrent_initializer": "glorot_uniform"}

_OBJECT, _CONFIG = "object", "config"


def ref(path: str, **config: Any) -> dict[str, Any]:
    """A reference to an object that is created when it is needed.

    Args:
        path: String "module:name" of a class or function.
        **config: Its keyword arguments, of types that JSON can hold.
    """
    return {_OBJECT: path, _CONFIG: config}


@dataclasses.dataclass(frozen=True)
class Method:
    """What a method adds to the baseline.

    Args:
        name: String. Any characters but "+" and ",".
        description: String, one line.
        layer: Mapping of arguments of every recurrent layer. A value is anything JSON can hold, or
            a `ref`. "$timesteps" stands for the length of the task's sequences, "$inputs" for some
            of its training sequences.
        cell_layer: Mapping from the name of a cell to further arguments for that cell alone.
        callbacks: Sequence of `ref`s, or of classes and functions (stored by their import path)
            that are called without arguments. They run in this order.
        optimizer: Mapping of arguments of the optimizer.
        model: Sequence of `ref`s to functions `model -> model`, applied before compiling.
        cells: Sequence of the cells that the method is for, or `None` (default) for every cell.
    """

    name: str
    description: str = ""
    layer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    callbacks: Sequence[Any] = ()
    optimizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: Sequence[Any] = ()
    cell_layer: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    cells: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise _invalid("name", "a non-empty string", self.name)
        if not isinstance(self.description, str):
            raise _invalid("description", "a string", self.description)
        for argument in ("layer", "optimizer", "cell_layer"):
            value = getattr(self, argument)
            if not isinstance(value, Mapping):
                raise _invalid(argument, "a mapping from arguments to values", value)
        for cell, arguments in self.cell_layer.items():
            if cell not in CELLS or not isinstance(arguments, Mapping):
                expected = f"a mapping from {', '.join(CELLS)} to mappings of arguments"
                raise _invalid("cell_layer", expected, self.cell_layer)
        cells = () if self.cells is None else self.cells
        if not _is_sequence(cells) or any(cell not in CELLS for cell in cells):
            raise _invalid("cells", f"None or a sequence of {', '.join(CELLS)}", cells)
        for argument in ("callbacks", "model"):
            if not _is_sequence(getattr(self, argument)):
                raise _invalid(argument, "a list or tuple of references", getattr(self, argument))
            references = tuple(_reference(value) for value in getattr(self, argument))
            object.__setattr__(self, argument, references)
        for argument in ("layer", "optimizer"):
            object.__setattr__(self, argument, dict(getattr(self, argument)))

    def definition(self, cell: str) -> dict[str, Any]:
        """What the method does to a cell, without the method's name, in JSON types."""
        return {
            "layer": {**self.layer, **self.cell_layer.get(cell, {})},
            "callbacks": list(self.callbacks),
            "optimizer": dict(self.optimizer),
            "model": list(self.model),
        }


def make(value: Any, known: Mapping[str, Any] | None = None) -> Any:
    """Returns the object that a `ref` stands for; any other value as it is.

    Args:
        value: Anything.
        known: Values for words such as "$timesteps", the length of the task's sequences, which is
            unknown when a method is declared. Of a function, what it returns.
    """
    known = known or {}
    if isinstance(value, str):
        found = known.get(value, value)
        return found() if callable(found) else found
    if not (isinstance(value, Mapping) and set(value) == {_OBJECT, _CONFIG}):
        return value
    return find(value[_OBJECT])(**{k: make(v, known) for k, v in value[_CONFIG].items()})


def find(path: str) -> Any:
    """Imports the object at "module:name"."""
    module, _, name = str(path).partition(":")
    if not module or not name or module.startswith("."):
        raise ValueError(f"Expected an import path 'module:name'. Received: {path!r}.")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"Cannot import {path!r}: {error}.") from error
    return found


def register(method: Method) -> Method:
    """Registers a method under its name, replacing any earlier one."""
    if not isinstance(method, Method):
        raise _invalid("method", "a `kbptt.methods.Method`", method)
    if "+" in method.name or "," in method.name:
        raise ValueError(
            "Invalid value for argument `name`. Expected a name without '+' and ',', which combine "
            f"and separate methods. Received: name={method.name!r}."
        )
    registered[method.name] = method
    return method


def names() -> list[str]:
    """Names of the registered methods, in the order of registration."""
    return list(registered)


def get(name: str | Method) -> Method:
    """Returns a method by name; names joined by "+" are combined.

    Raises:
        ValueError: for an unknown name, and for two methods that give one argument two values.
    """
    if isinstance(name, Method):
        return name
    parts = [part.strip() for part in name.split("+")] if isinstance(name, str) else [name]
    for part in parts:
        if not isinstance(part, str) or part not in registered:
            hint = did_you_mean(part, registered)
            raise ValueError(
                f"Unknown method: {part!r}{hint}. The methods are: {', '.join(names())}; "
                "join them with '+' to combine them."
            )
        if parts.count(part) > 1:
            raise ValueError(f"Method {part!r} is named twice in {name!r}.")
    methods = [registered[part] for part in parts]
    return methods[0] if len(methods) == 1 else _combine(methods)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _invalid(argument: str, expected: str, value: Any) -> ValueError:
    return ValueError(
        f"Invalid value for argument `{argument}`. Expected {expected}. "
        f"Received: {argument}={value!r} (of type {type(value).__name__})."
    )


def _combine(methods: Sequence[Method]) -> Method:
    merged: dict[str, dict[str, Any]] = {"layer": {}, "optimizer": {}}
    merged |= {f"{cell} layer": {} for method in methods for cell in method.cell_layer}
    setter: dict[tuple[str, str], str] = {}
    for method in methods:
        for kind, values in merged.items():
            given = dict(method.optimizer if kind == "optimizer" else method.layer)
            if kind.endswith(" layer"):
                given |= method.cell_layer.get(kind.removesuffix(" layer"), {})
            for argument, value in given.items():
                if argument in values and values[argument] != value:
                    raise ValueError(
                        f"Methods {setter[kind, argument]!r} and {method.name!r} cannot be "
                        f"combined: both set the {kind} argument `{argument}`."
                    )
                values[argument] = value
                setter[kind, argument] = method.name
    restricted = {m.name: m.cells for m in methods if m.cells is not None}
    cells = None
    if restricted:
        first = next(iter(restricted.values()))
        cells = tuple(c for c in first if all(c in allowed for allowed in restricted.values()))
        if not cells:
            needs = " and ".join(f"{n!r} is for {', '.join(c)}" for n, c in restricted.items())
            raise ValueError(f"These methods have no cell in common: {needs}.")
    return Method(
        name="+".join(m.name for m in methods),
        description="; ".join(m.description for m in methods if m.description),
        layer=merged["layer"],
        callbacks=tuple(c for m in methods for c in m.callbacks),
        optimizer=merged["optimizer"],
        model=tuple(c for m in methods for c in m.model),
        cell_layer={k.removesuffix(" layer"): v for k, v in merged.items() if k.endswith(" layer")},
        cells=cells,
    )


def _reference(value: Any) -> dict[str, Any]:
    """A `ref`, also from a class or function that can be imported where the trial runs."""
    if isinstance(value, Mapping) and set(value) == {_OBJECT, _CONFIG}:
        return {_OBJECT: value[_OBJECT], _CONFIG: dict(value[_CONFIG])}
    if isinstance(value, str):
        return ref(value)
    name = getattr(value, "__qualname__", "<lambda>")
    if isinstance(value, Callable) and "<" not in name and hasattr(value, "__module__"):
        return ref(f"{value.__module__}:{name}")
    raise ValueError(
        "A method's callbacks are created in each trial, possibly on a different machine. Expected "
        "`methods.ref('module:name', ...)` or a class or function at the top level of a module. "
        f"Received: {value!r} (of type {type(value).__name__})."
    )


registered: dict[str, Method] = {}


def _initializer(name: str, **config: Any) -> dict[str, Any]:
    return ref(f"kbptt.initializers:{name}", **config)


def _callback(name: str, description: str, callback: str, **config: Any) -> Method:
    return Method(name, description, callbacks=(ref(f"kbptt.callbacks:{callback}", **config),))


def _states(name: str, description: str) -> Method:
    """A penalty on the states, by the regularizer of the same name."""
    model = ref("kbptt.ablation.models:RegularizeStates", regularizer=name)
    return Method(name, description, model=(model,))


def _chrono(gates: int) -> dict[str, Any]:
    return {"bias_initializer": _initializer("Chrono", max_timescale="$timesteps", gates=gates)}


for _method in (
    Method("baseline", "Glorot-uniform recurrent kernel and nothing else"),
    # Initializers.
    Method(
        "orthogonal",
        "recurrent kernel orthogonal, per gate (Saxe 2014)",
        layer={"recurrent_initializer": _initializer("OrthogonalPerGate")},
    ),
    Method(
        "identity",
        "recurrent kernel the identity, per gate",
        layer={"recurrent_initializer": _initializer("Identity")},
    ),
    Method(
        "irnn",
        "IRNN: identity recurrent kernel, ReLU, small input kernel (Le 2015)",
        layer={
            "recurrent_initializer": _initializer("Identity"),
            "kernel_initializer": ref("keras.initializers:RandomNormal", stddev=0.001),
            "activation": "relu",
        },
        cells=("SimpleRNN",),
    ),
    Method(
        "henaff",
        "block-diagonal rotations by any angle (Henaff 2016)",
        layer={"recurrent_initializer": _initializer("Henaff")},
    ),
    Method(
        "cayley",
        "block-diagonal rotations by up to a right angle (Helfrich 2018)",
        layer={"recurrent_initializer": _initializer("Cayley")},
    ),
    Method(
        "chrono",
        "biases for time scales up to the sequence length (Tallec & Ollivier 2018)",
        cell_layer={"LSTM": {**_chrono(4), "unit_forget_bias": False}, "GRU": _chrono(3)},
        cells=("LSTM", "GRU"),
    ),
    # Normalization.
    Method(
        "layernorm",
        "layer normalization inside the cell (Ba 2016)",
        layer={"normalization": "layer"},
    ),
    # Regularizers.
    Method(
        "omega",
        "vanishing-gradient regularizer (Pascanu 2013)",
        layer={"gradient_regularizer": "vanishing_gradient"},
    ),
    Method(
        "orthogonality",
        "penalty on the recurrent kernel's distance from orthogonal, per gate",
        layer={"recurrent_regularizer": ref("kbptt.regularizers:Orthogonality")},
    ),
    _states(
        "norm_stabilizer", "penalty on changes of the norm of the state (Krueger & Memisevic 2016)"
    ),
    _states("ar_tar", "penalty on large and on fast states (Merity 2017)"),
    _callback(
        "penalty",
        "penalty on the squared norm of the gradient, by a finite difference (Zhao 2022)",
        "GradientNormPenalty",
    ),
    _callback(
        "flossing",
        "Lyapunov exponents pushed to 0 before training (Engelken 2023)",
        "GradientFlossing",
        x="$inputs",
    ),
    # Clipping.
    _callback(
        "clip",
        "gradient clipped at a global norm of 1 (Pascanu 2013)",
        "ClipByGlobalNorm",
        threshold=1.0,
    ),
    _callback(
        "clip_norm",
        "gradient of every variable clipped at a norm of 1",
        "ClipByNorm",
        threshold=1.0,
    ),
    _callback(
        "clip_value",
        "every component of the gradient clipped at ±0.5",
        "ClipByValue",
        threshold=0.5,
    ),
    _callback(
        "agc",
        "adaptive gradient clipping: by the norm of the weights (Brock 2021)",
        "AdaptiveGradientClip",
    ),
    _callback(
        "autoclip", "clipped at the 10th percentile of past norms (Seetharaman 2020)", "AutoClip"
    ),
    _callback("zclip", "spikes of the norm clipped by their z-score (Kumar 2025)", "ZClip"),
    Method(
        "timestep_clip",
        "∂L/∂h_t clipped at every timestep of the backward pass (Graves 2013)",
        layer={"gradient_clip": 1.0},
    ),
):
    register(_method)
