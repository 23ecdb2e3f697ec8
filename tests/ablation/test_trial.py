"""Real trials: reproducible to the bit, complete, and honest about divergence."""

import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import kbptt
from kbptt.ablation import arrays, training
from kbptt.ablation.grid import Grid
from kbptt.ablation.options import with_values

SMALL = {"units": 4, "length": 10, "sizes": [40, 20, 20], "epochs": 2, "batch_size": 16}


def config(method="clip", **options):
    grid = Grid.make(["adding"], [method], 1, **{**SMALL, **options})
    return grid.trials()[0].config


def searched(**options):
    """A trial of a search."""
    return with_values(
        config("clip", **options), {"learning_rate": 0.01}, seed=10**9, stage="tuning"
    )


CONFIGS = {
    "clip": config(),
    "again": config(),
    "health": {**config(), "health": True},  # which `run_trials` takes out
    "diverging": config("baseline", optimizer="sgd", learning_rate=1e30),
    "tuning": searched(),
    "tuning without tests": searched(sizes=[40, 20, 1]),
    "skipping": config("clip+agc", truncation=5, optimizer="sgd", learning_rate=1e30),
}


@pytest.fixture(scope="module")
def results():
    # A process of its own: TensorFlow's threads and determinism are set once for a process.
    script = pathlib.Path(__file__).parent / "run_trials.py"
    output = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(list(CONFIGS.values())),
        capture_output=True,
        text=True,
    )
    assert output.returncode == 0, output.stderr
    return dict(zip(CONFIGS, json.loads(output.stdout), strict=True))


def reproducible(result):
    kept = {k: v for k, v in result.items() if k not in ("cost", "environment", "files")}
    return json.dumps(kept, sort_keys=True)


def test_same_bits_again(results):
    assert reproducible(results["clip"]) == reproducible(results["again"])


def test_same_bits_where_the_health_is_logged(results):
    assert reproducible(results["clip"]) == reproducible(results["health"])
    logged = sorted(words for words in results["health"]["files"].values() if words)
    assert logged == [["dead_units"], ["hparams"]]


def test_a_search_leaves_the_test_data_alone(results):
    """Its score is the validation score, other test data change no bit, and no file is written."""
    result = results["tuning"]
    assert result["score"] == result["validation_score"] == min(result["curve"]["validation"])
    assert reproducible(result) == reproducible(results["tuning without tests"])
    assert "test" not in result and "gradient" not in result and not result.get("files")


def test_result_is_complete(results):
    result = results["clip"]
    assert result["status"] == "ok"
    assert (result["metric"], result["mode"]) == ("mse", "min")
    assert result["score"] == result["test"]["mse"]
    curve = result["curve"]
    assert curve["epoch"] == [1, 2]
    assert len(curve["loss"]) == len(curve["validation"]) == 2
    assert result["best_epoch"] == 1 + int(np.argmin(curve["validation"]))
    gradient = result["gradient"]["lstm_1"]
    assert len(gradient["start"]) == len(gradient["end"]) == 10
    assert min(gradient["start"]) > 0
    assert 0 < gradient["statistics_start"]["decay"] < 1
    steps = gradient["record"]["steps"]
    assert steps == list(range(6))  # 40 sequences in batches of 16, twice
    norms = arrays.decode(gradient["record"]["norms"])
    assert norms.shape == (6, 10)
    np.testing.assert_array_equal(norms[0], np.float32(gradient["start"]))
    np.testing.assert_array_equal(norms[-1], np.float32(gradient["end"]))
    assert result["clipping"]["clip_by_global_norm"]["threshold"] == 1.0
    assert result["cost"]["steps"] == 6 and result["cost"]["seconds_per_step"] > 0
    environment = result["environment"]
    assert environment["threads"] == 1 and environment["deterministic_ops"]
    assert environment["compiled_loops"] in (True, False)
    assert environment["kbptt"].startswith(kbptt.__version__)
    assert environment["tensorflow"] and environment["devices"]


def test_tensorboard_files_and_hparams(results):
    files = results["clip"]["files"]
    assert [words for words in files.values() if words] == [["hparams"]]  # in one file
    assert {name.partition("/")[0] for name in files if "/" in name} == {"train", "validation"}
    assert all("tfevents" in name for name in files)


def test_hparams_hold_options_and_scores(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.plugins.hparams import metadata

    result = {"status": "ok", "test": {"mse": 0.25}, "cost": {"seconds_per_step": 0.5}}
    training.write_hparams(str(tmp_path), config("orthogonal+clip", truncation="full"), result)
    (path,) = tmp_path.iterdir()
    values = [v for event in EventFileLoader(str(path)).Load() for v in event.summary.value]
    (session,) = [v.metadata.plugin_data.content for v in values if v.tag.startswith("_hparams_")]
    fields = metadata.parse_session_start_info_plugin_data(session).hparams.items()
    options = {name: getattr(value, value.WhichOneof("kind")) for name, value in fields}
    assert options["method"] == "orthogonal+clip" and options["task"] == "adding"
    assert options["seed"] == 0 and options["status"] == "ok"
    assert options["model.truncation"] == "full" and options["model.units"] == 4
    assert options["layer.recurrent_initializer"] == "OrthogonalPerGate"
    assert options["task.sizes"] == "[40,20,20]"
    scalars = {v.tag: v.tensor.float_val[0] for v in values if not v.tag.startswith("_hparams_")}
    assert scalars == {"test/mse": 0.25, "cost/seconds_per_step": 0.5}


def test_divergence_is_a_result(results):
    result = results["diverging"]
    assert result["status"] == "diverged" and result["score"] is None
    assert result["diverged_at"] == 1
    assert "test" not in result
    assert len(result["curve"]["epoch"]) <= 1  # it did not train on


def test_exploding_but_finite_is_a_score(results):
    result = results["skipping"]
    if result["status"] == "ok":
        assert math.isfinite(result["score"])
    else:
        assert result["score"] is None
    assert result["gradient"]["lstm_1"]["truncation"]["length"] == 5
