"""Event logs of release 0.1.0 are read as that release read them.

`tests/data/event_logs` holds two runs of six and eight training steps on two layers, written by
GradientFlow (with `lag_data`), SpectralMonitor and AdaptiveTruncation, and in `answers.json` what
that release's reader returned and its tab answered: the output of `answers` below.
"""

import json
from pathlib import Path

import pytest
from plugin_client import get, make_client, read_grid

from kbptt import tensorboard
from kbptt.tensorboard import reader

LOGS = Path(__file__).parents[1] / "data" / "event_logs"


def answers(root):
    """What reader and tab make of the logs, in types of JSON."""
    client = make_client(root)
    tags = get(client, "tags").json
    found = {"tags": tags, "profiles": {}, "layers": {}, "read": {}, "last_step": {}}
    for run, of_run in sorted(tags.items()):
        found["last_step"][run] = reader.last_step(str(root / run))
        for by_lag in (False, True):
            for layer, (steps, norms) in tensorboard.read(root / run, by_lag=by_lag).items():
                found["read"][f"{run}/{layer}/{by_lag}"] = [steps.tolist(), norms.tolist()]
        for tag, fields in sorted(of_run.items()):
            # What that release said of the kind.
            fields["by_lag"] = fields.pop("kind") == "dL_dh_by_lag"
            header, values = read_grid(get(client, "grid", run=run, tag=tag, rows=3, cols=4))
            (summary,) = get(client, "summary", run=run, tag=tag).json
            (latest,) = get(client, "profiles", run=run, tag=tag).json
            found["profiles"][f"{run}/{tag}"] = {
                "grid": [header, values.tolist()],
                "at": [get(client, "profiles", run=run, tag=tag, step=s).json for s in (1, 4)],
                "summary": {**summary, "steps": latest["steps"]},
            }
            layer = fields["layer"]
            names = get(client, "statistics", layer=layer).json
            found["layers"][f"{run}/{layer}"] = {
                name: get(client, "trends", run=run, layer=layer, name=name).json for name in names
            }
    return found


def leaves(value, path=""):
    """`(path, number or text)` of all that is nested in lists and dictionaries."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            yield from leaves(part, f"{path}/{key}")
    else:
        yield path, value


def is_judged_anew(path):
    """Both layers have an output at every timestep, and are judged by lag since."""
    _, _, of_summary = path.partition("/summary/")
    return of_summary and not of_summary.startswith(("records", "damaged", "window", "steps"))


def test_logs_of_release_0_1_0_are_read_as_before():
    recorded = json.loads((LOGS / "answers.json").read_text("utf-8"))
    expected = {path: value for path, value in leaves(recorded) if not is_judged_anew(path)}
    found = dict(leaves(json.loads(json.dumps(answers(LOGS)))))
    assert expected.keys() <= found.keys()  # more may be said by now
    for path, value in expected.items():
        if isinstance(value, float):
            value = pytest.approx(value, rel=1e-6, nan_ok=True)
        assert found[path] == value, path
    # Windows of each kind, and lengths chosen during training, are among them.
    last = {name: of["at"][1][0] for name, of in recorded["profiles"].items()}
    assert last["windows/gradient_flow/lower/dL_dh"]["cuts"] == [2, 7]
    assert last["windows/gradient_flow/upper/dL_dh"]["cuts"] == []
    assert last["adaptive/gradient_flow/upper/dL_dh"]["window"] == 8
    assert last["windows/gradient_flow/upper/dL_dh_by_lag"]["decay"] > 0
