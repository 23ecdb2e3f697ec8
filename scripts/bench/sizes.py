"""The models that are measured, and the floating-point work of one training step of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}
CELLS = list(GATES)
FLAGS = ("one_hot", "last", "bidirectional", "stateful")  # of a size


@dataclass(frozen=True)
class Size:
    """A model and a batch: recurrent layers below a dense one.

    Attributes:
        batch: Number of sequences.
        timesteps: Length of each.
        features: Width of the inputs, or of the embedding.
        units: Of every recurrent layer, and of each direction.
        window: Chunk length of the windowed variants; `timesteps` or more: there are none.
        layers: Number of recurrent layers.
        words: Size of the vocabulary: the model begins with an embedding and ends with a softmax
            over it. 0: inputs are numbers, and the model ends with one unit and the squared error.
        one_hot: Whether the embedding is fixed: as many features as words, 1 for the one read.
        last: Whether only the last output of the last layer has a loss.
        bidirectional: Whether each recurrent layer is bidirectional; outputs are concatenated.
        stateful: Whether a batch begins in the state in which the one before ended.
    """

    batch: int
    timesteps: int
    features: int
    units: int
    window: int
    layers: int = 1
    words: int = 0
    one_hot: bool = False
    last: bool = False
    bidirectional: bool = False
    stateful: bool = False

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Size":
        """A size from five numbers and traits, such as ``64 100 128 128 25 layers=2 last``."""
        numbers = ("batch", "timesteps", "features", "units", "window")
        given: dict[str, Any] = dict(zip(numbers, map(int, words[:5]), strict=False))
        for word in words[5:]:
            name, _, value = word.partition("=")
            if name not in ("layers", "words", *FLAGS):
                raise ValueError(f"unknown trait of a size: {word}")
            given[name] = int(value) if value else True
        return cls(**given)

    def __str__(self) -> str:
        numbers = [self.batch, self.timesteps, self.features, self.units, self.window]
        traits = [f"{n}={v}" for n, v in (("layers", self.layers), ("words", self.words)) if v > 1]
        traits += [name for name in FLAGS if getattr(self, name)]
        return f"({', '.join([*map(str, numbers), *traits])})"

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def outputs(self) -> int:
        """Width of the dense layer."""
        return self.words or 1


def products(cell: str, size: Size) -> Iterator[tuple[int, int, int]]:
    """The matrix products of a training step with full BPTT, as (m, n, k): 2·m·n·k operations."""
    rows, width = size.batch * size.timesteps, GATES[cell] * size.units
    features = size.features
    for layer in range(size.layers):
        wanted = layer > 0 or (size.words > 0 and not size.one_hot)  # something below needs ∂L/∂x
        for _ in range(size.directions):
            yield from [(rows, width, features)] * (3 if wanted else 2)  # x·W, dW, dx
            yield from [(rows, width, size.units)] * 3  # h·U, dU, dh
        features = size.directions * size.units
    if size.last:
        rows = size.batch
    yield from [(rows, size.outputs, features)] * 3


def operations(cell: str, size: Size) -> int:
    """Floating-point operations of these products."""
    return sum(2 * m * n * k for m, n, k in products(cell, size))


LONG = [  # of the README
    Size(2, 4096, 16, 64, 64),
    Size(8, 1024, 32, 64, 32),
    Size(32, 512, 32, 128, 64),
    Size(64, 784, 1, 128, 49),
]
WIDE = [
    Size(128, 50, 64, 128, 25),
    Size(256, 100, 128, 256, 25),
    Size(64, 100, 512, 512, 25, last=True),
    Size(128, 60, 512, 512, 20),
    Size(64, 30, 512, 1024, 10),
    Size(64, 100, 128, 128, 25, bidirectional=True),
    Size(64, 100, 256, 256, 25, layers=3),
    Size(32, 50, 256, 256, 25, words=10_000),
    Size(32, 35, 28, 256, 35, stateful=True),  # of the guide
]
INFERENCE = [
    *(Size(batch, 100, 64, 128, 100) for batch in (64, 256)),
    *(Size(batch, 50, 256, 512, 50) for batch in (64, 256)),
    *(Size(1, 1, 32, units, 1, stateful=True) for units in (128, 512)),
]
FIT = [  # steps of about 3, 10 and 100 ms on two cores
    Size(32, 64, 8, 32, 64),
    Size(32, 128, 32, 64, 128),
    Size(64, 200, 64, 128, 200),
]
SHARED = [  # few rows, many units
    Size(2, 512, 16, 64, 64),
    Size(2, 512, 16, 128, 64),
    Size(2, 256, 64, 256, 64),
    Size(4, 128, 64, 512, 32),
    Size(32, 64, 128, 512, 16),
    Size(32, 32, 128, 1024, 8),
]
STREAMS = [
    Size(16, 128, 64, 128, 128),
    Size(32, 35, 28, 256, 35, words=28, one_hot=True),  # of the guide
]
