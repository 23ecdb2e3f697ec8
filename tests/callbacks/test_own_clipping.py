"""`GradientFlow` counts how often the clipping of a Keras optimizer acts."""

import keras
import numpy as np
import pytest
from ill_models import data, linear, network

from kbptt.analysis import findings
from kbptt.callbacks import GradientFlow, GradientNorm
from kbptt.tensorboard import read_evidence

CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")


def fit(optimizer, log_dir=None, more=()):
    x, y = data()
    flow = GradientFlow(log_dir, log_freq=1, heatmap_freq=None)
    model = network(linear(0.98), optimizer=optimizer)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[flow, *more])
    return flow


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(("bound", "rate"), [(1e-6, 1.0), (1e6, 0.0)])
def test_a_clip_of_the_optimizer_is_judged(clip, bound, rate, tmp_path):
    flow = fit(keras.optimizers.SGD(1e-9, **{clip: bound}), tmp_path, [GradientNorm()])
    _, rates = flow.scalars[f"optimizer/{clip}/clip_rate"]
    np.testing.assert_array_equal(rates, [rate] * 4)
    expected = [("clip-always", clip)] * (rate == 1)
    assert [(one.name, one.where) for one in flow.findings()] == expected
    evidence = read_evidence(tmp_path)
    assert evidence.clip_rates == {clip: rate}
    assert "clip-always" not in findings.unjudged(evidence)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_steps_are_those_whose_norm_is_above_the_bound(scaled):
    """With the loss scale of mixed precision too: Keras clips the unscaled gradient."""

    def optimizer(**clip):
        inner = keras.optimizers.SGD(1e-9, **clip)
        return keras.optimizers.LossScaleOptimizer(inner, 2**10) if scaled else inner

    _, norms = fit(optimizer()).scalars["optimizer/global_norm"]
    bound = float(np.mean(np.sort(norms)[1:3]))  # two of four
    flow = fit(optimizer(global_clipnorm=bound))
    _, rates = flow.scalars["optimizer/global_clipnorm/clip_rate"]
    np.testing.assert_allclose(rates, np.cumsum(norms > bound) / np.arange(1, 5), rtol=1e-6)


def test_a_second_fit_counts_anew():
    x, y = data()
    flow = GradientFlow(None, log_freq=1, heatmap_freq=None)
    model = network(linear(0.98), optimizer=keras.optimizers.SGD(1e-9, global_clipnorm=1e-6))
    for clip in ("global_clipnorm", None):
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[flow])
        assert [one.where for one in flow.findings()] == [clip] * (clip is not None)
        model.compile(keras.optimizers.SGD(1e-9), "mse")
