"""Ctrl-C while a cluster starts."""

import os
import signal

import pytest

from kbptt.ablation import clusters


def test_ctrl_c_waits_until_the_cluster_can_be_closed():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with clusters._interrupted_afterwards():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("started")
        steps.append("went on")
    assert steps == ["started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
