"""Options that `kbptt train` and `kbptt compare` have in common: declared once, read the same way.

None of them has a default here: what is not given has the default of `kbptt.ablation.options`.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.models import OptionInfo

from kbptt.ablation import options
from kbptt.ablation.values import parse_assignment, scalar

MODEL, TRAINING = "Model", "Training"

Length = Annotated[
    int | None, typer.Option(help="Timesteps of a sequence (short for -o length=…).")
]
Cell = Annotated[
    str | None,
    typer.Option(help="LSTM, GRU or SimpleRNN. Default: LSTM.", rich_help_panel=MODEL),
]
Units = Annotated[
    int | None,
    typer.Option(help="Width of a recurrent layer. Default: 64.", rich_help_panel=MODEL),
]
Layers = Annotated[
    int | None, typer.Option(help="Recurrent layers. Default: 1.", rich_help_panel=MODEL)
]
Truncation = Annotated[
    str | None,
    typer.Option(
        help="Timesteps the gradient goes back, 'full', 'artbp', or "
        "{name: windowed, length: 64, stride: 16}. Default: full.",
        rich_help_panel=MODEL,
        metavar="INTEGER|full|artbp|{…}",
    ),
]
Normalization = Annotated[
    str | None,
    typer.Option(
        help="Normalization inside the cell: layer. Default: none.", rich_help_panel=MODEL
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(help="Passes over the training data. Default: 10.", rich_help_panel=TRAINING),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Sequences in a batch. Default: 32.", rich_help_panel=TRAINING),
]
Optimizer = Annotated[
    str | None,
    typer.Option(help="An optimizer of Keras. Default: adam.", rich_help_panel=TRAINING),
]
LearningRate = Annotated[
    float | None,
    typer.Option(help="Learning rate. Default: 0.001.", rich_help_panel=TRAINING),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import", metavar="MODULE", help="Module that registers tasks or methods. Repeatable."
    ),
]


def recurrent_initializer(default: str) -> Any:
    """The option for the recurrent kernel, whose default is not the same for all commands."""
    return Annotated[
        str | None,
        typer.Option(
            help="Initializer of the recurrent kernel: orthogonal, glorot_uniform, "
            f"orthogonal_per_gate, identity, … Default: {default}.",
            rich_help_panel=MODEL,
        ),
    ]


def once(command: Callable) -> Callable:
    """Refuses an option with one value that is given twice, of which Typer would take the last.

    Typer is shown a list for each such option; the command itself gets the one value, as before.
    """
    signature = inspect.signature(command)
    shown, single = [], set()
    for parameter in signature.parameters.values():
        kind, info = get_args(parameter.annotation)
        of_value = (get_args(kind) or (kind,))[0]
        if isinstance(info, OptionInfo) and of_value in (int, float, str, Path):
            info = copy.copy(info)
            info.metavar = info.metavar or f"<{of_value.__name__}>"
            default = None if parameter.default is None else [parameter.default]
            annotation = Annotated[list[of_value] | None, info]
            parameter = parameter.replace(annotation=annotation, default=default)
            single.add(parameter.name)
        shown.append(parameter)

    @functools.wraps(command)
    def of_single_values(**arguments: Any) -> Any:
        for name in single & arguments.keys():
            values = arguments[name] or [None]
            if len(values) > 1:
                raise ValueError(options.twice(flag(name), flag(name)))
            arguments[name] = values[0]
        return command(**arguments)

    of_single_values.__signature__ = signature.replace(parameters=shown)
    return of_single_values


def flag(name: str) -> str:
    """An argument of a command as it is typed."""
    return f"--{name.replace('_', '-')}"


def read(
    flags: Mapping[str, Any], assignments: Iterable[str], rename: Callable[[str], str] = str
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Returns what flags and `NAME=VALUE,…` set; a setting that is given twice is refused.

    Args:
        flags: The value of each flag by the name of its option, `None` where it was not given.
        assignments: `NAME=VALUE,…`, as typed.
        rename: From a name in an assignment to that of the option which the command takes it for.

    Returns:
        The value of each flag that was given, and the values of each option that was assigned.
    """
    settings = given(flags)
    names = [(flag(name), name if name != "length" else "task.length") for name in settings]
    axes = {}
    for text in assignments:
        name, values = parse_assignment(text)
        names.append((f"-o {name}", rename(name)))
        axes[rename(name)] = values
    options.refuse_twice(names)
    return settings, axes


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that were given, checked under the names that they have when typed.

    Args:
        values: The value of each option by its name, `None` where it was not given.
    """
    found = {}
    for name, value in values.items():
        if value is not None:
            path = options.resolve(name, []) if name != "length" else ("task", name)
            found[name] = truncation(value) if name == "truncation" else scalar(value)
            options.check(path, found[name], flag(name))
    return found


def truncation(text: str) -> Any:
    """Returns the truncation that was typed; `None` for "full"."""
    try:
        return options.check(("model", "truncation"), scalar(text))
    except ValueError as error:
        raise ValueError(
            "Invalid value for `--truncation`. Expected a positive integer, the number of "
            "timesteps that the gradient goes back, 'full', 'artbp' or a mapping such as "
            f"{{name: windowed, length: 64, stride: 16}}. Received: {text!r}."
        ) from error
