"""The grid: methods × tasks × seeds × axes, as configurations of trials."""

import dataclasses
import functools
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kbptt import _checks, methods
from kbptt.ablation import limits, options, planned_tasks
from kbptt.ablation.early import TRIAL
from kbptt.ablation.options import Path, show
from kbptt.ablation.rows import Trial, canonical, trial_key
from kbptt.ablation.tuning import Tuning
from kbptt.ablation.values import load_yaml
from kbptt.tasks import registry

DESIGNS = ("grid", "add-one-in", "leave-one-out")
KEYS = ("tasks", "methods", "seeds", "design", "set", "imports", "trial")
KEYS += ("script", "metric", "mode")
KEYS += ("tune", "tuning_trials", "tuning_seeds", "tuning_sampler")
# How every trial is run: keys of a file, not of a grid.
LIMITS = ("trial_timeout", "memory_limit", "health")
# Arguments of `compare` that are about one run of a study.
OF_A_RUN = ("logdir", "workers", "scheduler", "retries", "reference")
OF_A_RUN += ("extend", "overwrite", "retry_failed")


@dataclasses.dataclass(frozen=True)
class Grid:
    """What an ablation compares. Make one with `Grid.make` or `Grid.from_yaml`."""

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    design: str
    settings: Mapping[Path, Any]
    axes: Mapping[Path, tuple[Any, ...]]
    trial: str = TRIAL
    imports: tuple[str, ...] = ()
    tuning: Tuning | None = None

    @classmethod
    def make(
        cls,
        tasks: Sequence[str] | str,
        methods: Sequence[str] | str,
        seeds: int | Sequence[int] = 1,
        design: str = "grid",
        set: Mapping[str, Any] | None = None,
        imports: Sequence[str] = (),
        trial: str = TRIAL,
        tune: Mapping[str, Any] | None = None,
        tuning_trials: int | None = None,
        tuning_seeds: int | None = None,
        tuning_sampler: str | None = None,
        **settings: Any,
    ) -> "Grid":
        """Checks the arguments and creates the grid.

        Args:
            tasks: Names of tasks.
            methods: Names of methods, combined with "+".
            seeds: Number of seeds (`6` = seeds 0 to 5) or a list of seeds.
            design: "grid" compares the methods as listed; "add-one-in" the baseline and the
                baseline plus each of them; "leave-one-out" all of them combined, and without each.
            set: Mapping from an option's name to a list of values: an axis.
            imports: Modules that register the user's tasks or methods.
            trial: Import path of the function that runs a trial.
            tune: Mapping from an option's name to its search space: a range ("1e-4..1e-2",
                "16..64"), a list of choices, or ``{"low": …, "high": …, "log": …}``. Every method
                gets its best values on every task before it is compared.
            tuning_trials: Points of the space to try per method. Defaults to `8`.
            tuning_seeds: Seeds per point, all different from the comparison's. Defaults to `2`.
            tuning_sampler: "quasi-random" (default) or "tpe", which needs Optuna.
            **settings: Options with one value: `epochs=20`, `units=32`, `length=200`, …
        """
        imports = tuple(options.parse_names("imports", imports, empty=True))
        registry.import_modules(imports)
        planned_tasks.planned.cache_clear()  # a user's file may have changed
        tasks = options.parse_names("tasks", tasks)
        for task in tasks:
            registry.options(task)
        tuning = Tuning.make(tasks, tune, tuning_trials, tuning_seeds, tuning_sampler)
        names = [*settings, *axes_of(set), *(tuning.space if tuning else ())]
        options.refuse_twice((name, name) for name in names)
        fixed, axes = _checked(settings, axes_of(set), tasks)
        if tuning:
            fixed |= tuning.fixed_tests(tasks, {**fixed, **axes})
        grid = cls(
            tasks=tuple(tasks),
            methods=tuple(_design(design, options.parse_names("methods", methods))),
            seeds=tuple(options.parse_seeds(limits.typed_integers(seeds))),
            design=design,
            settings=fixed,
            axes=axes,
            trial=trial,
            imports=imports,
            tuning=tuning,
        )
        options.refuse_duplicates("seeds", grid.seeds)
        if tuning:
            tuning.check_seeds(grid.seeds)
        limits.integer("trials", grid.size(), least=0, shown="methods × tasks × seeds × axes")
        _ = grid.arms  # raises the errors of all combinations now
        return grid

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], **overrides: Any) -> "Grid":
        """Reads a grid from a YAML file: the arguments of `make` as keys."""
        found = {key: v for key, v in read_yaml(path).items() if key not in LIMITS}
        return cls.make(**{**found, **overrides})

    def trials(self) -> list[Trial]:
        """The trials, all methods of a seed before the next seed, so that a table fills evenly.

        With tuning, those of the comparison as they are before the values are known.
        """
        return [arm.with_seed(seed) for seed in self.seeds for arm in self.arms]

    cells = trials  # its first name

    @functools.cached_property
    def arms(self) -> list[Trial]:
        """The trials of the first seed: all that is checked, since the other seeds repeat them."""
        if not self.size():
            raise ValueError("The grid is empty: pass at least one task, one method and one seed.")
        arms = [
            self._arm(task, method, values)
            for task in self.tasks
            for values in self._points(task)
            for method in self.methods
        ]
        seen: dict[str, str] = {}
        for arm in arms:
            key = trial_key({**arm.config, "method": arm.config["method"]["definition"]})
            name = arm.config["method"]["name"]
            if key in seen:
                raise ValueError(
                    f"Methods {seen[key]!r} and {name!r} are the same trial: use only one of them."
                )
            seen[key] = name
        return arms

    @property
    def threads(self) -> int:
        """The number of threads of every trial."""
        return self.arms[0].config["training"]["threads"]

    def size(self) -> int:
        """The number of trials, those of the searches included."""
        points = sum(math.prod(map(len, self._axes(task).values())) for task in self.tasks)
        searched = self.tuning.points * len(self.tuning.seeds) if self.tuning else 0
        return (len(self.seeds) + searched) * len(self.methods) * points

    def _axes(self, task: str) -> dict[Path, tuple[Any, ...]]:
        """The axes that apply to a task."""
        others = {t for t in self.tasks if t != task}
        return {path: values for path, values in self.axes.items() if path[0] not in others}

    def _points(self, task: str) -> list[dict[Path, Any]]:
        """Every combination of the axes that apply to a task."""
        axes = self._axes(task)
        return [
            dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
        ]

    def notes(self) -> list[str]:
        """What the tasks report about the choices they made: `Task.describe` of each."""
        of_tasks = (arm.config["task"] for arm in self.arms)
        chosen = {(t["name"], json.dumps(t["options"])) for t in of_tasks}
        notes = [(name, planned_tasks.planned(name, given).note) for name, given in sorted(chosen)]
        return list(dict.fromkeys(f"{name}: {note}" for name, note in notes if note))

    def configuration(self) -> dict[str, Any]:
        """The grid in JSON types, with which a later run in the same directory is compared."""
        files = {
            arm.directory.split("/")[1]: arm.config["task"]["file"]
            for arm in self.arms
            if "file" in arm.config["task"]
        }
        return {
            "tasks": list(self.tasks),
            "methods": {
                arm.config["method"]["name"]: arm.config["method"]["definition"]
                for arm in self.arms
            },
            "seeds": list(self.seeds),
            "design": self.design,
            "settings": {options.display(k): v for k, v in self.settings.items()},
            "axes": {options.display(k): list(v) for k, v in self.axes.items()},
            "imports": list(self.imports),
            "trial": self.trial,
            **({"files": files} if files else {}),
            **({"tuning": self.tuning.configuration()} if self.tuning else {}),
        }

    def _arm(self, task: str, name: str, axes: dict[Path, Any]) -> Trial:
        method = methods.get(name)
        chosen = {**options.DEFAULTS, **self.settings, **axes}
        layer = {n: v for (section, n), v in chosen.items() if section == "layer"}
        optimizer = {n: v for (section, n), v in chosen.items() if section == "optimizer"}
        # A method overrides a default, but not an option that the user set.
        given = {("layer", n) for n in layer} | {*self.settings, *axes}
        given |= self.tuning.paths if self.tuning else set()
        cell = chosen["model", "cell"]
        definition = method.definition(cell)
        for section in ("layer", "optimizer"):
            values = definition[section]
            for argument in values:
                if (section, argument) in given:
                    raise ValueError(
                        f"Method {name!r} sets the {section} argument `{argument}`, and so does "
                        f"the option {options.display((section, argument))!r}: use one of them."
                    )
        if method.cells is not None and cell not in method.cells:
            raise ValueError(
                f"Method {name!r} is for {' and '.join(method.cells)}, not for {cell}. "
                f"Choose it with --cell {method.cells[0]}."
            )
        task_options = {
            option: chosen[section, option]
            for section, option in chosen
            if section in ("task", task) and (section, option) not in options.DEFAULTS
        }
        config = {
            "task": {"name": task, "options": task_options},
            "method": {"name": name, "definition": definition},
            "model": {
                **{n: v for (section, n), v in chosen.items() if section == "model"},
                "layer": {**methods.BASE_LAYER, **layer, **definition["layer"]},
            },
            "optimizer": {**optimizer, **definition["optimizer"]},
            "training": {n: v for (section, n), v in chosen.items() if section == "training"},
            "seed": self.seeds[0],
            "imports": list(self.imports),
            "trial": self.trial,
        }
        try:
            canonical(config)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"An option of method {name!r}, task {task!r} is not a plain value: {error}."
            ) from error
        planned = planned_tasks.planned(task, json.dumps(task_options))
        config["task"] = planned.config.copy()
        config["training"] = planned_tasks.training(config["training"], planned)
        ours = {k: v for k, v in axes.items() if k[0] not in ("task", *self.tasks)}
        theirs = {k: v for k, v in axes.items() if k[0] in ("task", task)}
        theirs = {("task", option): value for (_, option), value in theirs.items()}
        parts = (_label(name, ours), _label(task, theirs), str(self.seeds[0]))
        return Trial.planned(config, "/".join(options.slug(part) for part in parts))


def _checked(
    settings: Mapping[str, Any], given_axes: Mapping[str, Any], tasks: Sequence[str]
) -> tuple[dict[Path, Any], dict[Path, tuple[Any, ...]]]:
    """Settings and axes by path, with values in their canonical form."""
    fixed, axes = {}, {}
    for name, value in settings.items():
        path = options.resolve(name, tasks)
        fixed[path] = options.check(path, value)
    for name, values in given_axes.items():
        path = options.resolve(name, tasks)
        values = values if isinstance(values, list) else [values]
        values = [options.check(path, value) for value in values]
        if not values:
            raise ValueError(f"Axis {name!r} has no values.")
        options.refuse_duplicates(
            f"values of axis {name!r}",
            values,
            " If a value is itself a list, such as sizes, nest it in a list: [[100, 20, 20]].",
        )
        if len(values) == 1:
            fixed[path] = values[0]
        elif path == ("training", "threads"):
            raise ValueError(
                "`threads` cannot be an axis: a worker process has a fixed number of "
                "threads. Run one ablation per number."
            )
        else:
            axes[path] = tuple(values)
    return fixed, axes


def axes_of(set: Any) -> dict[str, Any]:
    """The argument `set` of `Grid.make` as a dict, or `ValueError`."""
    if set is not None and not isinstance(set, Mapping):
        raise ValueError(
            "Invalid value for argument `set`. Expected a mapping from options to lists of values. "
            f"Received: set={set!r} (of type {type(set).__name__})."
        )
    return dict(set or {})


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the arguments of `Grid.make` from a YAML file; unknown keys are refused."""
    limits.check_file(path)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ValueError(f"Cannot read {str(path)!r}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not UTF-8 text: {error}.") from error
    try:
        content = load_yaml(text)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not valid YAML: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"Expected a mapping in {str(path)!r} with keys such as tasks, methods and seeds. "
            f"Received: {type(content).__name__}."
        )
    valid = [*KEYS, *LIMITS, *options.short_names()]
    for key in content:
        if key in OF_A_RUN:
            raise ValueError(
                f"`{key}` cannot be set in {str(path)!r}, which describes the comparison. Pass it "
                f"to the run, with --{key.replace('_', '-')} or `{key}=`."
            )
        if key not in valid:
            raise ValueError(
                f"Unknown key in {str(path)!r}: {key!r}. Valid keys: {', '.join(valid)}; "
                "options of tasks go under `set`."
            )
    return content


def difference(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Lines that describe how two configurations differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            path = f"{name}.{key}" if name else key
            if key not in before:
                yield f"{path}: + {_short(now[key])}"
            elif key not in now:
                yield f"{path}: - {_short(before[key])}"
            elif path == "script.digest" and before[key] != now[key]:
                yield f"script: the content of {now.get('path')} has changed"
            else:
                yield from difference(before[key], now[key], path)
    elif before != now:
        yield f"{name or 'configuration'}: {_short(before)} → {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _design(design: str, names: list[str]) -> list[str]:
    _checks.one_of("design", design, DESIGNS)
    for name in names:
        methods.get(name)
    options.refuse_duplicates("methods", names)
    if design == "grid":
        return names
    parts = [name for name in names if name != "baseline"]
    if not parts:
        raise ValueError(f"The design {design!r} needs methods besides the baseline.")
    if design == "add-one-in":
        return ["baseline", *parts]
    if len(parts) < 2:
        raise ValueError(
            "The design 'leave-one-out' needs at least two methods besides the baseline."
        )
    without = ["+".join(p for p in parts if p != left) for left in parts]
    return ["+".join(parts), *without]


def _label(name: str, axes: Mapping[Path, Any]) -> str:
    return ",".join([name, *(f"{options.display(k)}={show(v, k)}" for k, v in axes.items())])
