"""Biases of gated cells that decide how long a unit keeps its state: chrono, uniform gates."""

from typing import Any

import keras
from keras import ops

from kbptt import _checks, _gates, _keras
from kbptt._typing import Seed
from kbptt.initializers.base import SeededInitializer, cast


class _KeepingBias(SeededInitializer):
    """Bias of the gate by which a unit keeps its state; its negative where another lets in.

    LSTM: the forget gate gets what `keeping` returns, the input gate its negative. GRU: the update
    gate gets it, since Keras computes h = z·h_{t−1} + (1 − z)·ĥ.
    """

    def __init__(self, gates: int | str = _gates.AUTO, seed: Seed = None):
        super().__init__(seed)
        self.gates = _checks.one_of("gates", gates, [_gates.AUTO, 3, 4])

    def keeping(self, units: int) -> Any:
        """The bias `(units,)` in float64."""
        raise NotImplementedError

    def __call__(self, shape, dtype=None):
        name = type(self).__name__
        if getattr(_keras.layer_being_built(), "unit_forget_bias", False):
            raise ValueError(
                f"{name} sets the forget gate's bias itself and cannot be combined with "
                "`unit_forget_bias=True`. Pass `unit_forget_bias=False` to the LSTM."
            )
        gates = (3 if len(shape) == 2 else 4) if self.gates == _gates.AUTO else self.gates
        rows = {(3, 1): 1, (3, 2): 2, (4, 1): 1}.get((gates, len(shape)))
        if rows is None or (rows == 2 and shape[0] != 2) or shape[-1] % gates:
            raise ValueError(
                f"{name} expected the bias of an LSTM, (4 * units,), or of a GRU, (2, 3 * units) "
                f"or with gates=3 (3 * units,). Received: shape={tuple(shape)}, "
                f"gates={self.gates!r}."
            )
        units = shape[-1] // gates
        keep, zeros = self.keeping(units), ops.zeros(units, dtype="float64")
        bias = ops.concatenate([-keep, keep, zeros, zeros] if gates == 4 else [keep, zeros, zeros])
        if rows == 2:
            bias = ops.stack([bias, ops.zeros_like(bias)])
        return cast(bias, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"gates": self.gates, **super().get_config()}


@keras.saving.register_keras_serializable(package="kbptt")
class Chrono(_KeepingBias):
    """Bias of a gated cell that remembers over up to `max_timescale` steps from the start.

    LSTM (bias `(4 * units,)`, gates i, f, c, o): forget bias log u with u ~ U(1, max_timescale −
    1), input bias its negative, the rest 0. A unit then keeps 1 − 1/(1 + u) of its state per step.
    Keras's default `unit_forget_bias=True` calls the bias initializer in pieces and sets the forget
    gate to ones, so pass `unit_forget_bias=False`.

    GRU (bias `(2, 3 * units)`, or `(3 * units,)` with `reset_after=False`; gates z, r, h): Keras
    computes h = z·h_{t−1} + (1 − z)·ĥ, so z keeps the state and its bias is +log u. (In texts where
    z lets the new value in instead, it is −log u.) The two rows are added; only the input's row is
    set.

    Example:

    >>> layer = keras.layers.LSTM(64, bias_initializer=Chrono(784), unit_forget_bias=False)
    >>> layer = keras.layers.GRU(64, bias_initializer=Chrono(784))

    Args:
        max_timescale: Number of at least 2: the longest expected dependency, in steps.
        gates: `4` (LSTM), `3` (GRU) or `"auto"`: a bias with two rows is a GRU's, one with one
            row an LSTM's, so give 3 for `GRU(reset_after=False)`. Defaults to `"auto"`.
        seed: Integer, `SeedGenerator` or None. Defaults to `None`.

    Reference:

    - [Tallec & Ollivier, 2018](https://arxiv.org/abs/1804.11188)
    """

    def __init__(self, max_timescale: float, gates: int | str = _gates.AUTO, seed: Seed = None):
        super().__init__(gates, seed)
        self.max_timescale = _checks.number("max_timescale", max_timescale, at_least=2)

    def keeping(self, units: int) -> Any:
        highest = self.max_timescale - 1.0
        return ops.log(
            keras.random.uniform((units,), 1.0, highest, dtype="float64", seed=self.seed)
        )

    def get_config(self) -> dict[str, Any]:
        return {"max_timescale": self.max_timescale, **super().get_config()}


@keras.saving.register_keras_serializable(package="kbptt")
class UniformGate(_KeepingBias):
    """Bias of a gated cell whose forget gates are initially uniformly distributed.

    LSTM (bias `(4 * units,)`, gates i, f, c, o): forget bias −log(1/u − 1) with u ~ U(1/units, 1 −
    1/units), input bias its negative, the rest 0. While the kernels contribute about 0, the forget
    gate is u and the input gate 1 − u: time scales 1/(1 − u) from 1 step to `units` steps, most of
    them short, with nothing to tune. As for `Chrono`, pass `unit_forget_bias=False`.

    GRU (bias `(2, 3 * units)`, or `(3 * units,)` with `reset_after=False`; gates z, r, h): the
    update gate is u. Keras computes h = z·h_{t−1} + (1 − z)·ĥ, so its bias is that of the forget
    gate. Where z lets the new value in instead, the bias has the opposite sign and the same
    distribution, because 1 − u is distributed like u. A GRU's input gate is already tied to z.

    The paper's LSTM has no separate input gate: it is always 1 − f (a tied gate), and in its
    UR-LSTM a second gate refines f. Both change the cell, not its initial bias, and are not
    implemented here.

    Example:

    >>> layer = keras.layers.LSTM(64, bias_initializer=UniformGate(), unit_forget_bias=False)
    >>> layer = keras.layers.GRU(64, bias_initializer="uniform_gate")

    Args:
        gates: `4` (LSTM), `3` (GRU) or `"auto"`: a bias with two rows is a GRU's, one with one
            row an LSTM's, so give 3 for `GRU(reset_after=False)`. Defaults to `"auto"`.
        seed: Integer, `SeedGenerator` or None. Defaults to `None`.

    Raises:
        ValueError: If it is called for fewer than 2 units; U(1/n, 1 − 1/n) needs n ≥ 2.

    Reference:

    - [Gu, Gulcehre, Paine, Hoffman & Pascanu, 2020](https://arxiv.org/abs/1910.09890)
    """

    def keeping(self, units: int) -> Any:
        if units < 2:
            raise ValueError(
                f"UniformGate draws from U(1/units, 1 − 1/units) and needs at least 2 units. "
                f"Received: units={units}."
            )
        lowest = 1.0 / units
        kept = keras.random.uniform((units,), lowest, 1.0 - lowest, dtype="float64", seed=self.seed)
        return ops.log(kept) - ops.log(1.0 - kept)  # −log(1/u − 1)
