"""What a run or a study is about to do, in a few lines of text."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from kbptt.ablation import options
from kbptt.ablation.grid import Grid
from kbptt.ablation.options import show
from kbptt.ablation.script_grid import ScriptGrid
from kbptt.ablation.text import count
from kbptt.ablation.tuning import Tuning

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
    if isinstance(grid, ScriptGrid):
        yield from _script_study(grid)
        return
    yield "tasks", "; ".join(_task(name, _fixed(grid, name)) for name in grid.tasks)
    yield "methods", ", ".join(grid.methods)
    yield from _axes(grid)
    if grid.tuning:
        yield "tuning", _tuning(grid.tuning, bool(grid.axes))
    yield "seeds", _seeds(grid.seeds)
    if grid.trial == Grid.trial:
        layer = {name: v for (section, name), v in grid.settings.items() if section == "layer"}
        varied = {*grid.axes, *(grid.tuning.paths if grid.tuning else ())}
        yield from _settings(grid.arms[0].config, layer, varied)
    else:
        yield "trial", grid.trial


def starting(grid: Grid) -> str:
    """What is waited for before the first trial runs."""
    if grid.trial == Grid.trial:
        return "Starting workers, which load TensorFlow and build every model once"
    own = "script" if isinstance(grid, ScriptGrid) else "trial function"
    return f"Starting workers, which run the {own}"


def _script_study(grid: ScriptGrid) -> Lines:
    function = f":{grid.script['function']}" if grid.script["function"] else ""
    yield "script", f"{grid.script['path']}{function}"
    for name in ("tasks", "methods"):
        if name in grid.given:
            yield name, ", ".join(getattr(grid, name))
    yield from _axes(grid)
    yield "seeds", _seeds(grid.seeds)
    fixed = {path: value for path, value in grid.settings.items() if path[0] == "script"}
    if fixed:
        chosen = (f"{options.display(path)}={show(value)}" for path, value in fixed.items())
        yield "options", ", ".join(chosen)


def _axes(grid: Grid) -> Lines:
    for path, values in grid.axes.items():
        yield options.display(path), " | ".join(show(value, path) for value in values)


def _tuning(tuning: Tuning, axes: bool) -> str:
    """The space and the budget of every search."""
    space = "; ".join(f"{name} {part.describe()}" for name, part in tuning.space.items())
    counts = ((tuning.points, "point"), (len(tuning.seeds), "seed"))
    budget = " × ".join(count(number, noun) for number, noun in counts)
    each = "method, task and axis value" if axes else "method and task"
    return f"{space}; {budget} for each {each}"


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
    config: Mapping[str, Any], layer: Mapping[str, Any], varied: Collection[options.Path] = ()
) -> Lines:
    """Model and training, without the options that vary."""

    def part(text: str, path: options.Path) -> list[str]:
        return [] if path in varied else [text]

    model, training, optimizer = config["model"], config["training"], config["optimizer"]
    shown = part(model["cell"], ("model", "cell"))
    shown += part(count(model["layers"], "layer"), ("model", "layers"))
    shown += part(f"{model['units']} units", ("model", "units"))
    path = ("model", "truncation")
    shown += part(f"truncation {show(model['truncation'], path)}", path)
    shown += [f"{name.replace('_', ' ')} {show(value)}" for name, value in layer.items()]
    yield "model", ", ".join(shown)
    named = {path[1] for path in varied if path[0] == "optimizer"} | {"name", "learning_rate"}
    rest = {n: v for n, v in optimizer.items() if n not in named}
    shown = part(optimizer["name"], ("optimizer", "name"))
    path = ("optimizer", "learning_rate")
    shown += part(f"learning rate {show(optimizer['learning_rate'])}", path)
    shown += [f"{n.replace('_', ' ')} {show(v)}" for n, v in rest.items()]
    shown += part(count(training["epochs"], "epoch"), ("training", "epochs"))
    shown += part(f"batches of {training['batch_size']}", ("training", "batch_size"))
    if training.get("clip") is not None:
        shown += part(f"clipped at norm {show(training['clip'])}", ("training", "clip"))
    yield "training", ", ".join(shown)
