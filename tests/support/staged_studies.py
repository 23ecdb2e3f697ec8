"""Studies that run in this process, trial by trial: no cluster, no report."""

from kbptt.ablation import Ledger, runner, stages
from kbptt.ablation.errors import TrialError
from kbptt.ablation.trial import execute

# Two methods whose best learning rates differ, each tried at four points.
TUNED = {
    "tasks": "adding",
    "methods": "baseline,clip",
    "seeds": 2,
    "trial": "dummy_trials:validated",
    "tune": {"learning_rate": "1e-4..1e-2"},
    "tuning_trials": 4,
}


def run(grid, directory, stop_after=None, **opening):
    """Runs a study as `kbptt.ablation.compare` would, and returns the trials of its ledger.

    Args:
        grid: The grid.
        directory: Of the ledger.
        stop_after: After so many trials the rest is left, as if the process had been killed.
        **opening: Further arguments of `open_ledger`.
    """
    with runner.open_ledger(grid, directory, **opening) as ledger:
        while pending := list(ledger.each("pending")) or stages.advance(grid, ledger):
            for trial in pending:
                if stop_after == 0:
                    ledger.start(trial.key)
                    return ledger.trials()
                stop_after = stop_after and stop_after - 1
                ledger.start(trial.key)
                try:
                    result = execute(trial.config)
                    result.pop("files", None)
                    ledger.finish(trial.key, result)
                except TrialError as error:
                    ledger.fail(trial.key, str(error))
        return ledger.trials()


def of_stage(trials, stage):
    """The trials of a stage; None is the comparison."""
    return [trial for trial in trials if trial.config.get("stage") == stage]


def stored(directory):
    """The trials of a ledger."""
    with Ledger(directory, read_only=True) as ledger:
        return ledger.trials()
