"""Constraints on singular values: their properties, gate by gate, in Keras's and kbptt's layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt import constraints
from kbptt.constraints import Orthogonal, SpectralNorm

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 5, 2)).astype("float32")


def blocks(kernel):
    kernel = np.asarray(kernel, "float64")
    return np.split(kernel, kernel.shape[1] // len(kernel), axis=1)


def singular(kernel):
    return np.linalg.svd(np.stack(blocks(kernel)), compute_uv=False)


KERNELS = {
    "random": RNG.normal(size=(8, 32)),
    "near": np.concatenate([np.linalg.qr(RNG.normal(size=(8, 8)))[0] for _ in range(4)], 1) + 0.01,
    "ill-conditioned": RNG.normal(size=(8, 32)) * np.tile(10.0 ** -np.arange(8), 4),
    "singular": np.ones((8, 16)),
    "zero": np.zeros((8, 8)),
}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


@every_kernel
def test_orthogonal_is_the_polar_factor_of_every_gate(kernel):
    got = Orthogonal()(tf.constant(kernel, tf.float64))
    for w, q in zip(blocks(kernel), blocks(got), strict=True):
        np.testing.assert_allclose(q.T @ q, np.eye(8), atol=1e-12)
        # QᵀW is symmetric and positive semidefinite for the nearest orthogonal Q alone.
        h = q.T @ w
        np.testing.assert_allclose(h, h.T, atol=1e-10)
        assert np.linalg.eigvalsh(h).min() > -1e-10
    np.testing.assert_allclose(Orthogonal()(got), got, atol=1e-14)


@every_kernel
@pytest.mark.parametrize("band", [(0.0, 0.5), (0.9, 1.1), (1.0, 1.0)])
def test_spectral_norm_clips_singular_values_and_keeps_vectors(kernel, band):
    got = SpectralNorm(*band)(tf.constant(kernel, tf.float64))
    expected = np.clip(singular(kernel), *band)
    np.testing.assert_allclose(singular(got), expected, atol=1e-9)
    for w, c in zip(blocks(kernel), blocks(got), strict=True):
        # UΣVᵀ and Uf(Σ)Vᵀ: both products with the other's transpose are symmetric.
        for product in (w @ c.T, w.T @ c):
            np.testing.assert_allclose(product, product.T, atol=1e-9)


def test_a_kernel_within_the_band_is_bitwise_unchanged():
    kernel = KERNELS["near"].astype("float32")
    np.testing.assert_array_equal(SpectralNorm(0.5, 2.0)(kernel), kernel)


def test_rectangular_blocks_with_their_number():
    for shape in ((3, 20), (9, 20)):
        got = Orthogonal(gates=4)(RNG.normal(size=shape))
        for q in np.split(got.numpy(), 4, axis=1):
            gram = q.T @ q if shape[0] > 5 else q @ q.T
            np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)


@pytest.mark.parametrize("constraint", [Orthogonal(), SpectralNorm()], ids=["polar", "band"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_block_that_is_not_finite_stays_and_the_others_do_not_suffer(constraint, value):
    kernel = KERNELS["random"].copy()
    expected = constraint(kernel).numpy()
    kernel[3, 9] = value
    expected[:, 8:16] = kernel[:, 8:16]
    for call in (constraint, tf.function(constraint)):
        np.testing.assert_allclose(call(tf.constant(kernel)), expected)


@pytest.mark.parametrize("library", [keras.layers, kbptt])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "float16"])
def test_holds_after_training(library, dtype):
    layer = library.GRU(4, recurrent_constraint=Orthogonal(), dtype=dtype)
    model = keras.Sequential([keras.Input(X.shape[1:]), layer])
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    model.fit(X, np.ones((16, 4)), batch_size=4, verbose=0)
    tolerance = 2e-3 if dtype == "float16" else 1e-6
    np.testing.assert_allclose(singular(layer.cell.recurrent_kernel), 1, atol=tolerance)


def test_names_configs_and_errors():
    layer = kbptt.LSTM(3, recurrent_constraint="spectral_norm")
    copy = kbptt.LSTM.from_config(layer.get_config())
    found = copy.recurrent_constraint
    assert type(found) is SpectralNorm and (found.minimum, found.maximum) == (0.9, 1.1)
    assert type(constraints.get("orthogonal")) is Orthogonal
    assert isinstance(constraints.get("unit_norm"), keras.constraints.UnitNorm)
    config = keras.layers.LSTM(3, recurrent_constraint=SpectralNorm(0, 2, gates=4)).get_config()
    assert keras.layers.LSTM.from_config(config).recurrent_constraint.get_config() == {
        "minimum": 0.0,
        "maximum": 2.0,
        "gates": 4,
    }
    with pytest.raises(ValueError, match=r"did you mean 'orthogonal'"):
        kbptt.LSTM(3, recurrent_constraint="ortogonal")
    with pytest.raises(ValueError, match=r"maximum.*at least 1"):
        SpectralNorm(1.0, 0.5)
    with pytest.raises(ValueError, match="square blocks"):
        Orthogonal()(np.ones((4, 6)))
