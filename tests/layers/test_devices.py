"""Two devices train as one with the same global batch."""

import json
import pathlib
import subprocess
import sys

import numpy as np


def test_two_devices():
    script = pathlib.Path(__file__).with_name("train_on_two_devices.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    for key in ("weights", "norms"):
        for a, b in zip(result["one"][key], result["two"][key], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(np.array(result["two"]["norms"][0]) > 0, [0, 0, 1, 1, 1, 1])
