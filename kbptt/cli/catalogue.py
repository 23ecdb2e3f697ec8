"""`kbptt tasks` and `kbptt methods`: what there is, with a line each, and one in detail."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from kbptt.ablation.options import show
from kbptt.cli import completion, options, terminal

Imports = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="MODULE", help="Module that registers more of them."),
]


@options.command()
def tasks(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Task whose options to show.",
            autocompletion=completion.task,
        ),
    ] = None,
    imports: Imports = None,
) -> None:
    """List the tasks, or the options of one task with their defaults."""
    from kbptt.tasks import registry

    registry.import_modules(imports or ())
    if name is None:
        terminal.print_columns((one, registry.summary(one)) for one in registry.names())
        typer.echo("\nOptions of a task: kbptt tasks NAME. Train on it: kbptt train NAME.")
        return
    chosen = registry.options(name)
    terminal.print_text(_description(registry.factories[name]) + "\n")
    meaning = _arguments(inspect.getdoc(registry.factories[name]) or "")
    terminal.print_columns(
        (option, _default(default), meaning.get(option, "")) for option, default in chosen.items()
    )
    file = " FILE" if chosen.get("path") is inspect.Parameter.empty else ""
    typer.echo(f"\nkbptt train {name}{file} -o OPTION=VALUE")


@options.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Method, or several joined by '+', whose settings to show.",
            autocompletion=completion.method,
        ),
    ] = None,
    imports: Imports = None,
) -> None:
    """List the methods of kbptt compare, or the settings of one method."""
    from kbptt.methods import registry
    from kbptt.tasks.registry import import_modules

    import_modules(imports or ())
    if name is None:
        terminal.print_columns((one, registry.get(one).description) for one in registry.names())
        typer.echo("\nSettings of a method: kbptt methods NAME. Combine with '+': orthogonal+clip.")
        return
    method = registry.get(name)
    text = method.description.replace("`", "") or method.name
    terminal.print_text(f"{text[0].upper()}{text[1:]}.\n")
    rows = [*_settings("layer", method.layer), *_settings("optimizer", method.optimizer)]
    for cell, arguments in method.cell_layer.items():
        rows += _settings(f"layer ({cell})", arguments)
    rows += [("callback", "", _made(callback)) for callback in method.callbacks]
    rows += [("model", "", _made(change)) for change in method.model]
    if method.cells is not None:
        rows.append(("cells", "", ", ".join(method.cells)))
    terminal.print_columns(rows or [("nothing", "", "")])
    typer.echo(f"\nkbptt train TASK --method {name}")


def _settings(what: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for argument, value in arguments.items():
        yield what, argument, _made(value)


def _made(value: Any) -> str:
    """A value of a method as Python writes it; a reference as the call that it stands for."""
    if isinstance(value, Mapping) and "object" in value:
        arguments = ", ".join(f"{name}={_made(v)}" for name, v in value["config"].items())
        return f"{value['object'].replace(':', '.')}({arguments})"
    return {"$timesteps": "<timesteps>", "$inputs": "<inputs>"}.get(str(value), show(value))


def _default(value: Any) -> str:
    return "required" if value is inspect.Parameter.empty else show(value)


def _description(factory: Any) -> str:
    """The paragraphs of a docstring up to its arguments, each as one line."""
    text = inspect.getdoc(factory) or "This task has no description."
    text = re.split(r"\n(?:Args|Reference|Example):", text)[0].rstrip().replace("`", "")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _arguments(text: str) -> dict[str, str]:
    """What the section "Args:" of a docstring says of each; the defaults are shown beside it."""
    found: dict[str, str] = {}
    name = ""
    section = re.search(r"^Args:\n((?:(?: .*)?\n?)*)", text, re.MULTILINE)
    for line in section[1].splitlines() if section else ():
        if named := re.match(r" {4}(\w+): (.*)", line):
            name, found[named[1]] = named[1], named[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    plain = {name: text.replace("`", "") for name, text in found.items()}
    return {n: re.sub(r" Defaults to (?:[^.:]|\.\d)*\.", "", t) for n, t in plain.items()}
