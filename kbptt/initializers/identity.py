"""Multiples of the identity, and the IRNN."""

from typing import Any

import keras
from keras import ops

from kbptt import _checks, _gates
from kbptt.initializers.base import check_seed, join


@keras.saving.register_keras_serializable(package="kbptt")
class Identity(keras.initializers.Initializer):
    """gain · I for every gate's block: the IRNN with `gain=1`.

    With ReLU, small inputs and W = I, a SimpleRNN copies its state forever and its gradient has a
    factor of exactly 1 per step. `irnn()` returns all of the layer's arguments.

    Args:
        gain: Float other than 0. Le et al. use less than 1 (`0.01`) if no long memory is needed.
            Defaults to `1.0`.
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
        return join(self.gain * ops.tile(eye[None], (gates, 1, 1)), dtype)

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain, "gates": self.gates}


def irnn(gain: float = 1.0, seed: int | None = None) -> dict[str, Any]:
    """Arguments that turn a SimpleRNN into an IRNN: ReLU, W = gain · I, inputs N(0, 0.001), no
    bias.

    Example:

    >>> layer = keras.layers.SimpleRNN(100, **irnn())

    Args:
        gain: Float, the diagonal of the recurrent kernel. Defaults to `1.0`.
        seed: Integer or None, for the input kernel. Defaults to `None`.

    Reference:

    - [Le, Jaitly & Hinton, 2015](https://arxiv.org/abs/1504.00941)
    """
    check_seed(seed)
    return {
        "activation": "relu",
        "recurrent_initializer": Identity(gain),
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.001, seed=seed),
        "bias_initializer": "zeros",
    }
