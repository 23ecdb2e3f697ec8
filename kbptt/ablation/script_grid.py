"""What a study of a user's script compares: options × methods × seeds, as trials."""

import ast
import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kbptt import _checks
from kbptt.ablation import limits, options, script_source, tuning
from kbptt.ablation.grid import Grid, axes_of
from kbptt.ablation.options import Path, show
from kbptt.ablation.outcome import MODES
from kbptt.ablation.rows import Trial, canonical
from kbptt.ablation.script import digest, direction, typed

TRIAL = "kbptt.ablation.script:run"
# Options with an argument of their own, and arguments that only the methods of kbptt have.
_OWN = {"seed": "seeds", "seeds": "seeds", "method": "methods", "task": "tasks"}
_FOREIGN = {"design": "--design", "imports": "--import", "trial": "--trial", "tune": "--tune"}
_FOREIGN |= tuning.SHOWN
_TUNE = (
    " To tune your own training, turn it into a function that returns a result with its "
    "`validation_score`: --trial MODULE:FUNCTION."
)
_NAME = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)*")


@dataclasses.dataclass(frozen=True)
class ScriptGrid(Grid):
    """What a study of a script compares. Make one with `ScriptGrid.of`.

    Its methods and tasks are words for the script; where none are given there is one of each, with
    the script's name, and what is compared are the values of the axes.
    """

    script: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    given: tuple[str, ...] = ()  # of "methods" and "tasks"

    @classmethod
    def of(
        cls,
        script: str | os.PathLike[str],
        seeds: int | Sequence[int] = 1,
        methods: Sequence[str] | str | None = None,
        tasks: Sequence[str] | str | None = None,
        set: Mapping[str, Any] | None = None,
        metric: str | None = None,
        mode: str | None = None,
        threads: int = 1,
        **settings: Any,
    ) -> "ScriptGrid":
        """Checks the arguments and creates the grid.

        Args:
            script: Path of a Python script, or "path:function" to call a function of it.
            seeds: Number of seeds, or a list of seeds: `--seed` of the script.
            methods: Words to pass to the script as `--method`.
            tasks: Words to pass to the script as `--task`.
            set: Mapping from an option of the script to a list of values: an axis.
            metric: The score among the metrics that the script reports. Defaults to `"score"`, or
                the first one.
            mode: "max" or "min": which is better. By default inferred from the metric's name.
            threads: Threads of a trial.
            **settings: Options of the script with one value.
        """
        for name in settings:
            if name in _FOREIGN:
                hint = _TUNE if name.startswith("tun") else ""
                raise ValueError(
                    f"`{name}` ({_FOREIGN[name]}) is for kbptt's own trials, not for a "
                    f"script.{hint}"
                )
        if mode is not None:
            _checks.one_of("mode", mode, MODES)
        elif metric is not None and direction(metric) is None:
            raise ValueError(
                f"The name {metric!r} does not indicate whether larger is better. Add mode='max' "
                "or mode='min' (--mode)."
            )
        found, tree = _read(script)
        options.refuse_twice((name, name) for name in [*settings, *axes_of(set)])
        axes = {name: v if isinstance(v, list) else [v] for name, v in axes_of(set).items()}
        axes |= {name: [value] for name, value in settings.items()}
        checked = {("script", name): _values(name, values) for name, values in axes.items()}
        name = found["name"]
        grid = cls(
            tasks=(name,) if tasks is None else tuple(options.parse_names("tasks", tasks)),
            methods=(name,) if methods is None else tuple(options.parse_names("methods", methods)),
            seeds=tuple(options.parse_seeds(limits.typed_integers(seeds))),
            design="grid",
            settings={
                ("training", "threads"): limits.integer("threads", threads),
                **{path: values[0] for path, values in checked.items() if len(values) == 1},
            },
            axes={path: values for path, values in checked.items() if len(values) > 1},
            trial=TRIAL,
            script={**found, "metric": metric, "mode": mode},
            given=tuple(
                n for n, value in (("methods", methods), ("tasks", tasks)) if value is not None
            ),
        )
        options.refuse_duplicates("seeds", grid.seeds)
        limits.integer("trials", grid.size(), least=0, shown="methods × tasks × seeds × axes")
        _ = grid.arms
        script_source.check_options(tree, found["path"], found["function"], grid._passed())
        return grid

    def _passed(self) -> list[str]:
        """The options that the script gets, besides those that it may do without."""
        values = {path: [value] for path, value in self.settings.items()} | dict(self.axes)
        chosen = {name: given for (section, name), given in values.items() if section == "script"}
        if self.script["function"]:  # of the other words it gets those that it names
            return list(chosen)
        words = {"methods": "method", "tasks": "task"}
        named = [name for name, given in chosen.items() if any(typed("", v) for v in given)]
        return [*named, *(word for name, word in words.items() if name in self.given), "seed"]

    def notes(self) -> list[str]:
        return []

    def configuration(self) -> dict[str, Any]:
        """The grid in JSON types, with which a later run in the same directory is compared."""
        return {**super().configuration(), "script": dict(self.script)}

    def _axes(self, task: str) -> dict[Path, tuple[Any, ...]]:
        return dict(self.axes)

    def _arm(self, task: str, name: str, axes: dict[Path, Any]) -> Trial:
        chosen = {**self.settings, **axes}
        threads = chosen.pop(("training", "threads"))
        config = {
            "task": {"name": task, "options": {}},
            "method": {"name": name, "definition": {"layer": {}, "optimizer": {}, "word": name}},
            "model": {"layer": {}},
            "optimizer": {},
            "training": {"threads": threads},
            "script": {
                **{n: self.script[n] for n in ("path", "function", "digest", "metric", "mode")},
                "options": {option: value for (_, option), value in chosen.items()},
                "method": name if "methods" in self.given else None,
                "task": task if "tasks" in self.given else None,
            },
            "seed": self.seeds[0],
            "imports": [],
            "trial": TRIAL,
        }
        values = [f"{options.display(path)}={show(value)}" for path, value in axes.items()]
        label = [name, *values] if "methods" in self.given or not values else values
        parts = (",".join(label), task, str(self.seeds[0]))
        return Trial.planned(config, "/".join(options.slug(part) for part in parts))


def _read(script: str | os.PathLike[str]) -> tuple[dict[str, Any], ast.Module]:
    """Path, function, digest and name of a script, which must be Python, and its syntax tree."""
    path, _, function = os.fspath(script).rpartition(":")
    if not path or not function.isidentifier():
        path, function = os.fspath(script), ""
    limits.check_file(path)
    try:
        content = pathlib.Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ValueError(
            f"Cannot read the script {path!r}: {error.strerror}. Expected a Python file, or "
            "FILE:FUNCTION."
        ) from error
    try:
        compile(content, path, "exec", dont_inherit=True)
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"The script {path!r} is not valid Python: {error}.") from error
    if function:
        script_source.check_function(tree, path, function)
    found = {
        "path": path,
        "function": function or None,
        "digest": digest(content),
        "name": pathlib.Path(path).stem,
    }
    return found, tree


def _values(name: str, values: list[Any]) -> tuple[Any, ...]:
    """The values of an option of the script."""
    if name in _OWN:
        raise ValueError(f"`{name}` cannot be set with --set; use --{_OWN[name]}.")
    if not _NAME.fullmatch(name):
        raise ValueError(f"Expected the name of an option of the script. Received: {name!r}.")
    if not values:
        raise ValueError(f"Axis {name!r} has no values.")
    values = [options.plain(value) for value in values]
    try:
        canonical(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Option {name!r} of the script is not a plain value: {error}.") from error
    options.refuse_duplicates(f"values of axis {name!r}", values)
    return tuple(values)
