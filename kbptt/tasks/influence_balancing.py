"""Influence balancing: a system where a short truncation has the wrong sign and diverges."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kbptt import _checks
from kbptt.tasks.base import Outputs, Task
from kbptt.tasks.registry import register

if TYPE_CHECKING:
    import keras


@register("influence_balancing")
class InfluenceBalancing(Task):
    """Influence balancing: tune the one parameter of a chain.

    The chain is fixed and linear, its parameter θ. The task has its own recurrent layer,
    `kbptt.RNN` over a chain of `units` numbers (see
    `kbptt.tasks.keras_objects.InfluenceBalancingCell`). It ignores the requested cell, units,
    layers and initializers, but not the truncation, which it tests. The inputs are zeros, all
    sequences are the same, and the last output should be 1, which holds for θ = 1 / (2 (2 positive
    - units)), that is -1/6. Increasing θ first raises the output, through the positive units, and
    later lowers it: a gradient truncated too early points the wrong way, and θ diverges.
    Deterministic and cheap, so a sharp test of a truncation.

    The baseline, a mean squared error of 1, is the chain at rest (θ = 0). It starts at θ = 0.5,
    with an error of 16.

    Args:
        length: Integer. Timesteps; the chain needs about 100 to settle. Defaults to `150`.
        units: Integer. Length of the chain. Defaults to `23`.
        positive: Integer. Units that θ drives upward. Defaults to `10`.
        sizes: Sequences for training, validation and test. Defaults to `(640, 32, 32)`.

    Reference:
        - [Tallec & Ollivier, 2017](https://arxiv.org/abs/1705.08209).
    """

    metric: str = "mse"
    mode: str = "min"
    baseline: float = 1.0
    success: float | None = 0.01
    outputs: Outputs = Outputs(1)

    def __init__(
        self,
        length: int = 150,
        units: int = 23,
        positive: int = 10,
        sizes: Sequence[int] = (640, 32, 32),
    ):
        super().__init__(length, sizes)
        self.units: int = _checks.positive_integer("units", units)
        self.positive: int = _checks.positive_integer("positive", positive)
        _checks.number("positive", positive, at_most=units)

    def sample(self, generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((count, self.length, 1), np.float32), np.ones((count, 1), np.float32)

    def recurrent_layer(self, truncation: Any = None, **arguments: Any) -> "keras.layers.Layer":
        import kbptt
        from kbptt.tasks.keras_objects import InfluenceBalancingCell

        # There is no matrix to initialize, so methods that differ only by initializer coincide.
        kept = {k: v for k, v in arguments.items() if not k.endswith("_initializer")}
        unusable = sorted(set(kept) - {"gradient_clip"})
        if unusable:
            raise ValueError(
                "The task 'influence_balancing' has its own layer, whose only arguments are "
                f"truncation and gradient_clip. Received: {', '.join(unusable)}."
            )
        return kbptt.RNN(
            InfluenceBalancingCell(self.units, self.positive, name="chain"),
            truncation=truncation,
            name="rnn",
            **kept,
        )
