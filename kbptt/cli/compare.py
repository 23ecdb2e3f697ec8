"""`kbptt compare` and `kbptt report`."""

from pathlib import Path

import typer

from kbptt import _checks
from kbptt.ablation import limits
from kbptt.cli import arguments, options, terminal


@options.command(recurrent_initializer="the method's")
def compare(
    *,
    tasks: arguments.Tasks = None,
    methods: arguments.Methods = None,
    seeds: arguments.Seeds = None,
    logdir: arguments.LogDirectory = Path("runs/compare"),
    config: arguments.Config = None,
    design: arguments.Design = None,
    given: options.Given,
    tune: arguments.Tune = None,
    trials: arguments.Trials = None,
    tuning_seeds: arguments.TuningSeeds = None,
    sampler: arguments.Sampler = None,
    workers: arguments.Workers = None,
    scheduler: arguments.Scheduler = None,
    retries: arguments.Retries = 2,
    trial_timeout: arguments.TrialTimeout = None,
    memory_limit: arguments.MemoryLimit = None,
    health: arguments.Health = False,
    reference: arguments.Reference = None,
    script: arguments.Script = None,
    metric: arguments.Metric = None,
    mode: arguments.Mode = None,
    trial: arguments.Trial = None,
    extend: arguments.Extend = False,
    overwrite: arguments.Overwrite = False,
    retry_failed: arguments.RetryFailed = False,
) -> None:
    """Compare methods × tasks × seeds: which one helps, by how much, and how certain it is.

    Interrupt it at any time: the same command continues where it stopped.

    Exit code 1: some trials crashed on every attempt; the report omits them.

    kbptt compare --tasks adding --methods baseline,clip,orthogonal+clip --seeds 6
    """
    limits.integer("retries", retries, least=0, shown="--retries")
    typed = ("workers", workers, "--workers"), ("trials", trials, "--trials")
    for name, value, shown in (*typed, ("trials", tuning_seeds, "--tuning-seeds")):
        if value is not None:
            limits.integer(name, value, shown=shown)
    searching = {"--trials": trials, "--tuning-seeds": tuning_seeds, "--sampler": sampler}
    for shown, value in searching.items():
        if value is not None and not tune and config is None and script is None:
            raise ValueError(
                f"{shown} is given, but there is nothing to tune. Pass at least one option with "
                "--tune, such as --tune learning_rate=1e-4..1e-2."
            )
    with terminal.waiting("Reading the options", in_a_terminal_only=True):
        from kbptt.ablation import samplers, study

        settings, axes = given.read()
        if sampler is not None:
            _checks.one_of("--sampler", sampler, samplers.NAMES)
    grid = {"tasks": tasks, "methods": methods, "seeds": seeds, "design": design, "trial": trial}
    grid |= {"imports": given.imports or None, "set": axes or None}
    grid |= {"tune": options.assigned("--tune", tune or []) or None, "tuning_trials": trials}
    grid |= {"tuning_seeds": tuning_seeds, "tuning_sampler": sampler}
    grid |= {"script": script, "metric": metric, "mode": mode, "health": health or None}
    with terminal.saying_how_to_continue(logdir / "ledger.sqlite"):
        report = study.compare(
            logdir=logdir,
            config=config,
            scheduler=scheduler,
            workers=workers,
            retries=retries,
            trial_timeout=limits.seconds(trial_timeout, "--trial-timeout"),
            memory_limit=limits.memory(memory_limit, "--memory-limit"),
            extend=extend,
            overwrite=overwrite,
            retry_failed=retry_failed,
            reference=reference,
            **{name: value for name, value in grid.items() if value is not None},
            **settings,
        )
    if report.counts["failed"]:
        raise typer.Exit(1)


@options.command()
def report(
    directory: arguments.Directory = None,
    csv: arguments.Scores = None,
    reference: arguments.Reference = None,
) -> None:
    """Write results.csv, report.md, report.html and report.tex for an ablation, finished or not.

    With --csv it reports on the scores in a file, whatever produced them, and writes into the
    directory or, without one, next to the file.

    Example: kbptt report runs/study --csv scores.csv
    """
    directory = directory or (csv.parent if csv else None)
    if directory is None:
        raise typer.BadParameter(
            "Pass the log directory of kbptt compare, or a file of scores with --csv FILE."
        )
    with terminal.waiting("Reading the results"):
        from kbptt.ablation import study
    study.report(directory, reference=reference, csv=csv)
