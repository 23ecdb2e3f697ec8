"""The registry of methods, and their combination with "+"."""

from collections.abc import Sequence
from typing import Any

from kbptt._checks import did_you_mean
from kbptt.methods.known import KNOWN
from kbptt.methods.method import Method, invalid


def register(method: Method) -> Method:
    """Registers a method under its name, replacing any earlier one."""
    if not isinstance(method, Method):
        raise invalid("method", "a `kbptt.methods.Method`", method)
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
        ValueError: for an unknown name, and for two methods that set the same argument to different
            values.
    """
    if isinstance(name, Method):
        return name
    parts: list[Any] = (
        [part.strip() for part in name.split("+")] if isinstance(name, str) else [name]
    )
    for part in parts:
        if not isinstance(part, str) or part not in registered:
            hint = did_you_mean(part, registered)
            raise ValueError(
                f"Unknown method: {part!r}{hint}. The methods are: {', '.join(names())}; "
                "see `kbptt methods`. Join them with '+' to combine them."
            )
        if parts.count(part) > 1:
            raise ValueError(f"Method {part!r} is named twice in {name!r}.")
    methods = [registered[part] for part in parts]
    return methods[0] if len(methods) == 1 else _combine(methods)


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


registered: dict[str, Method] = {}

for _method in KNOWN:
    register(_method)
