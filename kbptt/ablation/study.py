"""A complete ablation in one call: plan, run, report."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kbptt import _checks, methods as method_registry
from kbptt._extras import require
from kbptt.ablation import clusters, describing, early, limits, progress, runner, stages, text
from kbptt.ablation.environment import git_commit
from kbptt.ablation.grid import Grid, axes_of, read_yaml
from kbptt.ablation.ledger import Ledger
from kbptt.ablation.reporting import Report
from kbptt.ablation.results import Results
from kbptt.ablation.script_grid import ScriptGrid
from kbptt.ablation.text import literal, print_columns
from kbptt.tasks import registry
from kbptt.tensorboard import command


def compare(
    tasks: Sequence[str] | str | None = None,
    methods: Sequence[str] | str | None = None,
    seeds: int | Sequence[int] | None = None,
    logdir: str | os.PathLike[str] = "runs/compare",
    *,
    config: str | os.PathLike[str] | None = None,
    set: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    retries: int = runner.RETRIES,
    trial_timeout: float | str | None = None,
    memory_limit: int | str | None = None,
    health: bool | None = None,
    extend: bool = False,
    overwrite: bool = False,
    retry_failed: bool = False,
    reference: str | None = None,
    verbose: bool | str = True,
    **options: Any,
) -> Report:
    """Runs methods × tasks × seeds; reports which method helps, by how much, and how certainly.

    Trials that are already in `logdir` are not repeated, so the same call resumes an interrupted
    one. On this machine, the trials run in processes that import the script they were started from,
    so in a script, call this below ``if __name__ == "__main__":``.

    Example:

    ```python
    report = kbptt.ablation.compare(
        tasks=["adding"], methods=["baseline", "clip"], seeds=6, logdir="runs/clip", epochs=20
    )
    ```

    Args:
        tasks: Names of tasks (`kbptt.tasks.names()`).
        methods: Names of methods (`kbptt.methods.names()`), combined with "+".
        seeds: Number of seeds, or a list of them. Defaults to `6`, the fewest that can show an
            effect at the 5 % level.
        logdir: Directory for ledger, TensorBoard runs and reports. Defaults to `"runs/compare"`.
        config: YAML file with `tasks`, `methods`, `seeds`, `set`, `trial_timeout`, `memory_limit`,
            `health` and any of `**options` as keys; arguments of this function take precedence.
        set: Mapping from an option to a list of values: an axis of the grid.
        scheduler: Address of a Dask scheduler to run on. Defaults to `None`, this machine.
        workers: Processes on this machine. Defaults to cores // threads.
        retries: How often to retry a trial that crashes. Defaults to `2`.
        trial_timeout: Time limit of a trial: seconds, "30m", "12h". Defaults to `None`, no limit.
        memory_limit: Memory of a trial: bytes, "4GB", or "auto" for an equal share per worker.
            Defaults to `None`, no limit.
        health: Whether trials log `GradientFlow(health=True)`; not compared. Defaults to `False`.
        extend: Whether to add to an ablation in `logdir` whose trials are all in the new one.
        overwrite: Whether to delete an ablation in `logdir` with a different configuration. An
            ablation with the same configuration is resumed: delete the directory to start again.
        retry_failed: Whether to retry trials that crashed in an earlier run.
        reference: Label of the arm to compare with. Defaults to the baseline.
        verbose: Whether to show progress and the ranking (default), or only the `"progress"`.
        **options: `design`, `imports`, `trial`, `tune`, `tuning_trials`, `tuning_seeds`,
            `tuning_sampler` (see `Grid.make`), and options of model, optimizer, training and tasks
            with one value each: `epochs=20`, `units=32`, `length=200`, …; or your own `script`,
            with `metric`, `mode` and its options (`ScriptGrid.of`).

    Returns:
        A `Report`, also written to `logdir` as `results.csv`, `report.md`, `report.html` and
        `report.tex` (tables for LaTeX). A notebook displays it.

    Raises:
        ValueError: for anything wrong with the grid or the log directory, and for a method that
            cannot be built with its task and options, before anything is trained.
    """
    named = {"tasks": tasks, "methods": methods, "seeds": seeds, "set": set}
    given = {n: v for n, v in named.items() if v is not None} | options
    in_file = {} if config is None else read_yaml(config)
    running = {"scheduler": scheduler, "workers": workers, "retries": retries}
    running |= _limits(in_file, trial_timeout, memory_limit, health)
    opening = extend, overwrite, retry_failed
    grid, ledger = _plan(in_file, given, running, reference, logdir, opening, bool(verbose))
    with _printing_so_far(pathlib.Path(logdir), reference, verbose is True), ledger:
        _run(grid, ledger, reference, running, bool(verbose))
    return report(logdir, reference=reference, verbose=bool(verbose) and verbose != "progress")


def report(
    logdir: str | os.PathLike[str],
    *,
    reference: str | None = None,
    csv: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> Report:
    """Reports on the ablation in `logdir`, finished or not, or on scores from any source.

    Args:
        logdir: The log directory of `compare`; with `csv` the directory to write into.
        reference: Label of the arm to compare with. Defaults to the baseline.
        csv: CSV file with the columns `method`, `task`, `seed` and `score`, one line per run, or
            the `results.csv` of a report; `kbptt.ablation.scores` lists the other columns. Defaults
            to None: the ledger in `logdir`.
        verbose: Whether to print the ranking. In a notebook, the report is not printed but
            displayed as the value of a cell. Defaults to `True`.

    Returns:
        A `Report`, also written to `logdir` as `results.csv` (not with `csv`), `report.md`,
        `report.html` and `report.tex`.

    Raises:
        LedgerError: if there is no ablation, or for a line of the CSV file that cannot be used.
    """
    with text.console(quiet=not verbose).status("Reading the results"):
        found = Report(pathlib.Path(logdir), reference, csv)
    printed = verbose and not text.in_a_notebook()
    if printed:
        found.print()  # first, because writing may fail
    paths = found.write()
    if verbose:
        page = next(path for path in paths if path.suffix == ".html")
        _say(f"Report: {page}")
        if printed and found.tensorboard:
            _say(f"See the runs with: {command(found.directory)}")
    return found


def _limits(
    in_file: dict[str, Any], trial_timeout: Any, memory_limit: Any, health: Any
) -> dict[str, Any]:
    """How every trial is run, taken out of the file's keys where it is not given."""
    found = {"trial_timeout": trial_timeout, "memory_limit": memory_limit, "health": health}
    for name, value in found.items():
        below = in_file.pop(name, None)
        found[name] = below if value is None else value
    return {
        "trial_timeout": limits.seconds(found["trial_timeout"]),
        "memory_limit": limits.memory(found["memory_limit"]),
        "health": _checks.flag("health", found["health"] or False),
    }


def _grid(in_file: dict[str, Any], given: dict[str, Any]) -> Grid:
    """The grid of a YAML file, and of the arguments, which take precedence."""
    given = {"seeds": 6, **(_merge(in_file, given) if in_file else given)}
    if "script" in given:
        return ScriptGrid.of(**given)
    for name in {"metric", "mode"} & given.keys():
        raise ValueError(f"`{name}` is for your own script: pass `script` (--script), too.")
    for name, there_are in (("tasks", registry.names()), ("methods", method_registry.names())):
        if name not in given:
            raise ValueError(
                f"The grid is empty: pass at least one of the {name}, with the argument `{name}` "
                f"or the option --{name}. Available: {', '.join(there_are)}."
            )
    return Grid.make(**given)


def _plan(
    in_file: dict[str, Any],
    given: dict[str, Any],
    running: dict[str, Any],
    reference: str | None,
    logdir: str | os.PathLike[str],
    opening: tuple[bool, bool, bool],
    verbose: bool,
) -> tuple[Grid, Ledger]:
    """The grid, checked, and a ledger with its trials."""
    # Reading large files and storing tens of thousands of trials takes seconds; the line
    # disappears afterwards.
    with text.console(quiet=not verbose).status("Planning the trials") as status:
        grid = _grid(in_file, given)
        _refuse_early(grid, running, reference)
        status.update(f"Planning {grid.size():,} trials")
        return grid, runner.open_ledger(grid, logdir, *opening)


def _refuse_early(grid: Grid, running: Mapping[str, Any], reference: str | None) -> None:
    """Refuses now what would otherwise be refused after hours of training."""
    require("distributed", "jinja2", "matplotlib")
    clusters.workers_for(1, running["workers"], grid.threads)
    if running["retries"] != 0:
        _checks.positive_integer("retries", running["retries"], "Or 0.")
    if running["health"] and grid.trial != Grid.trial:
        raise ValueError(
            "`health` (--health) is for kbptt's own trials; in your own script or trial function, "
            "use kbptt.callbacks.GradientFlow(…, health=True)."
        )
    Results(grid.arms, reference)
    for arm in grid.arms:
        early.check(arm.config, grid.tuning.space if grid.tuning else {})


def _run(
    grid: Grid, ledger: Ledger, reference: str | None, running: dict[str, Any], verbose: bool
) -> None:
    """Runs the pending trials of a ledger, and says before what they are."""
    _note_commit(ledger)
    _note_limits(ledger, running)
    if verbose and ledger.counts()["pending"]:
        rows = [*describing.study(grid), ("log directory", str(ledger.directory))]
        print_columns(text.console(highlight=False), rows)
    if verbose:
        for note in grid.notes():
            _say(note)
    shown = progress.Progress(
        ledger,
        verbose,
        later=stages.unplanned(grid, ledger),
        starting=describing.starting(grid),
        controls=grid.tuning is not None and sum(ledger.counts().values()) <= grid.size(),
    )
    with shown:
        runner.run(
            ledger,
            threads=grid.threads,
            on_event=shown.event,
            on_wait=shown.refresh,
            on_stop=shown.stopping,
            more=functools.partial(stages.advance, grid, ledger, reference),
            **running,
        )


def _say(line: str) -> None:
    text.console().print(literal(line), soft_wrap=True)


def _is_an_interrupt(error: BaseException | None) -> bool:
    """Whether an exception is Ctrl-C, or what a library has made of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


@contextlib.contextmanager
def _printing_so_far(
    directory: pathlib.Path, reference: str | None, verbose: bool
) -> Iterator[None]:
    """After Ctrl-C prints the ranking of the ablation, if any trial is done."""
    try:
        yield
    except BaseException as error:
        if verbose and _is_an_interrupt(error):
            found = Report(directory, reference)
            done, total = found.counts["done"], sum(found.counts.values())
            if done:
                found.print()
            rest = "run the same command to continue"
            _say(f"Interrupted with {done} of {total} trials done: {rest}.")
        raise


def _note_commit(ledger: Ledger) -> None:
    """Records the commit of the working directory among those that the ablation ran at."""
    commits, commit = ledger.commits, git_commit()
    if commit and commit not in commits and ledger.counts()["pending"]:
        ledger.set_meta("commits", [*commits, commit])


def _note_limits(ledger: Ledger, running: Mapping[str, Any]) -> None:
    """Records how the trials are run, which is no part of what is compared."""
    defaults = {"trial_timeout": None, "memory_limit": None, "retries": runner.RETRIES}
    defaults["health"] = False
    chosen = {name: running[name] for name in defaults if running[name] != defaults[name]}
    if ledger.counts()["pending"] and chosen != (ledger.meta("limits") or {}):
        ledger.set_meta("limits", chosen)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merges `above` over `below`, and their axes and search spaces by name.

    An option has one of them: a value, an axis or a space above replaces each of these below.
    """
    new = {"set": axes_of(above.get("set"))}
    old = {"set": axes_of(below.get("set"))}
    if all(isinstance(one.get("tune") or {}, Mapping) for one in (below, above)):
        new["tune"], old["tune"] = dict(above.get("tune") or {}), dict(below.get("tune") or {})
    named = {*above, *(name for axes in new.values() for name in axes)}
    below = {key: value for key, value in below.items() if key in new or key not in named}
    merged = {**below, **above}
    for key, axes in new.items():
        kept = {name: value for name, value in old[key].items() if name not in named}
        if kept or axes or key in below:
            merged[key] = {**kept, **axes}
    return merged
