"""MirroredStrategy clips the reduced gradient: as one device with the same global batch does.

The two logical CPUs exist in one process of their own, so that they slow down no other test.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("clip_on_two_devices.py")
CASES = ["clips", "observer", "nan on the second device", "loss scale, nan"]
CASES += ["omega", "omega, loss scale"]
CLIPPED = ["Clipped, nan", "Clipped around loss scale, nan", "loss scale around Clipped, nan"]


@pytest.fixture(scope="module")
def results():
    command = [sys.executable, str(SCRIPT)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.mark.parametrize("case", CASES + CLIPPED)
def test_two_devices_equal_one_with_the_same_global_batch(case, results):
    one, two = results[case]["one"], results[case]["two"]
    for a, b in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
    for a, b in zip(one["statistics"], two["statistics"], strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    assert two["penalties"] == pytest.approx(one["penalties"], rel=1e-4)
    assert two["steps"] == one["steps"]
    assert two["iterations"] == one["iterations"]
    assert one["clean"] and two["clean"]


def test_op_determinism(results):
    runs = results["op determinism"]
    assert runs["one"] == runs["two"]


def test_the_cases_are_not_idle(results):
    assert results["clips"]["two"]["statistics"][3]["clip_rate"] > 0.5
    for case in ["nan on the second device", "loss scale, nan"]:
        assert results[case]["two"]["statistics"][0]["skipped"] == 1  # of the second fit
        assert results[case]["two"]["iterations"] == 4
    for case in CLIPPED:
        # Where the loss scale is outside, the step never reaches `Clipped`.
        assert results[case]["two"]["statistics"][0]["skipped"] == 2 * (case != CLIPPED[2])
        assert results[case]["two"]["steps"] == [4] * 8
    for case in ["omega", "omega, loss scale"]:
        assert max(results[case]["two"]["penalties"]) > 0.01
