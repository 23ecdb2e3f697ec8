"""The options that `kbptt train` and `kbptt compare` share: one table, read by one parser.

None has a default here: an option that is not given keeps its default of `kbptt.ablation.options`.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import typer
from typer.models import OptionInfo

from kbptt.ablation import options
from kbptt.ablation.options import show
from kbptt.cells.names import NAMES
from kbptt.cli import completion

MODEL, TRAINING = "Model", "Training"
# Help of an option of both commands that is no option of a trial.
HEALTH = (
    "Also log the health of every network: norms of the states, saturated gates, dead units, "
    "gradient and update of every variable. `kbptt check` evaluates it."
)


class Shared(NamedTuple):
    """An option of both commands, which sets the option of a trial with the same name."""

    kind: type
    help: str
    panel: str | None = None
    metavar: str | None = None
    names: str | None = None
    complete: Callable[..., Any] | None = None


SHARED = {
    "length": Shared(int, "Timesteps of a sequence (short for -o length=…)."),
    "cell": Shared(str, f"{', '.join(NAMES)}.", MODEL, complete=completion.cell),
    "units": Shared(int, "Width of a recurrent layer.", MODEL),
    "layers": Shared(int, "Recurrent layers.", MODEL),
    "truncation": Shared(
        str,
        "Timesteps that the gradient flows back, 'full', 'artbp', 'snap1', or "
        "{name: windowed, length: 64, stride: 16}.",
        MODEL,
        "<int>|full|…",
        complete=completion.one_of("full", "artbp", "snap1"),
    ),
    "normalization": Shared(
        str,
        "Normalization inside the cell: layer, rms or layer_carried.",
        MODEL,
        complete=completion.normalization,
    ),
    "recurrent_initializer": Shared(
        str,
        "Initializer of the recurrent kernel: orthogonal, glorot_uniform, orthogonal_per_gate, "
        "identity, ….",
        MODEL,
        complete=completion.initializer,
    ),
    "epochs": Shared(int, "Passes over the training data.", TRAINING),
    "batch_size": Shared(int, "Sequences in a batch, or rows of a stream.", TRAINING),
    "optimizer": Shared(str, "An optimizer of Keras.", TRAINING, complete=completion.optimizer),
    "learning_rate": Shared(float, "Learning rate.", TRAINING),
    "clip": Shared(
        float, "Clip the gradient to this global norm, in addition to the method.", TRAINING
    ),
    "checkpoint": Shared(
        str,
        "Epoch whose weights are tested: best or last.",
        TRAINING,
        complete=completion.one_of("best", "last"),
    ),
    "stream": Shared(
        bool,
        "Read one long sequence (text, csv) window by window and carry the state, or train on "
        "independent, shuffled windows.",
        TRAINING,
        names="--stream/--windows",
    ),
    "threads": Shared(int, "Threads of one trial.", TRAINING),
}
_NO_DEFAULT = {"normalization": "none", "clip": "no clipping", "stream": "windows"}
_ASSIGNMENTS = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "--set",
        "-o",
        metavar="NAME=VALUE,…",
        help="Any option of a trial or a task, such as dropout=0.1, permuted=true or "
        "sizes=[500,100,100]. In a comparison several values make an axis: truncation=16,64,full. "
        "Repeatable.",
        autocompletion=completion.option,
    ),
]
_IMPORTS = Annotated[
    list[str] | None,
    typer.Option(
        "--import", metavar="MODULE", help="Module that registers tasks or methods. Repeatable."
    ),
]


class Given(NamedTuple):
    """What was given of the shared options."""

    flags: dict[str, Any]
    assignments: list[str]
    imports: list[str]

    def read(
        self, rename: Callable[[str], str] = str
    ) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        """Returns what flags and `NAME=VALUE,…` set; giving a setting twice is an error.

        Args:
            rename: From a name in an assignment to the option that the command takes it for.

        Returns:
            The value of each flag, and the values of each option that was assigned.
        """
        from kbptt.ablation.values import parse_assignment  # the YAML library takes its time

        settings = {name: _value(name, typed) for name, typed in self.flags.items()}
        names = [(flag(name), name if name != "length" else "task.length") for name in settings]
        axes = {}
        for text in self.assignments:
            name, values = parse_assignment(text)
            names.append((f"-o {name}", rename(name)))
            axes[rename(name)] = values
        options.refuse_twice(names)
        return settings, axes


def assigned(option: str, texts: Sequence[str]) -> dict[str, list[Any]]:
    """The values of an option given as `NAME=VALUE,…`; repeating a name is an error.

    Args:
        option: How the option is typed.
        texts: What was typed.
    """
    from kbptt.ablation.values import parse_assignment  # the YAML library takes its time

    pairs = [parse_assignment(text) for text in texts]
    options.refuse_twice((f"{option} {name}", name) for name, _ in pairs)
    return dict(pairs)


def _value(name: str, typed: Any) -> Any:
    """Returns the value of a flag, checked under the name that it has when typed."""
    from kbptt.ablation.values import scalar

    path = options.resolve(name, []) if name != "length" else ("task", name)
    try:
        value = options.check(path, scalar(typed), flag(name))
    except ValueError as error:
        if name != "truncation":
            raise
        raise ValueError(
            "Invalid value for `--truncation`. Expected a positive integer, the number of "
            "timesteps that the gradient flows back, 'full', 'artbp', 'snap1' or a mapping such as "
            f"{{name: windowed, length: 64, stride: 16}}. Received: {typed!r}."
        ) from error
    return value if name == "truncation" else scalar(typed)


def flag(name: str) -> str:
    """An argument of a command as it is typed."""
    return f"--{name.replace('_', '-')}"


def command(**defaults: str) -> Callable[[Callable], Callable]:
    """Declares a command of Typer; in the place of its argument `given` stand the shared options.

    An option that takes one value is refused when it is given twice; Typer would use the last one.
    So Typer is shown a list for each of these, while the command gets the single value.

    Args:
        **defaults: What the help gives as a shared option's default, where that depends on the
            command.
    """

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)
        shown, single = [], set()
        for parameter in _expanded(signature, defaults):
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

        @functools.wraps(function)
        def run(**arguments: Any) -> Any:
            for name in single & arguments.keys():
                values = arguments[name] or [None]
                if len(values) > 1:
                    raise ValueError(options.twice(flag(name), flag(name)))
                arguments[name] = values[0]
            if "given" in signature.parameters:
                flags = {name: arguments.pop(name) for name in SHARED}
                flags = {name: value for name, value in flags.items() if value is not None}
                lists = (arguments.pop(name) or [] for name in ("assignments", "imports"))
                arguments["given"] = Given(flags, *lists)
            return function(**arguments)

        run.__signature__ = signature.replace(parameters=shown)
        return run

    return decorate


def _expanded(signature: inspect.Signature, defaults: dict[str, str]) -> Iterator[Any]:
    """The parameters of a command, with all the shared options in the place of `given`."""
    for parameter in signature.parameters.values():
        if parameter.name != "given":
            yield parameter
            continue
        kind = inspect.Parameter.KEYWORD_ONLY
        for name, annotation in (("assignments", _ASSIGNMENTS), ("imports", _IMPORTS)):
            yield inspect.Parameter(name, kind, default=None, annotation=annotation)
        for name, option in SHARED.items():
            text = option.help
            if name != "length":
                path = options.path_of(name)
                default = _NO_DEFAULT.get(name) or show(options.DEFAULTS.get(path), path)
                text += f" Default: {defaults.get(name, default)}."
            info = typer.Option(
                *filter(None, [option.names]),
                help=text,
                rich_help_panel=option.panel,
                metavar=option.metavar,
                autocompletion=option.complete,
            )
            annotation = Annotated[option.kind | None, info]
            yield inspect.Parameter(name, kind, default=None, annotation=annotation)
