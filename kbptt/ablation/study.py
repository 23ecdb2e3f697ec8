"""The whole of an ablation in one call: plan, run, report."""

import contextlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

from kbptt import _checks, methods as method_registry
from kbptt._extras import require
from kbptt.ablation import clusters, progress, runner
from kbptt.ablation.environment import git_commit
from kbptt.ablation.grid import Grid, axes_of, read_yaml
from kbptt.ablation.ledger import Ledger
from kbptt.ablation.progress import literal
from kbptt.ablation.reporting import Report
from kbptt.ablation.results import Results
from kbptt.tasks import registry
from kbptt.tensorboard import command


def compare(
    tasks: Sequence[str] | str | None = None,
    methods: Sequence[str] | str | None = None,
    seeds: int | Sequence[int] | None = None,
    logdir: str | os.PathLike = "runs/compare",
    *,
    config: str | os.PathLike | None = None,
    set: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    retries: int = runner.RETRIES,
    extend: bool = False,
    overwrite: bool = False,
    retry_failed: bool = False,
    reference: str | None = None,
    verbose: bool | str = True,
    **options: Any,
) -> Report:
    """Runs methods × tasks × seeds and reports which method helps, by how much, and how sure.

    What `logdir` already holds is not run again, so the same call goes on where an interrupted one
    stopped. On this machine the trials run in processes that import the script they were started
    from: in a script, call this below ``if __name__ == "__main__":``.

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
        config: YAML file with `tasks`, `methods`, `seeds`, `set` and any of `**options` as keys;
            what is given here comes first.
        set: Mapping from an option to a list of values: an axis of the grid.
        scheduler: Address of a Dask scheduler to run on. Defaults to `None`, this machine.
        workers: Processes on this machine. Defaults to cores // threads.
        retries: How often a trial that crashes is tried again. Defaults to `2`.
        extend: Whether to add to an ablation in `logdir` whose trials are all in the new one.
        overwrite: Whether to delete an ablation in `logdir` that has another configuration. One
            that has the same is gone on with, as without: delete the directory to start anew.
        retry_failed: Whether to try trials again that crashed in an earlier run.
        reference: Label of the arm to compare with. Defaults to the baseline.
        verbose: Whether to show progress and the ranking; `"progress"` for the progress alone.
            Defaults to `True`.
        **options: `design`, `imports`, `trial` (see `Grid.make`), and options of model, optimizer,
            training and tasks with one value each: `epochs=20`, `units=32`, `length=200`, …

    Returns:
        A `Report`, also written into `logdir` as `results.csv`, `report.md` and `report.html`.

    Raises:
        ValueError: for anything wrong with the grid or the log directory, and for a method that
            cannot be built with its task and options; nothing has been trained then.
    """
    require("distributed", "jinja2", "matplotlib")
    given = {"tasks": tasks, "methods": methods, "seeds": seeds, "set": set}
    given = {name: value for name, value in given.items() if value is not None} | options
    if config is not None:
        given = _merge(read_yaml(config), given)
    for name, there_are in (("tasks", registry.names()), ("methods", method_registry.names())):
        if name not in given:
            raise ValueError(
                f"The grid is empty: name at least one of the {name}, with the argument `{name}` "
                f"or the option --{name}. There are: {', '.join(there_are)}."
            )
    grid = Grid.make(**{"seeds": 6, **given})
    threads = grid.arms[0].config["training"]["threads"]
    # What could be refused after hours of training is refused now.
    clusters.workers_for(1, workers, threads)
    if retries != 0:
        _checks.positive_integer("retries", retries, "Or 0.")
    Results(grid.arms, reference)
    # Tens of thousands take seconds to write down; nothing of this line stays.
    console = rich.console.Console(quiet=not verbose)
    try:
        with console.status(f"Planning {grid.size():,} trials"):
            ledger = runner.open_ledger(grid, logdir, extend, overwrite, retry_failed)
        with ledger:
            _note_commit(ledger)
            if verbose:
                for note in grid.notes():
                    _say(note)
            with progress.Progress(ledger, bool(verbose)) as shown:
                runner.run(
                    ledger,
                    scheduler=scheduler,
                    workers=workers,
                    threads=threads,
                    retries=retries,
                    on_event=shown.event,
                    on_wait=shown.refresh,
                )
    except KeyboardInterrupt:
        if verbose is True:
            _print_so_far(pathlib.Path(logdir), reference)
        raise
    return report(logdir, reference=reference, verbose=bool(verbose) and verbose != "progress")


def report(
    logdir: str | os.PathLike, *, reference: str | None = None, verbose: bool = True
) -> Report:
    """Reports on the ablation in `logdir`, finished or not.

    Args:
        logdir: The log directory of `compare`.
        reference: Label of the arm to compare with. Defaults to the baseline.
        verbose: Whether to print the ranking. Defaults to `True`.

    Returns:
        A `Report`, also written into `logdir` as `results.csv`, `report.md` and `report.html`.
    """
    found = Report(pathlib.Path(logdir), reference)
    if verbose:
        found.print()  # before a full disk or a directory that cannot be written ends it
    paths = found.write()
    if verbose:
        _say(f"Report: {paths[-1]}")
        _say(f"See it with: {command(found.directory)}")
    return found


def _say(line: str) -> None:
    rich.console.Console().print(literal(line), soft_wrap=True)


def _print_so_far(directory: pathlib.Path, reference: str | None) -> None:
    """Prints the ranking of an ablation that was interrupted, if there is any."""
    with contextlib.suppress(ValueError):  # interrupted before there was a ledger
        found = Report(directory, reference)
        if found.counts["done"]:
            found.print()
            done, total = found.counts["done"], sum(found.counts.values())
            print(f"Interrupted with {done} of {total} trials done: the same command goes on.")


def _note_commit(ledger: Ledger) -> None:
    """Adds the commit of the working directory to those that the ablation ran at."""
    commits, commit = ledger.commits, git_commit()
    if commit and commit not in commits and ledger.counts()["pending"]:
        ledger.set_meta("commits", [*commits, commit])


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`; an option given above as a value replaces an axis below and back."""
    axes = axes_of(below.get("set"))
    for name in above:
        axes.pop(name, None)
    new = axes_of(above.get("set"))
    below = {key: value for key, value in below.items() if key not in new}
    axes |= new
    return {**below, **above, **({"set": axes} if axes or "set" in below else {})}
