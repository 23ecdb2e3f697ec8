"""Arguments and configs of the clipping callbacks."""

import keras
import pytest
from known_gradients import CLIPS

from kbptt.callbacks import (
    AdaptiveGradientClip,
    AutoClip,
    ClipByGlobalNorm,
    ClipByNorm,
    GradientNorm,
    ZClip,
)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "1", True, None])
@pytest.mark.parametrize("clip", [*CLIPS, AdaptiveGradientClip])
def test_invalid_thresholds_get_one_clear_sentence(clip, bad):
    name = "clip_factor" if clip is AdaptiveGradientClip else "threshold"
    with pytest.raises(ValueError, match=f"`{name}`. Expected a finite number above 0"):
        clip(bad)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoClip(0), "`percentile`"),
        (lambda: AutoClip(101), "`percentile`"),
        (lambda: AutoClip(history=2.5), "`history`"),
        (lambda: ZClip(z_score=-1), "`z_score`"),
        (lambda: ZClip(decay=1.5), "`decay`"),
        (lambda: ZClip(warmup_steps=0), "`warmup_steps`"),
        (lambda: ZClip(maximum_norm="1"), "`maximum_norm`"),
        (lambda: AdaptiveGradientClip(epsilon=0), "`epsilon`"),
        (lambda: ClipByNorm(1, variables="("), "`variables`.*regular expression"),
        (lambda: ClipByNorm(1, variables=3), "`variables`.*regular expression"),
        (lambda: ClipByNorm(1, variables=[]), "`variables`.*regular expression"),
        (lambda: ClipByNorm(1, name=3), "`name`.*string"),
        (lambda: GradientNorm(name=""), "`name`.*string"),
    ],
)
def test_other_invalid_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_in_a_config():
    clip = ClipByGlobalNorm(keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.9))
    config = clip.get_config()
    again = type(clip).from_config(config)
    assert again.get_config() == config
    serialized = keras.saving.serialize_keras_object(clip)
    assert keras.saving.deserialize_keras_object(serialized).get_config() == config


def test_statistics_before_fit():
    with pytest.raises(RuntimeError, match=r"before `model\.fit`"):
        ClipByNorm(1.0).statistics()
    with pytest.raises(AttributeError, match=r"once `model\.fit` has started"):
        _ = ClipByNorm(1.0).threshold
