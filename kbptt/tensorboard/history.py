"""A bounded record of gradient profiles over training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kbptt.tensorboard import reader

# Norms kept over all layers: 64 MiB of float32.
MAX_VALUES = 2**24


class History:
    """Profiles of every layer at some training steps, in bounded memory.

    When it is full, it drops every second record and from then on adds only every second one, so
    the records stay evenly spread over the training so far.

    Args:
        max_records: Integer. Largest number of records per layer; fewer are kept if they would
            hold more than `MAX_VALUES` norms.

    Attributes:
        added: How often `add` was called.
    """

    def __init__(self, max_records: int):
        self.max_records = max_records
        self._stride = 1
        self.added: int = 0
        self._records: list[tuple[int, Mapping[Any, np.ndarray]]] = []
        self._values = 0

    def __len__(self) -> int:
        return len(self._records)

    def add(self, step: int, profiles: Mapping[Any, np.ndarray]) -> None:
        """Adds the profiles `{layer: (timesteps,)}` of one step, larger than those before."""
        if self.added % self._stride == 0:
            self._records.append((step, profiles))
            self._values += _size(profiles)
        self.added += 1
        while len(self) > 2 and (len(self) > self.max_records or self._values > MAX_VALUES):
            self._records = self._records[::2]
            self._stride *= 2
            self._values = sum(_size(profiles) for _, profiles in self._records)

    def layers(self) -> list[Any]:
        """Names of all layers recorded so far, in order of appearance."""
        return list(dict.fromkeys(name for _, profiles in self._records for name in profiles))

    def all(self) -> dict[Any, reader.Profiles]:
        """`get` of every layer."""
        return {layer: self.get(layer) for layer in self.layers()}

    def steps(self) -> list[int]:
        """The steps of all records."""
        return [step for step, _ in self._records]

    def vectors(self, layer: str, last: int) -> tuple[list[int], list[np.ndarray]]:
        """Steps and norms `(timesteps,)` of the last records of one layer, at most so many."""
        found = [(step, p[layer]) for step, p in self._records[-last:] if layer in p]
        return [step for step, _ in found], [norms for _, norms in found]

    def get(self, layer: Any) -> reader.Profiles:
        """`(steps, norms)` of one layer, as `kbptt.tensorboard.read` returns them."""
        return reader.stack({step: p[layer] for step, p in self._records if layer in p})


def _size(profiles: Mapping[Any, np.ndarray]) -> int:
    return sum(norms.size for norms in profiles.values())
