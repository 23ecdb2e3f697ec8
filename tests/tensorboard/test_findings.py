"""The findings of the tab are those of `kbptt check` on the same runs."""

import numpy as np
import pytest
from gradient_flow_tab import decaying, write_run
from plugin_client import get, make_client, summary

from kbptt.analysis import find_faults, findings, gradient_flow, summary as summaries
from kbptt.tensorboard import layout, read_evidence, reader, writer


def content(layer, loss, window=None):
    return layout.content(layer, loss, window, None, "end")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "ill", lambda step: decaying(0.5), layers=("lower", "upper"))
    write_run(root / "well", lambda step: decaying(0.97))
    write_run(root / "short", lambda step: decaying(0.97), window=20)
    more = writer.EventWriter(str(root / "ill"), reader.OTHER_SUFFIX)
    statistics = {"dead_units": 0.2, "saturated_units": 0.5, "gate_f_closed": 1.0, "gate_f_open": 0}
    tags = {layout.statistic_tag("upper", name): v for name, v in statistics.items()}
    tags[layout.statistic_tag("optimizer", "clip_rate")] = 1.0
    tags[layout.statistic_tag("optimizer", "nonfinite_steps")] = 3.0
    more.write(100, [writer.scalar_value(tag, value) for tag, value in tags.items()])
    by_lag = writer.EventWriter(str(root / "lags"), reader.SUFFIX)
    for step in (1, 2, 3):
        values = [
            writer.profile_value("rnn", decaying(1.0), content("rnn", "all", 8)),
            writer.lag_value("rnn", decaying(0.5)[::-1], content("rnn", "all", 8)),
            writer.state_value("rnn", "h", decaying(1.0), content("rnn", "all", 8)),
        ]
        by_lag.write(step, values)
    return root


def test_the_same_as_on_the_command_line(root):
    client = make_client(root)
    runs = ["ill", "well", "short", "lags"]
    answer = get(client, "findings", run=runs).json
    found = {one["run"]: one["findings"] for one in answer["runs"]}
    for run in runs:
        expected = [one._asdict() for one in find_faults(read_evidence(root / run))]
        assert found[run] == [{k: pytest.approx(v) for k, v in one.items()} for one in expected]
    names = {run: {(one["name"], one["where"]) for one in of} for run, of in found.items()}
    assert names["ill"] == {
        ("vanishing", "lower"),
        ("vanishing", "upper"),
        ("saturated-gates", "upper, gate f"),
        ("dead-units", "upper"),
        ("clip-always", "clip"),
        ("non-finite", ""),
    }
    assert names["well"] == set() and names["short"] == {("cut-too-short", "lstm")}
    assert names["lags"] == set()  # 0.5^7 at the cut, and 0.0078 in the window
    judged = {one["run"]: one["judged"] for one in answer["runs"]}
    assert "saturated-gates" in judged["ill"] and "saturated-gates" not in judged["well"]
    assert set(answer["rules"]) == set(findings.RULES)


@pytest.mark.parametrize("run", ["ill", "well", "short", "lags"])
def test_the_verdict_is_that_of_the_command_line(root, run):
    """In the row of the tab, in `flow.summary()` and in the findings."""
    client, recorded = make_client(root), read_evidence(root / run)
    for layer in recorded.layers:
        shown = summary(client, run, layout.profile_tag(layer.name))
        printed = f"{layer.name}: {shown['verdict']}. {shown['reason']}"
        assert printed in summaries.text(recorded).splitlines()
        named = {one.name for one in find_faults(recorded) if one.where == layer.name}
        assert (shown["verdict"] in named) == (shown["verdict"] in gradient_flow.BAD)


def test_losses_of_every_timestep_are_judged_by_lag(root):
    """0.5^7 within the window, though the sum of all losses is the same at every timestep."""
    client = make_client(root)
    direct, by_lag = (
        summary(client, "lags", tag) for tag in (layout.profile_tag("rnn"), layout.lag_tag("rnn"))
    )
    assert direct["verdict"] == by_lag["verdict"] == "decaying"
    assert direct["reason"] == by_lag["reason"] and "0.5^7" in direct["reason"]
    assert direct["decay"] == by_lag["decay"] == pytest.approx(0.5)
    assert (direct["first_step"], direct["last_step"], direct["window"]) == (3, 3, 8)


@pytest.mark.parametrize(("norm", "verdict"), [(1.0, "not judged"), (np.nan, "non-finite")])
def test_without_gradients_by_lag_there_is_no_verdict_on_them(tmp_path, norm, verdict):
    events = writer.EventWriter(str(tmp_path / "a"), reader.SUFFIX)
    for step in range(3):
        norms = np.full(20, norm, np.float32)
        events.write(step, [writer.profile_value("rnn", norms, content("rnn", "all"))])
    shown = summary(make_client(tmp_path), "a", layout.profile_tag("rnn"))
    assert shown["verdict"] == verdict
    assert ("lag_data" in shown["reason"]) == (verdict == "not judged")
    assert f"rnn: {verdict}. " in summaries.text(read_evidence(tmp_path / "a"))


def test_bounds_of_the_request(root):
    client = make_client(root)

    def names(*bounds):
        answer = get(client, "findings", run="ill", threshold=list(bounds)).json
        return [one["name"] for one in answer["runs"][0]["findings"]], answer["thresholds"]

    assert "vanishing" in names()[0] and names()[1]["vanishing"] == 1e-3
    found, bounds = names("vanishing=1e-20", "units=0.9")
    assert "vanishing" not in found and "dead-units" not in found
    assert (bounds["vanishing"], bounds["units"]) == (1e-20, 0.9)
    for bad in ("vanishing", "vanishing=x", "vanish=1", "vanishing=5"):
        assert get(client, "findings", status=400, run="ill", threshold=bad).text


def test_a_run_without_data_has_nothing_to_judge(root):
    answer = get(make_client(root), "findings", run=["none", "well"]).json
    assert [one["judged"] == [] for one in answer["runs"]] == [True, False]


def test_norms_of_states_are_a_kind_without_verdict(root):
    client = make_client(root)
    kinds = {one["name"]: one for one in get(client, "runs").json["kinds"]}
    assert kinds["h_norm"]["gradient"] is False and "h_norm" in {
        about["kind"] for about in get(client, "tags").json["lags"].values()
    }
    tag = "gradient_flow/rnn/h_norm"
    (profile,) = get(client, "profiles", run="lags", tag=tag).json
    assert profile["cuts"] == [] and profile["norms"] == [1.0] * len(profile["norms"])
