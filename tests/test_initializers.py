"""Each initializer against the property or formula of its paper, on real layers' kernels."""

import json

import keras
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

import kbptt
from kbptt import initializers
from kbptt.initializers import (
    Cayley,
    Chrono,
    Henaff,
    Identity,
    OrthogonalPerGate,
    SpectralRadius,
    irnn,
)

CELLS = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}


def recurrent_blocks(cell, initializer, units=9, **arguments):
    """The recurrent kernel of a built layer, as `(gates, units, units)` in float64."""
    layer = getattr(keras.layers, cell)(units, recurrent_initializer=initializer, **arguments)
    layer.build((None, None, 2))
    kernel = keras.ops.convert_to_numpy(layer.cell.recurrent_kernel).astype("float64")
    assert kernel.shape == (units, CELLS[cell] * units)
    return np.stack(np.split(kernel, CELLS[cell], axis=1))


def gram_error(blocks):
    eye = np.eye(blocks.shape[-1])
    return np.abs(np.swapaxes(blocks, -1, -2) @ blocks - eye).max()


def by_argument(eigenvalues):
    return np.sort(np.angle(eigenvalues))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("initializer", [OrthogonalPerGate, Henaff, Cayley])
@pytest.mark.parametrize("units", [1, 2, 9, 64])
def test_every_gate_is_orthogonal(cell, initializer, units):
    assert gram_error(recurrent_blocks(cell, initializer(seed=1), units)) < 1e-6


@pytest.mark.parametrize("initializer", [OrthogonalPerGate, Henaff, Cayley])
def test_gates_are_drawn_independently(initializer):
    blocks = recurrent_blocks("LSTM", initializer(seed=1))
    for i in range(4):
        for j in range(i):
            assert np.abs(blocks[i] - blocks[j]).max() > 0.1


def test_keras_orthogonal_is_not_orthogonal_per_gate():
    """Why `OrthogonalPerGate` exists: Keras' own contracts in every gate of an LSTM."""
    blocks = recurrent_blocks("LSTM", keras.initializers.Orthogonal(seed=1), 64)
    assert gram_error(blocks) > 0.1
    assert np.linalg.svd(blocks, compute_uv=False).mean() < 0.6


def test_gain_is_every_singular_value():
    blocks = recurrent_blocks("GRU", OrthogonalPerGate(gain=0.8, seed=1))
    np.testing.assert_allclose(np.linalg.svd(blocks, compute_uv=False), 0.8, rtol=1e-6)


def test_orthogonal_matrices_are_uniform():
    """Haar measure: determinants of both signs, and E Q_ij² = 1/n with mean 0."""
    blocks = recurrent_blocks("LSTM", OrthogonalPerGate(seed=keras.random.SeedGenerator(3)), 3)
    q = np.stack(
        [np.asarray(OrthogonalPerGate(seed=s)((3, 3)), dtype="float64") for s in range(200)]
    )
    assert blocks.shape == (4, 3, 3)
    assert 50 < (np.linalg.det(q) > 0).sum() < 150
    np.testing.assert_allclose(q.mean(axis=0), 0.0, atol=0.2)
    np.testing.assert_allclose((q**2).mean(axis=0), 1 / 3, atol=0.1)


@pytest.mark.parametrize("shape", [(5, 36), (12, 36)])
def test_rectangular_blocks_get_orthonormal_rows_or_columns(shape):
    kernel = np.asarray(OrthogonalPerGate(gates=4, seed=1)(shape), dtype="float64")
    for block in np.split(kernel, 4, axis=1):
        short = block @ block.T if shape[0] < 9 else block.T @ block
        np.testing.assert_allclose(short, np.eye(len(short)), atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("base", ["random_normal", "glorot_uniform", "orthogonal_per_gate"])
def test_spectral_radius_is_exact_per_gate(cell, base):
    blocks = recurrent_blocks(cell, SpectralRadius(0.9, base, seed=1))
    radii = np.abs(np.linalg.eigvals(blocks)).max(axis=-1)
    np.testing.assert_allclose(radii, 0.9, rtol=1e-5)


def test_scaled_orthogonal_has_all_eigenvalues_on_the_circle():
    blocks = recurrent_blocks("LSTM", SpectralRadius(1.1, seed=1))
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(blocks)), 1.1, rtol=1e-5)


@pytest.mark.parametrize("seed", [None, 1])
def test_spectral_radius_refuses_a_nilpotent_matrix(seed):
    with pytest.raises(ValueError, match="spectral radius is 0"):
        SpectralRadius(0.9, "zeros", seed=seed)((4, 4))


@pytest.mark.parametrize("cell", CELLS)
def test_identity_in_every_gate(cell):
    blocks = recurrent_blocks(cell, Identity(gain=0.5))
    np.testing.assert_array_equal(blocks, np.tile(0.5 * np.eye(9), (CELLS[cell], 1, 1)))


@pytest.mark.parametrize("units", [6, 7])
def test_henaff_is_the_exponential_of_a_skew_block_diagonal(units):
    block = np.asarray(Henaff(seed=4)((units, units), "float64"))
    s = np.arctan2(block[range(0, units - 1, 2), range(1, units, 2)], np.diag(block)[:-1:2])
    skew = np.zeros((units, units))
    for i, value in enumerate(s):
        skew[2 * i, 2 * i + 1], skew[2 * i + 1, 2 * i] = value, -value
    np.testing.assert_allclose(block, scipy.linalg.expm(skew), atol=1e-12)
    expected = np.concatenate([s, -s, [0.0] * (units % 2)])
    np.testing.assert_allclose(by_argument(np.linalg.eigvals(block)), np.sort(expected), atol=1e-7)


@pytest.mark.parametrize("units", [6, 7])
def test_cayley_is_the_cayley_transform_of_its_skew_blocks(units):
    block = np.asarray(Cayley(seed=4)((units, units), "float64"))
    u = np.arccos(np.diag(block)[:-1:2])
    s = -np.sqrt((1 - np.cos(u)) / (1 + np.cos(u)))
    skew = np.zeros((units, units))
    for i, value in enumerate(s):
        skew[2 * i, 2 * i + 1], skew[2 * i + 1, 2 * i] = value, -value
    eye = np.eye(units)
    np.testing.assert_allclose(block, np.linalg.solve(eye + skew, eye - skew), atol=1e-7)
    expected = np.concatenate([u, -u, [0.0] * (units % 2)])
    np.testing.assert_allclose(by_argument(np.linalg.eigvals(block)), np.sort(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("initializer", "low", "high"), [(Henaff, -np.pi, np.pi), (Cayley, 0.0, np.pi / 2)]
)
def test_angles_are_uniform_over_the_papers_interval(initializer, low, high):
    blocks = np.asarray(initializer(seed=1)((500, 2000), "float64")).reshape(500, 4, 500)
    rows = np.arange(0, 500, 2)
    sine, cosine = blocks[rows, :, rows + 1], blocks[rows, :, rows]
    angles = np.arctan2(sine, cosine).ravel()
    assert low <= angles.min() and angles.max() <= high
    assert scipy.stats.kstest(angles, "uniform", (low, high - low)).pvalue > 1e-3


def test_chrono_lstm():
    layer = keras.layers.LSTM(200, bias_initializer=Chrono(100, seed=1), unit_forget_bias=False)
    layer.build((None, None, 2))
    i, f, c, o = np.split(np.asarray(layer.cell.bias, dtype="float64"), 4)
    assert np.log(1) <= f.min() and f.max() <= np.log(99)
    np.testing.assert_array_equal(i, -f)
    assert not c.any() and not o.any()


def test_chrono_timescales_are_uniform():
    forget = np.asarray(Chrono(100, seed=1)((80_000,), "float64"))[20_000:40_000]
    assert scipy.stats.kstest(np.exp(forget), "uniform", (1, 98)).pvalue > 1e-3


@pytest.mark.parametrize("reset_after", [True, False])
def test_chrono_gru_keeps_by_its_update_gate(reset_after):
    gates = "auto" if reset_after else 3
    layer = keras.layers.GRU(
        8, bias_initializer=Chrono(100, gates, seed=1), reset_after=reset_after
    )
    layer.build((None, None, 2))
    bias = np.asarray(layer.cell.bias, dtype="float64")
    total = bias.sum(axis=0) if reset_after else bias
    z, r, h = np.split(total, 3)
    assert (z > 0).all() and (z <= np.log(99)).all()
    assert not r.any() and not h.any()
    # With no input the state decays by sigmoid(z) per step: it is kept, not replaced.
    layer.cell.kernel.assign(np.zeros((2, 24)))
    layer.cell.recurrent_kernel.assign(np.zeros((8, 24)))
    state = layer(np.zeros((1, 1, 2), "float32"), initial_state=np.ones((1, 8), "float32"))
    np.testing.assert_allclose(np.asarray(state)[0], 1 / (1 + np.exp(-z)), rtol=1e-5)


@pytest.mark.parametrize("library", [keras.layers, kbptt])
def test_chrono_refuses_unit_forget_bias(library):
    layer = library.LSTM(8, bias_initializer=Chrono(100))
    with pytest.raises(ValueError, match="unit_forget_bias=False"):
        layer.build((None, None, 2))


def test_chrono_at_its_smallest_timescale_is_zero():
    np.testing.assert_array_equal(np.asarray(Chrono(2, seed=1)((8,))), 0.0)


def test_irnn_copies_its_state():
    layer = keras.layers.SimpleRNN(5, **irnn(seed=1))
    state = np.abs(np.random.default_rng(0).normal(size=(2, 5))).astype("float32")
    out = layer(np.zeros((2, 7, 3), "float32"), initial_state=state)
    np.testing.assert_array_equal(np.asarray(out), state)
    assert 0 < np.abs(layer.get_weights()[0]).max() < 0.01


SEEDED = [
    OrthogonalPerGate,
    Henaff,
    Cayley,
    lambda seed: SpectralRadius(0.9, "random_normal", seed=seed),
]


@pytest.mark.parametrize("make", SEEDED)
def test_an_integer_seed_repeats_and_another_does_not(make):
    first, again, other = (np.asarray(make(seed=s)((4, 16))) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    initializer = make(seed=1)
    np.testing.assert_array_equal(initializer((4, 16)), initializer((4, 16)))


def test_a_seed_generator_moves_on():
    initializer = OrthogonalPerGate(seed=keras.random.SeedGenerator(1))
    assert np.abs(np.asarray(initializer((4, 4))) - np.asarray(initializer((4, 4)))).max() > 0.01


def test_without_a_seed_keras_random_seed_decides():
    values = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        values.append(np.asarray(Henaff()((4, 4))))
    np.testing.assert_array_equal(*values)


ALL = [
    OrthogonalPerGate(0.9, seed=1),
    SpectralRadius(0.9, "random_normal", seed=1),
    SpectralRadius(0.9, Henaff(seed=2), gates=4),
    Identity(0.5),
    Henaff(seed=1),
    Cayley(seed=1),
    OrthogonalPerGate(seed=keras.random.SeedGenerator(1)),
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("initializer", ALL[:-1], ids=lambda i: type(i).__name__)
def test_half_precision_is_the_rounded_double(initializer, dtype):
    value = initializer((4, 16), dtype=dtype)
    assert keras.backend.standardize_dtype(value.dtype) == dtype
    exact = initializer((4, 16), dtype="float64")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.ops.cast(value, "float64")),
        keras.ops.convert_to_numpy(keras.ops.cast(keras.ops.cast(exact, dtype), "float64")),
    )


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "float64"])
def test_layers_of_any_policy_build(policy):
    blocks = recurrent_blocks("LSTM", OrthogonalPerGate(seed=1), dtype=policy)
    assert gram_error(blocks) < (5e-3 if policy == "float16" else 1e-6)


@pytest.mark.parametrize("initializer", ALL, ids=lambda i: type(i).__name__)
def test_config_round_trip_through_json(initializer):
    config = json.loads(json.dumps(keras.initializers.serialize(initializer)))
    again = initializers.get(config)
    assert type(again) is type(initializer)
    assert again.get_config() == initializer.get_config()
    if not isinstance(getattr(initializer, "seed", None), keras.random.SeedGenerator):
        np.testing.assert_array_equal(again((4, 16)), initializer((4, 16)))


def test_a_saved_model_loads_with_its_initializers(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((3, 2)),
            keras.layers.LSTM(
                4,
                recurrent_initializer=SpectralRadius(0.9, "random_normal"),
                bias_initializer=Chrono(50, seed=1),
                unit_forget_bias=False,
            ),
        ]
    )
    model.save(tmp_path / "m.keras")
    cell = keras.models.load_model(tmp_path / "m.keras").layers[0].cell
    assert cell.bias_initializer.max_timescale == 50
    assert isinstance(cell.recurrent_initializer.initializer, keras.initializers.RandomNormal)


def test_get_by_name():
    for name, cls in initializers.NAMES.items():
        if name in ("chrono", "legendre", "legendre_input"):
            with pytest.raises(ValueError, match=f"needs a time scale.*{cls.__name__}"):
                initializers.get(name)
        else:
            assert type(initializers.get(name)) is cls
    assert isinstance(initializers.get("glorot_uniform"), keras.initializers.GlorotUniform)
    assert initializers.get(None) is None
    chosen = Henaff(seed=1)
    assert initializers.get(chosen) is chosen
    with pytest.raises(ValueError, match=r"'orthogonal_per_gate', 'spectral_radius'.*'nonsense'"):
        initializers.get("nonsense")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: OrthogonalPerGate(gain=0), "gain"),
        (lambda: OrthogonalPerGate(gain=-1), "gain"),
        (lambda: OrthogonalPerGate(gain=float("nan")), "gain"),
        (lambda: OrthogonalPerGate(gain="1"), "gain"),
        (lambda: OrthogonalPerGate(gates=0), "gates"),
        (lambda: OrthogonalPerGate(gates="four"), "gates"),
        (lambda: OrthogonalPerGate(seed=1.5), "seed"),
        (lambda: Henaff(seed="1"), "seed"),
        (lambda: SpectralRadius(0), "radius"),
        (lambda: SpectralRadius(float("inf")), "radius"),
        (lambda: Identity(0), "gain"),
        (lambda: Chrono(1), "max_timescale"),
        (lambda: Chrono(True), "max_timescale"),
        (lambda: Chrono(10, gates=2), "gates"),
        (lambda: Chrono(10, seed=True), "seed"),
        (lambda: SpectralRadius(seed={}), "seed"),
        (lambda: SpectralRadius(1.0, "random_normal", seed="1"), "seed"),
        (lambda: SpectralRadius(1.0, None), "initializer"),
        (lambda: irnn(float("nan")), "gain"),
        (lambda: irnn(seed=2.5), "seed"),
    ],
)
def test_invalid_arguments_name_the_argument(make, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        make()


@pytest.mark.parametrize(
    ("initializer", "shape"),
    [
        (OrthogonalPerGate(), (4,)),
        (OrthogonalPerGate(), (4, 6)),
        (OrthogonalPerGate(gates=4), (4, 6)),
        (OrthogonalPerGate(), (2, 3, 4)),
        (Henaff(gates=4), (3, 16)),
        (Chrono(10), (3, 12)),
        (Chrono(10), (2, 8)),
        (Chrono(10), (7,)),
    ],
)
def test_wrong_shapes_are_refused(initializer, shape):
    with pytest.raises(ValueError, match="shape="):
        initializer(shape)


@pytest.mark.parametrize("name", ["orthogonal_per_gate", "spectral_radius", "henaff", "cayley"])
@pytest.mark.parametrize("layer_class", [kbptt.LSTM, keras.layers.GRU])
def test_a_layer_takes_an_initializer_by_its_name(name, layer_class):
    layer = layer_class(4, recurrent_initializer=name)
    assert type(layer.recurrent_initializer) is initializers.NAMES[name]
    again = layer_class.from_config(layer.get_config())
    assert type(again.recurrent_initializer) is initializers.NAMES[name]
    layer.build((None, 5, 3))
    kernel = np.asarray(layer.cell.recurrent_kernel)
    for block in np.split(kernel, kernel.shape[1] // 4, axis=1):
        np.testing.assert_allclose(np.abs(np.linalg.eigvals(block)), 1, rtol=1e-4)


def test_names_of_keras_keep_their_meaning_in_a_layer():
    layer = kbptt.LSTM(4, recurrent_initializer="identity")
    assert type(layer.recurrent_initializer) is keras.initializers.Identity
