"""Labels of what an ablation compares: only the options that differ within it."""

import collections
from collections.abc import Callable, Sequence
from typing import Any

from kbptt.ablation import options
from kbptt.ablation.options import show

LabelArm = Callable[[dict[str, Any]], tuple[str, str]]
LabelTask = Callable[[dict[str, Any]], str]
Labels = Callable[[Sequence[dict[str, Any]]], tuple[LabelArm, LabelTask]]


def labels(configs: Sequence[dict[str, Any]]) -> tuple[LabelArm, LabelTask]:
    """Functions that label a configuration's arm and task by the options that differ."""
    settings: dict[Any, set[str]] = collections.defaultdict(set)
    for config in configs:
        for path, value in _settings(config).items():
            settings[path].add(repr(value))
    by_task: dict[str, dict[Any, set[str]]] = {}
    names = {name for config in configs for name in config["task"]["options"]}
    for config in configs:
        own = by_task.setdefault(config["task"]["name"], collections.defaultdict(set))
        for name in names:
            own[name].add(repr(config["task"]["options"].get(name)))

    def label_arm(config: dict[str, Any]) -> tuple[str, str]:
        varied = [
            f"{options.display(path)}={show(value, path)}"
            for path, value in _settings(config).items()
            if len(settings[path]) > 1
        ]
        rest = ", ".join(varied)
        if "script" in config and config["script"]["method"] is None and rest:
            return rest, rest
        return config["method"]["name"] + (f" [{rest}]" if rest else ""), rest

    def label_task(config: dict[str, Any]) -> str:
        name = config["task"]["name"]
        varied = [
            f"{option}={show(value)}"
            for option, value in config["task"]["options"].items()
            if len(by_task[name][option]) > 1
        ]
        return name + (f" [{', '.join(varied)}]" if varied else "")

    return label_arm, label_task


def _settings(config: dict[str, Any]) -> dict[options.Path, Any]:
    """Options of model, layer, optimizer and training that neither method nor tuning sets."""
    definition = config["method"]["definition"]
    found = dict(options.LATER)
    found |= {("model", n): v for n, v in config["model"].items() if n != "layer"}
    for name, value in config["model"]["layer"].items():
        if name not in definition["layer"]:
            found["layer", name] = value
    for name, value in config["optimizer"].items():
        if name not in definition["optimizer"]:
            found["optimizer", name] = value
    found |= {("training", n): v for n, v in config["training"].items()}
    found |= {("script", n): v for n, v in config.get("script", {}).get("options", {}).items()}
    for path in options.tuned_paths(config):
        found.pop(path, None)
    return found
