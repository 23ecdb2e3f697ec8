"""SnAp-1 in a layer: what it can follow, and how much of it is carried from call to call."""

from typing import Any

import tensorflow as tf
from keras import tree

from kbptt.engine import Influence
from kbptt.layers.options import GradientOptions

# Numbers of the influence for one sample where units mix: 64 MiB of float32.
LARGEST = 2**24


class InfluenceOptions(GradientOptions):
    """Mixin of the layers whose states and their influence may be carried on."""

    _influence: Influence | None = None

    def _influential(self) -> tuple[list[Any], bool]:
        """The weights whose influence is carried, and whether the units of the cell mix."""
        raise NotImplementedError

    def influence_size(self) -> int:
        """Numbers to carry on for each sample where states are, in training; 0 without SnAp-1.

        Raises:
            ValueError: If they cannot be carried, or are too many.
        """
        if not self.truncation.diagonal:
            return 0
        weights, mixing = self._influential()
        widths = [int(width) for width in tree.flatten(self.state_size)]
        parameters = sum(int(tf.TensorShape(w.shape).num_elements()) for w in weights)
        size = Influence.size(parameters, widths, mixing)
        if mixing and size > LARGEST:
            raise ValueError(
                f"Layer '{self.name}': truncation=SnAp(1) would carry {size:,} numbers for each "
                f"row, {parameters:,} parameters times {sum(widths):,} numbers of the state: for a "
                "custom cell, the engine assumes that every parameter acts on all units. "
                f"Expected at most {LARGEST:,}. Use kbptt.LSTM, kbptt.GRU or kbptt.SimpleRNN, or a "
                "different `truncation`."
            )
        return size

    def _begin_influence(self, before: Any, carry: Any, burn_in: int) -> Influence | None:
        """What a call in training carries on; None without SnAp-1.

        Args:
            before: The influence at the start, ``(batch, size)``, or None.
            carry: The `kbptt.layers.call.Carry`, or None.
            burn_in: That of the call.
        """
        if before is None:
            return None
        if burn_in or (carry is not None and carry.length is not None):
            raise ValueError(
                f"Layer '{self.name}': truncation=SnAp(1) carries the past itself and expects "
                "consecutive calls, without `burn_in` and without the `context` of Streams. "
                "Remove them, or choose a different `truncation`."
            )
        return Influence(before, self._influential()[1])
