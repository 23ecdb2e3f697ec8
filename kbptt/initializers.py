"""Initializers for recurrent kernels and biases, for any Keras layer.

The recurrent kernel of a gated cell is a row of square blocks: `(units, 4 * units)` for an LSTM
(gates i, f, c, o), `(units, 3 * units)` for a GRU (z, r, h), `(units, units)` for a SimpleRNN. The
papers' "recurrent matrix" is each of these blocks, so these initializers work block by block. They
compute in float64 and cast at the end, half precision included.
"""

import math
import random
from typing import Any

import keras
import numpy as np
from keras import ops

from kbptt import _checks, _gates, _keras, _linalg
from kbptt._typing import Initializer, Seed


class SeededInitializer(keras.initializers.Initializer):
    """Base class: a seed that behaves as in Keras' own random initializers.

    Args:
        seed: Integer, `keras.random.SeedGenerator` or None. An integer gives the same values at
            every call, a `SeedGenerator` other values at each. None draws a seed from Python's
            `random`, so `keras.utils.set_random_seed` makes it reproducible. Defaults to `None`.
    """

    def __init__(self, seed: Seed = None):
        if isinstance(seed, dict):
            seed = keras.saving.deserialize_keras_object(seed)
        if not isinstance(seed, keras.random.SeedGenerator):
            _check_seed(seed, "an integer, a keras.random.SeedGenerator or None")
        self._given_seed = seed
        self.seed: int | keras.random.SeedGenerator = (
            random.randint(1, 10**9) if seed is None else seed
        )

    def get_config(self) -> dict[str, Any]:
        return {"seed": keras.saving.serialize_keras_object(self._given_seed)}


@keras.saving.register_keras_serializable(package="kbptt")
class OrthogonalPerGate(SeededInitializer):
    """Makes every gate's block of the kernel orthogonal: WᵀW = gain² I.

    `keras.initializers.Orthogonal` on an LSTM's `(units, 4 * units)` kernel makes the rows of the
    whole kernel orthonormal; the four square blocks are then only random contractions whose
    singular values lie below 1, and the gradient shrinks by them at each step. Here each block is
    drawn on its own, uniformly over the orthogonal matrices.

    Example:

    >>> layer = keras.layers.LSTM(64, recurrent_initializer=OrthogonalPerGate(seed=1))

    Args:
        gain: Float above 0, the singular values of every block. Defaults to `1.0`.
        gates: Integer or `"auto"`, the number of blocks side by side. `"auto"` takes the kernel
            `(units, n * units)` of a recurrent layer apart into n square blocks; give the number
            for an input kernel, whose blocks are not square (they get orthonormal rows or
            columns, whichever are fewer). Defaults to `"auto"`.
        seed: Integer, `SeedGenerator` or None. Defaults to `None`.

    Reference:

    - [Saxe et al., 2014](https://arxiv.org/abs/1312.6120)
    - [Henaff et al., 2016](https://arxiv.org/abs/1602.06662) on recurrent networks.
    """

    def __init__(self, gain: float = 1.0, gates: int | str = _gates.AUTO, seed: Seed = None):
        super().__init__(seed)
        self.gain = _checks.number("gain", gain, above=0)
        self.gates = _gates.check(gates)

    def __call__(self, shape, dtype=None):
        rows, columns, gates = _gates.split(shape, self.gates)
        tall = (max(rows, columns), min(rows, columns))
        normal = keras.random.normal((gates, *tall), dtype="float64", seed=self.seed)
        q, r = ops.qr(normal)
        # QR leaves the signs of R's diagonal to the library; fixing them makes Q uniform (Haar).
        signs = ops.sign(ops.diagonal(r, axis1=-2, axis2=-1))
        q = q * ops.expand_dims(signs, axis=-2)
        if rows < columns:
            q = ops.transpose(q, (0, 2, 1))
        return _join(self.gain * q, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain, "gates": self.gates, **super().get_config()}


@keras.saving.register_keras_serializable(package="kbptt")
class SpectralRadius(keras.initializers.Initializer):
    """Scales each gate's block of an initializer's kernel to an exact spectral radius.

    The largest |eigenvalue| of every block becomes `radius`: below 1 the linear part of the
    recurrence forgets at that rate per step, above 1 it explodes (the guide's equation 2.4).

    Example:

    >>> initializer = SpectralRadius(0.95, "random_normal")
    >>> layer = keras.layers.SimpleRNN(50, recurrent_initializer=initializer)

    Args:
        radius: Float above 0. Defaults to `1.0`.
        initializer: Initializer or its identifier, drawn for the whole kernel and then scaled.
            With an orthogonal one (the default) *all* eigenvalues and singular values get this
            modulus. Defaults to `"orthogonal_per_gate"`.
        gates: Integer or `"auto"`, as in `OrthogonalPerGate`; the blocks must be square.
            Defaults to `"auto"`.
        seed: Integer or None, the seed of an initializer given by name. Defaults to `None`.
    """

    def __init__(
        self,
        radius: float = 1.0,
        initializer: Initializer = "orthogonal_per_gate",
        gates: int | str = _gates.AUTO,
        seed: int | None = None,
    ):
        self.radius = _checks.number("radius", radius, above=0)
        self.gates = _gates.check(gates)
        self.seed = _check_seed(seed)
        if isinstance(initializer, str) and seed is not None:
            known = get(initializer)
            config = known.get_config()
            if "seed" in config:  # not of those that draw nothing, such as the identity
                initializer = type(known).from_config({**config, "seed": seed})
        self.initializer = get(initializer)
        if self.initializer is None:
            raise ValueError(
                "Invalid value for argument `initializer`. Expected an initializer or its name. "
                "Received: initializer=None."
            )

    def __call__(self, shape, dtype=None):
        rows, columns, gates = _gates.split(shape, self.gates, square=True)
        kernel = ops.convert_to_numpy(self.initializer(shape, dtype="float64"))
        blocks = kernel.reshape(rows, gates, columns).transpose(1, 0, 2)
        radii = np.abs(_linalg.eigenvalues(blocks)).max(axis=-1)
        if not (radii > 0).all():
            raise ValueError(
                "SpectralRadius cannot scale a block whose spectral radius is 0. Received: "
                f"initializer={self.initializer!r}. Use a different one."
            )
        return _join(ops.convert_to_tensor(blocks * (self.radius / radii)[:, None, None]), dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            "radius": self.radius,
            "initializer": keras.initializers.serialize(self.initializer),
            "gates": self.gates,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="kbptt")
class Identity(keras.initializers.Initializer):
    """gain · I for every gate's block: the IRNN with `gain=1`.

    With ReLU, small inputs and W = I a SimpleRNN copies its state forever and its gradient has
    factor exactly 1 per step. `irnn()` gives all of the layer's arguments.

    Args:
        gain: Float other than 0. Le et al. use less than 1 (`0.01`) where long memories are not
            wanted. Defaults to `1.0`.
        gates: Integer or `"auto"`, as in `OrthogonalPerGate`. Defaults to `"auto"`.

    Reference:

    - [Le, Jaitly & Hinton, 2015](https://arxiv.org/abs/1504.00941)
    """

    def __init__(self, gain: float = 1.0, gates: int | str = _gates.AUTO):
        self.gain = _checks.number("gain", gain)
        if self.gain == 0:
            raise ValueError("Invalid value for argument `gain`. Expected a number other than 0.")
        self.gates = _gates.check(gates)

    def __call__(self, shape, dtype=None):
        rows, columns, gates = _gates.split(shape, self.gates)
        eye = ops.eye(rows, columns, dtype="float64")
        return _join(self.gain * ops.tile(eye[None], (gates, 1, 1)), dtype)

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain, "gates": self.gates}


class _Rotations(SeededInitializer):
    """Block-diagonal 2 × 2 rotations: orthogonal, with eigenvalues exp(± i angle).

    An odd `units` leaves a 1 × 1 block, which is 1 (a rotation by nothing).
    """

    lowest: float
    highest: float

    def __init__(self, gates: int | str = _gates.AUTO, seed: Seed = None):
        super().__init__(seed)
        self.gates = _gates.check(gates)

    def __call__(self, shape, dtype=None):
        units, _, gates = _gates.split(shape, self.gates, square=True)
        drawn = keras.random.uniform(
            (gates, units // 2), self.lowest, self.highest, dtype="float64", seed=self.seed
        )
        angle = ops.repeat(drawn, 2, axis=-1)
        if units % 2:
            angle = ops.pad(angle, ((0, 0), (0, 1)))
        eye = ops.eye(units, dtype="float64")
        # 1 at (0, 1), (2, 3), … only: the upper corner of each 2 × 2 block.
        pairs = np.arange(units - 1) % 2 == 0
        upper = ops.convert_to_tensor(np.diag(pairs.astype("float64"), k=1))
        skew = upper - ops.transpose(upper)
        angle = ops.expand_dims(angle, axis=-1)
        return _join(ops.cos(angle) * eye + ops.sin(angle) * skew, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"gates": self.gates, **super().get_config()}


@keras.saving.register_keras_serializable(package="kbptt")
class Henaff(_Rotations):
    """exp(A), A skew with 2 × 2 blocks [[0, s], [−s, 0]], s ~ U(−π, π), for every gate.

    The exponential of such a block is the rotation by s: orthogonal, and eigenvalues e^{±is} all
    over the unit circle.

    Args:
        gates: Integer or `"auto"`, as in `OrthogonalPerGate`; square blocks. Defaults to `"auto"`.
        seed: Integer, `SeedGenerator` or None. Defaults to `None`.

    Reference:

    - [Henaff, Szlam & LeCun, 2016](https://arxiv.org/abs/1602.06662)
    """

    lowest, highest = -math.pi, math.pi


@keras.saving.register_keras_serializable(package="kbptt")
class Cayley(_Rotations):
    """(I + A)⁻¹(I − A), A skew with blocks of s = −√((1 − cos u)/(1 + cos u)), u ~ U(0, π/2).

    s = −tan(u/2), and the Cayley transform of that block is the rotation by u: orthogonal, with
    eigenvalues e^{±iu} in the right half of the unit circle, so neighbouring states stay alike.

    Args:
        gates: Integer or `"auto"`, as in `OrthogonalPerGate`; square blocks. Defaults to `"auto"`.
        seed: Integer, `SeedGenerator` or None. Defaults to `None`.

    Reference:

    - [Helfrich, Willmott & Ye, 2018](https://arxiv.org/abs/1707.09520)
    """

    lowest, highest = 0.0, math.pi / 2


@keras.saving.register_keras_serializable(package="kbptt")
class Chrono(SeededInitializer):
    """Bias of a gated cell that remembers over up to `max_timescale` steps from the start.

    LSTM (bias `(4 * units,)`, gates i, f, c, o): forget bias log u with u ~ U(1, max_timescale −
    1), input bias its negative, the rest 0. A unit then keeps 1 − 1/(1 + u) of its state per step.
    Keras' `unit_forget_bias=True`, the default, calls the bias initializer piece by piece and puts
    ones at the forget gate, so pass `unit_forget_bias=False`.

    GRU (bias `(2, 3 * units)`, or `(3 * units,)` with `reset_after=False`; gates z, r, h): Keras
    computes h = z·h_{t−1} + (1 − z)·ĥ, so z keeps and gets +log u. (Where z lets the new value in
    instead, as in other texts, it is −log u.) Of the two rows, which are added, only the input's
    row is set.

    Example:

    >>> layer = keras.layers.LSTM(64, bias_initializer=Chrono(784), unit_forget_bias=False)
    >>> layer = keras.layers.GRU(64, bias_initializer=Chrono(784))

    Args:
        max_timescale: Number of at least 2: the longest dependency expected, in steps.
        gates: `4` (LSTM), `3` (GRU) or `"auto"`: a bias with two rows is a GRU's, one with one
            row an LSTM's, so give 3 for `GRU(reset_after=False)`. Defaults to `"auto"`.
        seed: Integer, `SeedGenerator` or None. Defaults to `None`.

    Reference:

    - [Tallec & Ollivier, 2018](https://arxiv.org/abs/1804.11188)
    """

    def __init__(self, max_timescale: float, gates: int | str = _gates.AUTO, seed: Seed = None):
        super().__init__(seed)
        self.max_timescale = _checks.number("max_timescale", max_timescale, at_least=2)
        self.gates = _checks.one_of("gates", gates, [_gates.AUTO, 3, 4])

    def __call__(self, shape, dtype=None):
        if getattr(_keras.layer_being_built(), "unit_forget_bias", False):
            raise ValueError(
                "Chrono sets the forget gate's bias itself and cannot be combined with "
                "`unit_forget_bias=True`. Pass `unit_forget_bias=False` to the LSTM."
            )
        gates = (3 if len(shape) == 2 else 4) if self.gates == _gates.AUTO else self.gates
        rows = {(3, 1): 1, (3, 2): 2, (4, 1): 1}.get((gates, len(shape)))
        if rows is None or (rows == 2 and shape[0] != 2) or shape[-1] % gates:
            raise ValueError(
                "Chrono expected the bias of an LSTM, (4 * units,), or of a GRU, (2, 3 * units) "
                f"or with gates=3 (3 * units,). Received: shape={tuple(shape)}, "
                f"gates={self.gates!r}."
            )
        units = shape[-1] // gates
        timescale = keras.random.uniform(
            (units,), 1.0, self.max_timescale - 1.0, dtype="float64", seed=self.seed
        )
        keep, zeros = ops.log(timescale), ops.zeros(units, dtype="float64")
        if gates == 4:
            bias = ops.concatenate([-keep, keep, zeros, zeros])
        else:
            bias = ops.concatenate([keep, zeros, zeros])
        if rows == 2:
            bias = ops.stack([bias, ops.zeros_like(bias)])
        return _cast(bias, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"max_timescale": self.max_timescale, "gates": self.gates, **super().get_config()}


def irnn(gain: float = 1.0, seed: int | None = None) -> dict[str, Any]:
    """Arguments that make a SimpleRNN an IRNN: ReLU, W = gain · I, inputs N(0, 0.001), no bias.

    Example:

    >>> layer = keras.layers.SimpleRNN(100, **irnn())

    Args:
        gain: Float, the diagonal of the recurrent kernel. Defaults to `1.0`.
        seed: Integer or None, for the input kernel. Defaults to `None`.

    Reference:

    - [Le, Jaitly & Hinton, 2015](https://arxiv.org/abs/1504.00941)
    """
    _check_seed(seed)
    return {
        "activation": "relu",
        "recurrent_initializer": Identity(gain),
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.001, seed=seed),
        "bias_initializer": "zeros",
    }


NAMES = {
    "orthogonal_per_gate": OrthogonalPerGate,
    "spectral_radius": SpectralRadius,
    "identity": Identity,
    "henaff": Henaff,
    "cayley": Cayley,
    "chrono": Chrono,
}


def get(identifier: Initializer) -> Any:
    """Returns the initializer for a snake_case name, a config, an object, or None.

    Names are those of this module (`"identity"` is per gate here) and then those of
    `keras.initializers.get`.
    """
    if isinstance(identifier, str) and identifier in NAMES:
        if identifier == "chrono":
            raise ValueError("'chrono' needs a time scale: pass kbptt.initializers.Chrono(T_max).")
        return NAMES[identifier]()
    try:
        return keras.initializers.get(identifier)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "Invalid initializer. Expected one of "
            + ", ".join(repr(name) for name in NAMES)
            + f", the name or config of a Keras initializer, or a callable. "
            f"Received: {identifier!r}."
        ) from error


def _check_seed(seed: Any, expected: str = "an integer or None") -> int | None:
    if seed is None or (isinstance(seed, int) and not isinstance(seed, bool)):
        return seed
    raise ValueError(
        f"Invalid value for argument `seed`. Expected {expected}. "
        f"Received: seed={seed!r} (of type {type(seed).__name__})."
    )


def _join(blocks, dtype):
    """`(gates, rows, columns)` side by side as `(rows, gates * columns)`."""
    gates, rows, columns = blocks.shape
    return _cast(ops.reshape(ops.transpose(blocks, (1, 0, 2)), (rows, gates * columns)), dtype)


def _cast(values, dtype):
    return ops.cast(values, keras.backend.standardize_dtype(dtype))
