"""What a run or a study is about to do, in a few lines of text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kbptt.ablation import options
from kbptt.ablation.grid import Grid
from kbptt.ablation.options import show

Lines = Iterator[tuple[str, str]]


def run(config: Mapping[str, Any]) -> Lines:
    """Names and values that describe the configuration of one trial."""
    yield "task", _task(config["task"]["name"], config["task"]["options"])
    if config["method"]["name"] != "baseline":
        yield "method", config["method"]["name"]
    of_the_method = config["method"]["definition"]["layer"]
    layer = {n: v for n, v in config["model"]["layer"].items() if n not in of_the_method}
    yield from _settings(config, layer)
    yield "seed", str(config["seed"])


def study(grid: Grid) -> Lines:
    """Names and values that describe a grid: what varies, and what all trials share."""
    config = grid.arms[0].config
    yield "tasks", "; ".join(_task(name, _fixed(grid, name)) for name in grid.tasks)
    yield "methods", ", ".join(grid.methods)
    for path, values in grid.axes.items():
        yield options.display(path), " | ".join(show(value, path) for value in values)
    yield "seeds", _seeds(grid.seeds)
    if grid.trial == Grid.trial:
        layer = {name: v for (section, name), v in grid.settings.items() if section == "layer"}
        yield from _settings(config, layer, grid.axes)
    else:
        yield "trial", grid.trial


def _task(name: str, chosen: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{option}={show(value)}" for option, value in chosen.items())
    return f"{name} ({arguments})" if arguments else name


def _fixed(grid: Grid, task: str) -> dict[str, Any]:
    return {name: v for (section, name), v in grid.settings.items() if section in ("task", task)}


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _settings(
    config: Mapping[str, Any], layer: Mapping[str, Any], axes: Iterable[options.Path] = ()
) -> Lines:
    """Model and training, without the options that are axes."""

    def part(text: str, path: options.Path) -> list[str]:
        return [] if path in axes else [text]

    model, training, optimizer = config["model"], config["training"], config["optimizer"]
    shown = part(model["cell"], ("model", "cell"))
    shown += part(f"{model['layers']} layer{'s' * (model['layers'] != 1)}", ("model", "layers"))
    shown += part(f"{model['units']} units", ("model", "units"))
    path = ("model", "truncation")
    shown += part(f"truncation {show(model['truncation'], path)}", path)
    shown += [f"{name.replace('_', ' ')} {show(value)}" for name, value in layer.items()]
    yield "model", ", ".join(shown)
    rest = {n: v for n, v in optimizer.items() if n not in ("name", "learning_rate")}
    shown = part(optimizer["name"], ("optimizer", "name"))
    path = ("optimizer", "learning_rate")
    shown += part(f"learning rate {show(optimizer['learning_rate'])}", path)
    shown += [f"{n.replace('_', ' ')} {show(v)}" for n, v in rest.items()]
    count = training["epochs"]
    shown += part(f"{count} epoch{'s' * (count != 1)}", ("training", "epochs"))
    shown += part(f"batches of {training['batch_size']}", ("training", "batch_size"))
    if training.get("clip") is not None:
        shown += part(f"clipped at norm {show(training['clip'])}", ("training", "clip"))
    yield "training", ", ".join(shown)
