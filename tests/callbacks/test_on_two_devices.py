"""Under MirroredStrategy callbacks record what one device with the same global batch gives.

The two logical CPUs exist in one process of their own, so that they slow down no other test.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("train_on_two_devices.py")
TOLERANCE = {"float32": 1e-3, "mixed_float16": 3e-2}


@pytest.fixture(
    scope="module", params=["float32", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def policy(request):
    return request.param


@pytest.fixture(scope="module")
def results(policy):
    command = [sys.executable, str(SCRIPT), policy]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


def same(a, b, tolerance):
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_allclose(b[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


def test_gradient_flow(policy, results):
    one, two = (results["gradient_flow"][name] for name in ("one", "two"))
    same(one["recorded"], two["recorded"], TOLERANCE[policy])
    same(one["written"], two["written"], TOLERANCE[policy])
    assert two["same directory"]
    profiles = np.array(two["recorded"]["above"])
    assert profiles.shape == (12, 12) and np.all(profiles > 0)
    assert len(two["written"]["gradient_flow_stats/optimizer/global_norm"]) == 12
    assert two["written"]["gradient_flow_stats/optimizer/clip_rate"][-1] == [12, 1.0]


def test_adaptive_truncation(policy, results):
    one, two = (results["adaptive_truncation"][name] for name in ("one", "two"))
    same(one["recorded"], two["recorded"], TOLERANCE[policy])
    for a, b in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(b, a, rtol=TOLERANCE[policy], atol=TOLERANCE[policy])
    assert len(set(two["recorded"]["truncation"])) > 2  # the windows changed on the way
    assert two["lengths"] == two["recorded"]["truncation"][-1:] * 2


def test_the_gradient_norm_penalty_is_refused(results):
    assert results["refused"] == (
        "GradientNormPenalty works on one replica, since the norm of the whole batch's gradient is "
        "not the sum of the replicas' norms. Received: a distribution strategy of 2 replicas. "
        "Train without it."
    )
