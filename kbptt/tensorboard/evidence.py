"""What findings are based on, from the event files of a run."""

import os
from collections.abc import Iterator

import numpy as np

from kbptt.analysis.evidence import Evidence, Last, LayerEvidence, of_health, of_run
from kbptt.tensorboard import layout, reader
from kbptt.tensorboard.ragged import Ragged
from kbptt.tensorboard.series import Records, Series


def read_evidence(log_dir: str | os.PathLike[str]) -> Evidence:
    """What a run has recorded, for `kbptt.analysis.find_faults`.

    Args:
        log_dir: Directory of one run of `kbptt.callbacks.GradientFlow` (its subdirectories are not
            searched).

    Raises:
        FileNotFoundError: If `log_dir` is not a directory.
    """
    scan = reader.Scan.of(log_dir)
    last = {key: (max(values), values[max(values)]) for key, values in scan.scalars.items()}
    layers = []
    for layer in sorted({*scan.profiles, *scan.lags}):
        chosen = sorted(scan.scalars.get((layer, "truncation"), {}).items())
        vectors, content = dict(sorted(scan.profiles.get(layer, {}).items())), scan.contents[layer]
        records = Records(np.array(list(vectors), np.int64), Ragged(list(vectors.values())))
        kind = layout.KINDS[layout.PROFILE]
        series = Series(records, kind, content, chosen, "overlap" in content)
        by_lag = scan.lags.get(layer)
        lags = by_lag[max(by_lag)] if by_lag else None
        layers.append(of_layer(layer, series, lags, last))
    return of_run(layers, last)


def of_layer(
    name: str,
    series: Series,
    by_lag: np.ndarray | None,
    last: Last,
) -> LayerEvidence:
    """What a run has recorded of a layer.

    Args:
        name: The layer's name.
        series: Its profiles.
        by_lag: Its last gradients by lag, lag 0 first, or None.
        last: The run's scalars.
    """
    steps = series.steps.tolist()
    timed = [(s, v) for s, v in zip(steps, series.norms.vectors, strict=True) if len(v)]
    statistics, looked_at = of_health(name, last)
    return LayerEvidence(
        name,
        per_timestep=series.per_timestep,
        profiles=[norms for _, norms in timed],
        windows=[series.judged_window(step, norms.size) for step, norms in timed],
        window=series.window(steps[-1] + 1 if steps else 0),
        by_lag=by_lag,
        statistics=statistics,
        looked_at=looked_at,
    )


def of_lags(name: str, series: Series) -> LayerEvidence:
    """What the gradients by lag alone show: a loss at every timestep, and its reach."""
    # Lag 0 is the last column.
    return LayerEvidence(
        name,
        per_timestep=True,
        window=series.window(series.steps.tolist()[-1]),
        by_lag=series.norms.vectors[-1][::-1],
    )


def runs(root: str | os.PathLike[str]) -> Iterator[str]:
    """The run directories at or below `root`, in the order of their names."""
    for directory, below, files in os.walk(root):
        below.sort()
        if any(name.endswith((reader.SUFFIX, reader.OTHER_SUFFIX)) for name in files):
            yield directory
