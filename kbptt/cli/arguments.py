"""The arguments of `kbptt compare` that are no options of a trial, with their help."""

from pathlib import Path
from typing import Annotated

import typer

from kbptt.cli import completion, options

Tasks = Annotated[
    str | None,
    typer.Option(
        help="Tasks, separated by commas: see `kbptt tasks`.", autocompletion=completion.task
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        "--methods",
        "--method",
        help="Methods (see `kbptt methods`), separated by commas; '+' combines: orthogonal+clip.",
        autocompletion=completion.method,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        help="Number of seeds, or seeds (3,4,7). At least 6 are needed to show an effect."
    ),
]
LogDirectory = Annotated[
    Path, typer.Option(help="Directory for ledger, TensorBoard runs and reports.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file with tasks, methods, seeds, set, …; the command line takes precedence."
    ),
]
Design = Annotated[
    str | None,
    typer.Option(
        help="grid, add-one-in or leave-one-out. Default: grid.",
        autocompletion=completion.one_of("grid", "add-one-in", "leave-one-out"),
    ),
]
Tune = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=SPACE",
        help="Search space of an option: a range (learning_rate=1e-4..1e-2, units=16..64) or "
        "choices (clip=0.5,1,5). Every method gets its best values, by validation score, on every "
        "task. Repeat it for a joint space.",
        rich_help_panel="Tuning",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        help="Points of the space to try per method. Default: 8.", rich_help_panel="Tuning"
    ),
]
TuningSeeds = Annotated[
    int | None,
    typer.Option(
        help="Seeds per point, all different from the comparison's. Default: 2.",
        rich_help_panel="Tuning",
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        help="quasi-random, or tpe, which adapts to the scores and needs Optuna (the extra tune). "
        "Default: quasi-random.",
        autocompletion=completion.one_of("quasi-random", "tpe"),
        rich_help_panel="Tuning",
    ),
]
Workers = Annotated[
    int | None, typer.Option(help="Processes on this machine. Default: cores // threads.")
]
Scheduler = Annotated[
    str | None, typer.Option(help="Run on this Dask scheduler, such as tcp://host:8786.")
]
Retries = Annotated[int, typer.Option(help="How often to retry a trial that crashes.")]
TrialTimeout = Annotated[
    str | None,
    typer.Option(
        metavar="<time>",
        help="How long a trial may run: 90s, 30m, 12h. Default: no limit.",
    ),
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        metavar="<memory>",
        help="Memory that a trial may use: 4GB, or auto for an equal share per worker.",
    ),
]
Health = Annotated[bool, typer.Option("--health", help=options.HEALTH)]
Reference = Annotated[
    str | None,
    typer.Option(
        help="Method to compare with. Default: the baseline.", autocompletion=completion.method
    ),
]
Script = Annotated[
    str | None,
    typer.Option(
        metavar="<file>",
        help="Your own training script (or FILE:FUNCTION); --set etc. become its options.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="With --script, which of its metrics is the score. Default: score, or the first one."
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(help="With --script, max or min: which is better. Default: by the metric's name."),
]
Trial = Annotated[str | None, typer.Option(help="Function that runs a trial, as module:function.")]
Extend = Annotated[bool, typer.Option("--extend", help="Add to the ablation in the log directory.")]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Delete an ablation with a different configuration in the log directory.",
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Retry trials that crashed before.")
]
Directory = Annotated[
    Path | None, typer.Argument(help="Log directory of kbptt compare.", show_default=False)
]
Scores = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        help="Report on the scores in this file: one line per run, with the columns method, "
        "task, seed and score. Also reads a results.csv.",
    ),
]
