"""`kbptt check` on runs that GradientFlow wrote, and its exit codes."""

import json
import shutil

import pytest
from command_line import kbptt, refused
from ill_models import data, linear, network

from kbptt.analysis import find_faults
from kbptt.analysis.findings import RULES
from kbptt.callbacks import AdaptiveTruncation, ClipByGlobalNorm, GradientFlow
from kbptt.tensorboard import read_evidence


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, and what the callbacks that wrote them found."""
    root = tmp_path_factory.mktemp("runs")
    x, y = data()
    for name, factor in (("ill", 0.8), ("well", 0.98)):
        flow = GradientFlow(root / "all" / name, log_freq=1, health=True, heatmap_freq=None)
        clip = ClipByGlobalNorm(1e-9 if name == "ill" else 1e9)
        model = network(linear(factor, truncation=36))
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[flow, clip])
        found = [str(one) for one in flow.findings()]
        assert found == [str(one) for one in find_faults(read_evidence(root / "all" / name))]
        assert len(found) == (2 if name == "ill" else 1)  # both cut too early, or vanish and clip
    return root / "all"


def test_findings_are_printed_with_thresholds(runs):
    result = kbptt("check", runs / "ill")
    assert result.exit_code == 0
    assert "rnn: vanishing. Over the 36 timesteps" in result.stdout
    assert "found  vanishing (rnn)" in result.stdout and "found  clip-always" in result.stdout
    assert "docs/findings.md#vanishing" in result.stdout and "vanishing 0.001" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--fail-on", "vanishing"], 1),
        (["--fail-on", "exploding,vanishing"], 1),
        (["--fail-on", "exploding, non-finite"], 0),
        (["--fail-on", "any"], 1),
        (["--fail-on", "vanishing", "--threshold", "vanishing=1e-6"], 0),
    ],
)
def test_exit_codes(runs, arguments, code):
    assert kbptt("check", runs / "ill", *arguments).exit_code == code


def test_all_runs_below_a_directory(runs):
    result = kbptt("check", runs, "--json", "--fail-on", "clip-always")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["thresholds"]["clip_rate"] == 0.95
    names = {run: [one["name"] for one in found] for run, found in content["findings"].items()}
    assert names == {
        str(runs / "ill"): ["vanishing", "clip-always"],
        str(runs / "well"): ["cut-too-short"],
    }


def test_what_could_not_be_judged_is_named(runs):
    arguments = "check", runs / "well", "--fail-on", "vanishing,clip-always"
    result = kbptt(*arguments)
    assert result.exit_code == 0 and "Not judged" not in result.stdout
    result = kbptt("check", runs / "well", "--fail-on", "non-finite", "--threshold", "records=99")
    assert result.exit_code == 0
    late = (*arguments, "--threshold", "records=99")
    assert "Not judged in every run: vanishing, clip-always." in kbptt(*late).stdout
    assert kbptt(*late).exit_code == 0 and kbptt(*late, "--require-judged").exit_code == 1


@pytest.fixture(scope="module")
def gateless(tmp_path_factory):
    """A SimpleRNN with full BPTT and no clip, whose health was measured."""
    directory = tmp_path_factory.mktemp("gateless")
    x, y = data()
    flow = GradientFlow(directory, log_freq=1, health=True, heatmap_freq=None)
    model = network(linear(0.98))
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[flow])
    return directory


@pytest.mark.parametrize("fail_on", ["any", "saturated-gates", "cut-too-short", "clip-always"])
def test_what_does_not_apply_counts_as_judged(gateless, fail_on):
    arguments = "check", gateless, "--fail-on", fail_on, "--require-judged"
    result = kbptt(*arguments)
    assert result.exit_code == 0 and "ot judged" not in result.stdout
    assert "does not apply: saturated-gates (no gates" in result.stdout
    content = json.loads(kbptt(*arguments, "--json").stdout)
    assert content["judged"] == {str(gateless): list(RULES)}
    assert content["not_judged"] == {str(gateless): {}}
    open_ones = ["cut-too-short", "window-too-long", "saturated-gates", "clip-always"]
    assert list(content["does_not_apply"][str(gateless)]) == open_ones


def test_what_is_refused(runs, tmp_path):
    assert "There is no directory" in refused("check", tmp_path / "none")
    assert "no gradient profiles" in refused("check", tmp_path)
    assert "did you mean 'vanishing'" in refused("check", runs, "--fail-on", "vanish")
    assert "did you mean 'units'" in refused("check", runs, "--threshold", "unit=1")
    assert "NAME=NUMBER" in refused("check", runs, "--threshold", "units")


def test_a_damaged_file_costs_its_rest_alone(runs, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(runs / "ill", copy)
    (file,) = copy.glob("*.gradient_flow")
    file.write_bytes(file.read_bytes()[:-100])
    result = kbptt("check", copy, "--fail-on", "vanishing")
    assert result.exit_code == 1


def test_a_window_that_adapts_is_the_one_in_force(tmp_path):
    x, y = data(per_timestep=True)
    import kbptt as library

    model = network(library.GRU(3, return_sequences=True, name="rnn"))
    adaptive = AdaptiveTruncation(data=(x, y), minimum=2, maximum=20, log_dir=tmp_path)
    flow = GradientFlow(tmp_path, log_freq=1, heatmap_freq=None)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[adaptive, flow])
    (layer,) = read_evidence(tmp_path).layers
    assert layer.window == model.layers[0].truncation.length
    assert layer.per_timestep and len(layer.by_lag) == 20
