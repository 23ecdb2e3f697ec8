"""The pure functions: invariants, and formulas against NumPy in float64."""

import numpy as np
import pytest

from kbptt import clipping


@pytest.fixture
def gradients():
    random = np.random.default_rng(0)
    return [random.normal(size=shape).astype("float32") for shape in [(3, 4), (4, 8), (8,), ()]]


def norm64(arrays):
    return np.sqrt(sum(np.sum(np.square(np.asarray(a, "float64"))) for a in arrays))


def arrays(tensors):
    return [np.asarray(t) for t in tensors]


def test_global_norm_equals_numpy(gradients):
    np.testing.assert_allclose(clipping.global_norm(gradients), norm64(gradients), rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_norm_neither_overflows_nor_underflows(gradients, size):
    scaled = [g * np.float32(size) for g in gradients]
    np.testing.assert_allclose(clipping.global_norm(scaled), norm64(scaled), rtol=1e-5)


def test_norm_over_axes_equals_numpy():
    x = np.random.default_rng(1).normal(size=(2, 3, 4))
    for axis in [0, (0, 1), (0, 1, 2)]:
        expected = np.sqrt(np.sum(x**2, axis=axis))
        np.testing.assert_allclose(clipping.safe_norm(x, axis=axis), expected, rtol=1e-12)
        kept = np.sqrt(np.sum(x**2, axis=axis, keepdims=True))
        np.testing.assert_allclose(clipping.safe_norm(x, axis, keepdims=True), kept, rtol=1e-12)


def test_norm_of_zero_nothing_nan_and_inf():
    assert clipping.safe_norm(np.zeros(3, "float32")) == 0
    assert clipping.safe_norm(np.zeros((0, 2), "float32")) == 0
    assert np.isnan(clipping.safe_norm(np.array([1.0, np.nan], "float32")))
    assert np.isinf(clipping.safe_norm(np.array([1.0, -np.inf], "float32")))


def test_half_precision_is_measured_in_float32():
    x = np.full(70_000, 10, "float16")  # its squares sum to more than float16 can hold
    np.testing.assert_allclose(clipping.safe_norm(x), 10 * np.sqrt(70_000), rtol=1e-5)


def test_all_finite(gradients):
    assert clipping.all_finite(clipping.norms(gradients))
    for bad in [np.nan, np.inf]:
        gradients[1][0, 0] = bad
        assert not clipping.all_finite(clipping.norms(gradients))


def global_clip(gradients, threshold):
    return clipping.clip_by_global_norm(gradients, threshold, clipping.norms(gradients))[0]


def single_clip(gradients, threshold):
    return clipping.clip_by_norm(gradients, threshold, clipping.norms(gradients))[0]


def unit_clip(gradients, threshold):
    return clipping.adaptive_clip(gradients, [np.ones_like(g) for g in gradients], threshold)


CLIPS = [global_clip, single_clip, clipping.clip_by_value, unit_clip]


@pytest.mark.parametrize("clip", CLIPS)
def test_small_gradients_are_untouched_bit_for_bit(clip, gradients):
    for before, after in zip(gradients, clip(gradients, 1e3), strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("clip", CLIPS)
def test_clipping_twice_changes_nothing(clip, gradients):
    once = clip(gradients, 0.1)
    for before, after in zip(arrays(once), clip(once, 0.1), strict=True):
        np.testing.assert_allclose(after, before, rtol=3e-7)


@pytest.mark.parametrize("clip", CLIPS)
def test_zero_gradients_stay_zero(clip, gradients):
    for after in clip([np.zeros_like(g) for g in gradients], 0.1):
        assert not np.any(after)


@pytest.mark.parametrize("clip", CLIPS)
def test_half_precision_comes_back_as_it_was(clip, gradients):
    half = [g.astype("float16") for g in gradients]
    for after, wide in zip(clip(half, 0.1), clip(gradients, 0.1), strict=True):
        assert np.asarray(after).dtype == "float16"
        np.testing.assert_allclose(after, wide, rtol=2e-2, atol=1e-4)


def test_global_norm_equals_the_bound_and_keeps_the_direction(gradients):
    clipped = arrays(global_clip(gradients, 0.3))
    np.testing.assert_allclose(norm64(clipped), 0.3, rtol=1e-6)
    factor = 0.3 / norm64(gradients)
    for before, after in zip(gradients, clipped, strict=True):
        np.testing.assert_allclose(after, before * factor, rtol=1e-6)


def test_each_norm_equals_the_bound(gradients):
    for before, after in zip(gradients, arrays(single_clip(gradients, 0.5)), strict=True):
        np.testing.assert_allclose(norm64([after]), min(0.5, norm64([before])), rtol=1e-6)


def test_returned_norms_are_the_norms(gradients):
    norms = clipping.norms(gradients)
    for clip in [clipping.clip_by_norm, clipping.clip_by_global_norm]:
        clipped, after = clip(gradients, 0.3, norms)
        np.testing.assert_allclose(after, clipping.norms(clipped), rtol=1e-6)


def test_every_component_is_within_the_value(gradients):
    for before, after in zip(gradients, clipping.clip_by_value(gradients, 0.5), strict=True):
        np.testing.assert_array_equal(after, np.clip(before, -0.5, 0.5))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((), ()), ((5,), (0,)), ((1, 5), (0, 1)), ((3, 5), (0,)), ((2, 5), (0,)), ((3, 4, 5), (0, 1))],
)
def test_a_unit_is_what_the_last_axis_counts(shape, axes):
    assert clipping.unit_axes(shape) == axes


def test_adaptive_clip_equals_equation_3():
    random = np.random.default_rng(2)
    weight = random.normal(size=(6, 4)) * [0.0, 1e-5, 1.0, 100.0]
    gradient = random.normal(size=(6, 4))
    (clipped,) = clipping.adaptive_clip([gradient], [weight], 0.1)
    for unit in range(4):  # one column at a time, as the paper writes it
        g, w = gradient[:, unit], weight[:, unit]
        ratio = np.linalg.norm(g) / max(np.linalg.norm(w), 1e-3)
        expected = g * 0.1 / ratio if ratio > 0.1 else g
        np.testing.assert_allclose(clipped[:, unit], expected, rtol=1e-6)
    np.testing.assert_array_equal(clipped[:, 3], gradient[:, 3])


@pytest.mark.parametrize("percent", [0.5, 10, 50, 97, 100])
def test_percentile_of_a_growing_then_sliding_history(percent):
    random = np.random.default_rng(3)
    kept, history = np.full(16, np.inf, "float32"), []
    for _ in range(40):
        new = np.float32(random.choice([random.random(), 0.25, 0.0]))  # with equal values
        old = np.float32(np.inf) if len(history) < 16 else history[-16]
        kept = np.asarray(clipping.replace_sorted(kept, old, new))
        history.append(new)
        recent = history[-16:]
        np.testing.assert_array_equal(kept[: len(recent)], np.sort(recent))
        measured = clipping.percentile(kept, len(recent), percent)
        np.testing.assert_allclose(measured, np.percentile(recent, percent), rtol=1e-5, atol=1e-7)


def test_z_clip_threshold_by_hand():
    # mean 2, std 0.5, norm 5: z = 6, so 2 + 2.5 * 0.5 / (6 / 2.5) = 2.5208333
    spike, scaled_to = clipping.z_clip_threshold(5.0, 2.0, 0.25, 2.5, 1e-12)
    assert spike
    np.testing.assert_allclose(scaled_to, 2.5208333, rtol=1e-6)
    spike, _ = clipping.z_clip_threshold(3.2, 2.0, 0.25, 2.5, 1e-12)  # z = 2.4
    assert not spike
