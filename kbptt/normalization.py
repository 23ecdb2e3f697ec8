"""Normalization inside recurrent layers: the values of their argument ``normalization=``."""

from typing import Any, TypeAlias

import keras

from kbptt._checks import number, one_of
from kbptt._frozen import Freezable
from kbptt._identifiers import option
from kbptt._typing import Config


@keras.saving.register_keras_serializable(package="kbptt")
class LayerNormalization(Freezable):
    """Layer normalisation of the recurrent sums (Ba, Kiros & Hinton, 2016).

    * SimpleRNN: ``h = φ(gain·LN(x·W + h·U) + b)``.
    * LSTM: ``z = gain_x·LN(x·W) + gain_h·LN(h·U) + b`` over all four gates together,
      ``c' = f·c + i·g`` and ``h' = o·φ(gain_c·LN(c') + b_c)``.
    * GRU: as the LSTM, the two gates together and the candidate on its own.

    The gains, initialized to ones, are weights in addition to those of the Keras layer.

    Args:
        epsilon: Positive float. Added to the variance. Defaults to 1e-5, as in the paper.
        carry_normalized: Boolean. LSTM only: carry LN(c') to the next timestep instead of c', as
            TensorFlow Addons did (with ``epsilon=1e-3``). This changes the dynamics: the cell state
            no longer keeps a value over many timesteps. Defaults to `False`.

    Raises:
        ValueError: If `epsilon` is not positive, or `carry_normalized` is not a boolean.

    Reference: [Ba, Kiros & Hinton, 2016](https://arxiv.org/abs/1607.06450), eqs. 4 and 20 to 31.
    """

    centred = True
    """Whether the mean is subtracted."""

    def __init__(self, epsilon: float = 1e-5, carry_normalized: bool = False) -> None:
        self.epsilon = number("epsilon", epsilon, above=0)
        self.carry_normalized = bool(one_of("carry_normalized", carry_normalized, (True, False)))

    def get_config(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon, "carry_normalized": self.carry_normalized}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LayerNormalization":
        return cls(**config)


@keras.saving.register_keras_serializable(package="kbptt")
class RMSNormalization(LayerNormalization):
    """Root-mean-square normalization: layer normalization that subtracts no mean.

    ``RMS(a) = a / √(mean(a²) + ε)`` replaces LN in `LayerNormalization`; arguments and weights are
    the same.

    Reference: [Zhang & Sennrich, 2019](https://arxiv.org/abs/1910.07467), eq. 4.
    """

    centred = False


NAMES = {
    "layer": LayerNormalization,
    "rms": RMSNormalization,
    "layer_carried": lambda: LayerNormalization(epsilon=1e-3, carry_normalized=True),
}


NormalizationLike: TypeAlias = str | Config | LayerNormalization | None


def get(identifier: NormalizationLike) -> LayerNormalization | None:
    """Returns the normalization for None, a name in `NAMES`, a config or an object.

    Raises:
        ValueError: If the identifier is none of these.
    """
    return option("normalization", identifier, LayerNormalization, NAMES)


def serialize(normalization: LayerNormalization | None) -> dict[str, Any] | None:
    """Returns the configuration that `get` turns back into `normalization`."""
    return None if normalization is None else keras.saving.serialize_keras_object(normalization)
