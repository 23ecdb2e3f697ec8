"""Mistakes in a trial's options that are found before Keras is imported, which takes seconds.

`kbptt.ablation.building` makes the same checks with the classes themselves, and those that need
them: of values that only a layer or a step of an optimizer can judge.
"""

import contextlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

from kbptt.ablation import options, signatures, spaces
from kbptt.tasks import model as task_model

TRIAL = "kbptt.ablation.trial:run"

# By the last word of an argument: the packages of Keras and of kbptt that know its names.
IDENTIFIERS = {
    "activation": ("keras.activations", None),
    "initializer": ("keras.initializers", "kbptt.initializers"),
    "regularizer": ("keras.regularizers", "kbptt.regularizers"),
    "constraint": ("keras.constraints", "kbptt.constraints"),
    "normalization": (None, "kbptt.normalization"),
    "parametrization": (None, "kbptt.parametrizations"),
}
# Names that Keras's `get` knows and its packages do not have.
_ALIASES = {"initializer": ("normal", "one", "uniform", "zero"), "regularizer": ("l1l2",)}
# An argument whose last word is that of others, with its only names.
_OWN_NAMES = {"gradient_regularizer": ("vanishing_gradient", "VanishingGradient")}
NO_OPTIMIZERS = ("optimizer", "lossscaleoptimizer", "multioptimizer", "optimizermap")
_TRUNCATIONS = {"windowed": "Windowed", "randomized": "Randomized", "snap": "SnAp"}


def check(config: Mapping[str, Any], space: spaces.Space | None = None) -> None:
    """Refuses what cannot be built, as far as names and types of arguments tell.

    Args:
        config: A configuration from `Grid.trials`. The options of a user's own trial function are
            its own business.
        space: What is tuned: every choice is checked, and both ends of every range. Defaults to
            nothing.

    Raises:
        ValueError: for the first mistake, with the nearest valid name.
    """
    if config["trial"] != TRIAL:
        return
    for values in spaces.ends(space or {}):
        point = options.with_values(config, values)
        for part in (_layer, _truncation, _optimizer):
            with contextlib.suppress(signatures.Unreadable):
                part(point)


def of_the_trial() -> set[str]:
    """Arguments of a recurrent layer that the model's options, the task and the seed decide."""
    decided = {"return_sequences", "return_state"}
    for function in (task_model.build_model, task_model.recurrent_layer):
        parameters = inspect.signature(function).parameters.values()
        decided |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    return decided


def names_of(argument: str) -> list[str]:
    """The names that an argument of a layer takes; empty if it takes none.

    Raises:
        signatures.Unreadable: If the source of Keras is not where it is expected.
    """
    kind = argument.rpartition("_")[2]
    if argument in _OWN_NAMES:
        return list(_OWN_NAMES[argument])
    of_keras, own = IDENTIFIERS.get(kind, (None, None))
    names = [*signatures.keys(own, "NAMES")] if own else []
    names += signatures.public_names(of_keras) if of_keras else ()
    return list(dict.fromkeys([*names, *_ALIASES.get(kind, ())]))


def optimizers() -> list[str]:
    """The names of Keras's optimizers, in lower case.

    Raises:
        signatures.Unreadable: If the source of Keras is not where it is expected.
    """
    names = signatures.public_names("keras.optimizers")
    classes = sorted(name.lower() for name in names if name != name.lower())
    return [name for name in classes if name not in NO_OPTIMIZERS]


def _layer(config: Mapping[str, Any]) -> None:
    cell = config["model"]["cell"]
    given = config["model"]["layer"]
    defaults = signatures.arguments("kbptt.layers", cell)
    options.check_given(cell, defaults, {}, given, of_the_trial())
    for argument, value in given.items():
        names = names_of(argument)
        if names and isinstance(value, str) and value not in names and not _is_registered(value):
            words = argument.split("_")
            kind = (
                " ".join(words) if words[-1] in ("normalization", "parametrization") else words[-1]
            )
            in_lower_case = [name for name in names if name == name.lower()]
            options.refuse_unknown(kind, value, in_lower_case, f" for `{argument}`")


def _truncation(config: Mapping[str, Any]) -> None:
    """Refuses unknown and missing arguments in a mapping."""
    given = config["model"]["truncation"]
    if not isinstance(given, Mapping) or "class_name" in given:
        return
    name = _TRUNCATIONS.get(given.get("name", "windowed"))
    if name is None:
        return
    defaults = signatures.arguments("kbptt.truncation.policies", name)
    given = {argument: value for argument, value in given.items() if argument != "name"}
    missing = [a for a, default in defaults.items() if default is ... and a not in given]
    unknown = [argument for argument in given if argument not in defaults]
    if unknown:
        options.refuse_unknown(f"argument of a {name.lower()} truncation", unknown[0], defaults)
    if missing:
        raise ValueError(
            f"A {name.lower()} truncation needs `{missing[0]}`: {{name: {name.lower()}, "
            f"{missing[0]}: …}}. Received: {config['model']['truncation']!r}."
        )


def _optimizer(config: Mapping[str, Any]) -> None:
    given = dict(config["optimizer"])
    name = given.pop("name")
    if ">" in name or _is_registered(name):
        return
    classes = {c.lower(): c for c in signatures.public_names("keras.optimizers")}
    if name.lower() not in optimizers():
        options.refuse_unknown("optimizer", name, optimizers())
    made = classes[name.lower()]
    defaults = signatures.arguments("keras.optimizers", made)
    optional = signatures.arguments("keras.optimizers", "Optimizer")
    options.check_given(made, defaults, optional, given, ["name"])


def _is_registered(name: str) -> bool:
    """Whether a user's module registered a name with Keras, which it imported for that."""
    keras = sys.modules.get("keras")
    return keras is not None and keras.saving.get_registered_object(name) is not None
