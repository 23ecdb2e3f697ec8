"""Names and values of a trial's options: model, layer, optimizer, training and task."""

import inspect
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from kbptt import _checks
from kbptt._checks import did_you_mean
from kbptt.ablation import limits
from kbptt.cells.names import get_cell

Path = tuple[str, str]

DEFAULTS: dict[Path, Any] = {
    ("model", "cell"): "LSTM",
    ("model", "units"): 64,
    ("model", "layers"): 1,
    ("model", "truncation"): None,
    ("optimizer", "name"): "adam",
    ("optimizer", "learning_rate"): 1e-3,
    ("training", "epochs"): 10,
    ("training", "batch_size"): 32,
    ("training", "checkpoint"): "best",
    ("training", "threads"): 1,
}
# Options that came later, with what was done before: a configuration in which one has this value
# leaves it out, and so keeps the key that it has in older ledgers.
LATER: dict[Path, Any] = {("training", "stream"): False}
CHECKPOINTS = ("best", "last")
# Further arguments of the recurrent layers of Keras and kbptt.
LAYER = (
    "activation",
    "bias_initializer",
    "bias_regularizer",
    "dropout",
    "gradient_clip",
    "gradient_regularizer",
    "h_detach",
    "kernel_initializer",
    "kernel_regularizer",
    "normalization",
    "recurrent_activation",
    "recurrent_constraint",
    "recurrent_dropout",
    "recurrent_initializer",
    "recurrent_parametrization",
    "recurrent_regularizer",
    "reset_after",
    "unit_forget_bias",
    "use_bias",
    "zoneout",
)
# Of these, numbers that may be a list too, one for each state.
BY_STATE = ("zoneout",)
# Numbers of a layer that are fractions, beside those of Keras, which has the word in their names.
FRACTIONS = ("h_detach", "zoneout")
# Sections that the names of options are shown without.
_BARE = ("task", "script")
# Every other section is "task", for all tasks, or the name of one.
SECTIONS = ("model", "layer", "optimizer", "training")
_OPTIONS = [*DEFAULTS, ("training", "clip"), *LATER]
_SHORT = {name: (section, name) for section, name in _OPTIONS if name != "name"}
_SHORT |= {"optimizer": ("optimizer", "name")}
_SHORT |= {name: ("layer", name) for name in LAYER}


def path_of(name: str) -> Path:
    """Section and name of an option as written; an unknown name without a section is a task's."""
    section, dot, rest = str(name).partition(".")
    return (section, rest) if dot else _SHORT.get(name, ("task", name))


def refuse_twice(names: Iterable[tuple[str, str]]) -> None:
    """Refuses a setting that is given twice, also under two names.

    An option of every task and the same option of one task are one setting.

    Args:
        names: For each option, how it was given, and its name.
    """
    seen: dict[Path, str] = {}
    for shown, name in names:
        section, option = path_of(name)
        of_tasks = section not in SECTIONS
        for other, before in seen.items():
            general = of_tasks and other[0] not in SECTIONS and "task" in (section, other[0])
            if other[1] == option and (section == other[0] or general):
                raise ValueError(twice(before, shown))
        seen[section, option] = shown


def refuse_duplicates(what: str, values: Sequence[Any], mend: str = "") -> None:
    """Raises `ValueError` for a value that is listed twice; `mend` is added: how to mean it."""
    seen = set()
    for value in values:
        key = type(value), json.dumps(value, sort_keys=True, default=repr)
        if key in seen:
            raise ValueError(f"{value!r} is listed twice among the {what}: list it once.{mend}")
        seen.add(key)


def twice(first: str, second: str) -> str:
    """The error for two arguments, as they were given, that set one option."""
    if first == second:
        return f"{first} is given twice: pass it once, with several values separated by commas."
    return f"One option is given twice: {first} and {second} are the same. Use one of them."


def resolve(name: str, task_names: Sequence[str]) -> Path:
    """Returns the section and name of an option.

    Args:
        name: String: an option's name ("units", "truncation", "dropout", "length", …), or one with
            its section: "layer.dropout", "optimizer.momentum", "task.length" for every task,
            "adding.length" for one.
        task_names: The tasks of the grid.

    Raises:
        ValueError: if there is no such option, listing the valid ones.
    """
    from kbptt import tasks  # not above: `kbptt --help` shows options and needs no NumPy

    section, rest = path_of(name)
    if section in ("model", "training") and (section, rest) in _OPTIONS:
        return section, rest
    if section in ("layer", "optimizer") and rest.isidentifier():
        return section, rest
    having = [t for t in task_names if rest in tasks.options(t)]
    if section == "task" and having:
        missing = [t for t in task_names if t not in having]
        if missing:
            raise ValueError(
                f"Option {rest!r} is not one of task {missing[0]!r}, only of "
                f"{', '.join(having)}. Set it for one task: {having[0]}.{rest}=…"
            )
        return "task", rest
    if section in task_names and rest in tasks.options(section):
        return section, rest
    valid = [*_SHORT, *dict.fromkeys(o for t in task_names for o in tasks.options(t))]
    raise ValueError(
        f"Unknown option: {name!r}{did_you_mean(name, valid)}. A trial of {', '.join(task_names)} "
        f"has no option {name!r}. Available: {', '.join(valid)}; pass any other argument of the "
        "layer or the optimizer as layer.NAME or optimizer.NAME."
    )


def display(path: Path) -> str:
    """The short name of an option, as used in labels."""
    if path == ("optimizer", "name"):
        return "optimizer"
    section, name = path
    return name if _SHORT.get(name) == path or section in _BARE else f"{section}.{name}"


def show(value: Any, path: Path | None = None) -> str:
    """A value of an option as written in labels."""
    if value is None:
        return "full" if path == ("model", "truncation") else "none"
    if isinstance(value, dict) and isinstance(value.get("name"), str):  # {name: windowed, …}
        arguments = ",".join(f"{k}={show(v)}" for k, v in value.items() if k != "name")
        return f"{value['name']}({arguments})"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def tuned_paths(config: Mapping[str, Any]) -> set[Path]:
    """The options of a trial whose values a search has chosen."""
    return {path_of(name) for name in config.get("tuned") or ()}


def of_arm(config: Mapping[str, Any], tuned: Collection[Path]) -> dict[str, Any]:
    """What all trials of an arm share: the configuration without seed, stage and tuned options."""
    found = {name: v for name, v in config.items() if name not in ("seed", "stage", "tuned")}
    for section in ("model", "optimizer", "training"):
        found[section] = {n: v for n, v in found[section].items() if (section, n) not in tuned}
    layer = found["model"]["layer"]
    found["model"]["layer"] = {n: v for n, v in layer.items() if ("layer", n) not in tuned}
    return found


def with_values(
    config: Mapping[str, Any], values: Mapping[str, Any], **changes: Any
) -> dict[str, Any]:
    """A configuration with values of tuned options, by short name, and with other `changes`."""
    found = {**config, **changes, "tuned": dict(values)}
    for name, value in values.items():
        section, option = path_of(name)
        if section == "layer":
            layer = {**found["model"]["layer"], option: value}
            found["model"] = {**found["model"], "layer": layer}
        else:
            found[section] = {**found[section], option: value}
    return found


def check(path: Path, value: Any, shown: str | None = None) -> Any:
    """Returns the value in its canonical form, or raises `ValueError`.

    Args:
        path: Section and name of the option.
        value: What the user gave.
        shown: String, the option's name in errors. Defaults to its name.
    """
    value = plain(value)
    section, name = path
    shown = shown or name
    if path == ("model", "cell"):
        return get_cell(value)
    if path == ("training", "checkpoint"):
        return _checks.one_of(shown, value, CHECKPOINTS)
    if path == ("training", "stream"):
        return value if value == "auto" else _checks.flag(shown, value)
    if path == ("training", "clip"):
        return None if value is None else _checks.number(shown, value, above=0)
    if path == ("optimizer", "learning_rate"):
        return _checks.number(shown, value, above=0)
    if path == ("model", "truncation"):
        return _truncation(value, shown)
    if section in ("model", "training"):
        return limits.integer(name, value, shown=shown)
    if path == ("optimizer", "name") and not isinstance(value, str):
        raise ValueError(f"Expected the name of an optimizer. Received: optimizer={value!r}.")
    if section not in ("layer", "optimizer"):
        limits.check_task_option(name, value)
    elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)  # 1.0 and 1 are one setting; `check_arguments` restores the type
    return value


def check_arguments(
    made: type, given: Mapping[str, Any], decided: Iterable[str], base: type = object
) -> dict[str, Any]:
    """Converts arguments of a layer or an optimizer to the types of their defaults.

    Args:
        made: The class, one of Keras's or derived from it.
        given: The arguments. If the default is a bool or a number, plain values of a different
            type are refused, and so are numbers out of range: below 0 unless the default is, and
            above 1 for a dropout.
        decided: Arguments that the trial determines, which are refused.
        base: A base class of `made`, in which a default of `None` means "no number".

    Raises:
        ValueError: for these, and for arguments that neither the class nor its bases name.
    """
    return check_given(made.__name__, _defaults(made), _defaults(base), given, decided)


def check_given(
    made: str,
    defaults: Mapping[str, Any],
    optional: Mapping[str, Any],
    given: Mapping[str, Any],
    decided: Iterable[str],
) -> dict[str, Any]:
    """`check_arguments` of a class that is known by its name and the defaults of its arguments."""
    valid = [name for name in defaults if name not in decided]
    checked = {}
    for name, value in given.items():
        if name not in valid:
            argument = f"argument of {made}: {name!r}"
            if name in defaults:
                raise ValueError(
                    f"Reserved {argument}. It is set by the task, the seed and the options of the "
                    "model: remove it."
                )
            raise ValueError(
                f"Unknown {argument}{did_you_mean(name, valid)}. Expected one of "
                f"{', '.join(valid)}."
            )
        default = defaults[name]
        if default is None and value is not None and name in optional:
            default = 0
        plain = isinstance(value, str | int | float | list | dict | None)
        plain = plain and not (name in BY_STATE and isinstance(value, list))
        checked[name] = _of_type(name, value, default) if plain else value
    return checked


def refuse_unknown(what: str, name: str, valid: Iterable[str], where: str = "") -> NoReturn:
    """Raises `ValueError` for a name that is none of the valid ones, which are listed."""
    valid = list(valid)
    raise ValueError(
        f"Unknown {what}{where}: {name!r}{did_you_mean(name, valid)}. Expected one of "
        f"{', '.join(valid)}."
    )


def _defaults(made: type) -> dict[str, Any]:
    """The arguments of a class and its bases, with the default of the most derived."""
    defaults: dict[str, Any] = {}
    for parent in reversed(made.__mro__[:-1]):
        for name, parameter in inspect.signature(parent.__init__).parameters.items():
            if name != "self" and parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            ):
                defaults[name] = parameter.default
    return defaults


def _of_type(name: str, value: Any, default: Any) -> Any:
    """A plain value in the type of its default: a bool, or a number in its range."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected true or false. "
                f"Received: {name}={value!r} (of type {type(value).__name__})."
            )
    elif isinstance(default, int | float):
        at_least = 0 if default >= 0 else -math.inf
        at_most = 1 if "dropout" in name or name in FRACTIONS else math.inf
        number = _checks.number(name, value, at_least=at_least, at_most=at_most)
        return number if isinstance(default, float) else value
    return value


def _truncation(value: Any, shown: str) -> Any:
    if value in (None, "full"):
        return None
    if value in ("artbp", "snap1"):
        return value
    if isinstance(value, dict):
        if "class_name" not in value:
            names = ("full", "windowed", "randomized", "artbp", "snap")
            _checks.one_of(shown, value.get("name", "windowed"), names)
        return value
    return _checks.positive_integer(
        shown,
        value,
        "Or 'full', 'artbp', 'snap1', or a mapping such as {name: windowed, length: 64}.",
    )


def parse_names(argument: str, value: Any, empty: bool = False) -> list[str]:
    """Names from a list, or a string with commas, each named once; `empty`: there may be none.

    Raises:
        ValueError: for anything else; `argument` is its name there.
    """
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise ValueError(
            f"Invalid value for argument `{argument}`. Expected a list of names. "
            f"Received: {argument}={value!r} (of type {type(value).__name__})."
        )
    names = [name.strip() for name in names if name.strip()]
    if not names and not empty:
        raise ValueError(f"The grid is empty: `{argument}` is empty.")
    refuse_duplicates(argument, names)
    return names


def parse_seeds(value: Any) -> list[int]:
    """Seeds from a count (`6`: seeds 0 to 5) or a list of seeds, also as a string.

    In a string a comma makes a list: `3,4,7`, and `7,` for seed 7 alone.
    """
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,20}\s*(,\s*\d{1,20}\s*)*,?\s*", value):
        seeds = [int(seed) for seed in value.split(",") if seed.strip()]
        value = seeds if "," in value else seeds[0]
    if isinstance(value, list | tuple):
        for seed in value:
            if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
                raise ValueError(
                    "Invalid value for argument `seeds`. Expected non-negative integers. "
                    f"Received: {seed!r} (of type {type(seed).__name__})."
                )
            limits.integer("seed", seed, least=0, shown="seeds")
        return list(value)
    _checks.positive_integer("seeds", value, "It is the number of seeds.")
    return list(range(limits.integer("trials", value, shown="seeds")))


def slug(label: str) -> str:
    """A label as a folder's name: no separators, no leading dot, never empty."""
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", label).lstrip(".")[:100]
    return safe or "_"


def plain(value: Any) -> Any:
    """Converts to JSON types: tuples to lists, paths to strings, NumPy scalars to Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value


def short_names() -> list[str]:
    """Names of the options that belong to no task."""
    return list(_SHORT)
