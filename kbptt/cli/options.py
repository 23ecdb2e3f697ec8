"""Options that `kbptt train` and `kbptt compare` have in common: declared once, read the same way.

None of them has a default here: what is not given has the default of `kbptt.ablation.options`.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

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
            options.check(path, found[name], f"--{name.replace('_', '-')}")
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


def axes(assignments: Iterable[str]) -> dict[str, list[Any]]:
    """Returns the values of each `NAME=VALUE,…`; an option that is there twice is refused."""
    found: dict[str, list[Any]] = {}
    for text in assignments:
        name, values = parse_assignment(text)
        if name in found:
            raise ValueError(f"Option {name!r} is given twice; list its values with commas.")
        found[name] = values
    return found
