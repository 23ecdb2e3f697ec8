"""Synthetic tasks: the answer depends on a few timesteps at a known distance.

The distance between what must be remembered and the answer grows with `length` (or `lag`), and
nothing in between helps. A network whose gradient does not reach that far scores `baseline`.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kbptt import _checks
from kbptt.tasks.base import Outputs, Task
from kbptt.tasks.registry import register

if TYPE_CHECKING:
    import keras

SIZES = (10_000, 1_000, 1_000)
# Pascanu et al. count a sequence as wrong above this squared error.
SOLVED_SQUARED_ERROR = 0.04


class _TwoMarkedNumbers(Task):
    """Random numbers in [0, 1), two of them marked; the answer combines the marked ones."""

    metric: str = "mse"
    mode: str = "min"
    success: float | None = 0.01
    features: int = 2
    outputs: Outputs = Outputs(1)

    def mark_ranges(self) -> list[tuple[int, int]]:
        """Where each of the two marks may be: the first timestep, and the one after the last."""
        raise NotImplementedError

    def combine(self, marked: np.ndarray) -> np.ndarray:
        """The answers to the marked numbers, ``(samples, 2)``."""
        raise NotImplementedError

    def sample(self, generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        values = generator.random((count, self.length), dtype=np.float32)
        positions = np.stack(
            [generator.integers(low, high, size=count) for low, high in self.mark_ranges()], axis=1
        )
        marks = np.zeros_like(values)
        np.put_along_axis(marks, positions, 1.0, axis=1)
        marked = np.take_along_axis(values, positions, axis=1)
        return np.stack([values, marks], axis=2), self.combine(marked)[:, None]

    def metrics(self) -> list["keras.metrics.Metric"]:
        from kbptt.tasks.keras_objects import WithinSquaredError

        return [*super().metrics(), WithinSquaredError(SOLVED_SQUARED_ERROR, name="solved")]


@register("adding")
class Adding(_TwoMarkedNumbers):
    """The adding problem: add two marked numbers of a sequence.

    One is in each half of the sequence.

    `x` is `(samples, length, 2)`: a number from U[0, 1) and a mark (1 at two timesteps, else 0).
    `y` is the sum of the two marked numbers. Always answering 1, the mean, gives the variance of
    the sum, a mean squared error of 1/6 (some papers give 0.1767). The metric "solved" is the
    fraction of sequences with a squared error of at most 0.04, the bound of Pascanu et al., 2013.

    Args:
        length: Integer of at least 2. Defaults to `100`.
        sizes: Sequences for training, validation and test. Defaults to `(10000, 1000, 1000)`.

    Reference:
        - Hochreiter & Schmidhuber, 1997, experiment 4, in the form of
          [Le et al., 2015](https://arxiv.org/abs/1504.00941).
    """

    baseline: float = 1 / 6

    def __init__(self, length: int = 100, sizes: Sequence[int] = SIZES):
        super().__init__(_at_least("length", length, 2), sizes)

    def mark_ranges(self) -> list[tuple[int, int]]:
        half = self.length // 2
        return [(0, half), (half, self.length)]

    def combine(self, marked: np.ndarray) -> np.ndarray:
        return marked.sum(axis=1)


@register("multiplication")
class Multiplication(_TwoMarkedNumbers):
    """Multiply the two marked numbers of a sequence.

    One is in the first tenth of the sequence, one between there and the middle.

    Inputs as in `adding`. `y` is the product. Always answering 1/4 gives a mean squared error of
    1/9 - 1/16 = 7/144.

    Args:
        length: Integer of at least 10. Defaults to `100`.
        sizes: Sequences for training, validation and test. Defaults to `(10000, 1000, 1000)`.

    Reference:
        - [Pascanu et al., 2013](https://arxiv.org/abs/1211.5063).
    """

    baseline: float = 7 / 144
    success: float | None = 0.003

    def __init__(self, length: int = 100, sizes: Sequence[int] = SIZES):
        super().__init__(_at_least("length", length, 10), sizes)

    def mark_ranges(self) -> list[tuple[int, int]]:
        return [(0, self.length // 10), (self.length // 10, self.length // 2)]

    def combine(self, marked: np.ndarray) -> np.ndarray:
        return marked.prod(axis=1)


@register("copy_memory")
class CopyMemory(Task):
    """Copy memory: repeat a few symbols after a lag of blanks.

    Tokens: 0 is blank, 1 to `symbols` are symbols, `symbols + 1` asks for the copy. `x` is the
    items, `lag - 1` blanks, the request and `items` blanks; `y` is blank until the last `items`
    timesteps, which repeat the items: `lag + 2 * items` timesteps in all. With `variable=True` the
    request comes after a lag drawn from 1 to `lag` for each sequence; the copy follows it.

    A predictor that forgets the items but counts timesteps answers blank, then guesses: a cross
    entropy of
    `items * log(symbols) / length` nats.

    Args:
        lag: Integer. Timesteps from the last item to the request. Defaults to `100`.
        items: Integer. Symbols to remember. Defaults to `10`.
        symbols: Integer of at least 2. Size of the alphabet. Defaults to `8`.
        variable: Boolean, whether each sequence has its own lag. Defaults to `False`.
        sizes: Sequences for training, validation and test. Defaults to `(10000, 1000, 1000)`.

    Reference:
        - [Arjovsky et al., 2016](https://arxiv.org/abs/1511.06464).
    """

    metric: str = "cross_entropy"
    mode: str = "min"

    def __init__(
        self,
        lag: int = 100,
        items: int = 10,
        symbols: int = 8,
        variable: bool = False,
        sizes: Sequence[int] = SIZES,
    ):
        self.lag: int = _checks.positive_integer("lag", lag)
        self.items: int = _checks.positive_integer("items", items)
        self.symbols: int = _at_least("symbols", symbols, 2)
        self.variable: bool = _checks.flag("variable", variable)
        super().__init__(self.lag + 2 * self.items, sizes)
        self.vocabulary: int | None = self.symbols + 2
        self.outputs: Outputs = Outputs(self.symbols + 1, per_timestep=True)
        self.baseline: float = self.items * math.log(self.symbols) / self.length
        self.success: float | None = self.baseline / 10

    def sample(self, generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        items = generator.integers(1, self.symbols + 1, size=(count, self.items), dtype=np.int32)
        lags = np.full(count, self.lag)
        if self.variable:
            lags = generator.integers(1, self.lag + 1, size=count)
        x = np.zeros((count, self.length), np.int32)
        y = np.zeros((count, self.length), np.int32)
        rows = np.arange(count)
        x[:, : self.items] = items
        x[rows, self.items + lags - 1] = self.symbols + 1
        answer = (self.items + lags)[:, None] + np.arange(self.items)
        y[rows[:, None], answer] = items
        return x, y


# Where the symbols of `temporal_order` may begin, in tenths of the length.
STARTS = {2: (1, 5), 3: (1, 3, 6)}


@register("temporal_order")
class TemporalOrder(Task):
    """Temporal order: name the symbols at two unknown places.

    Six symbols: 0 and 1 matter, 2 to 5 distract. There is a 0 or 1 in each range: for two symbols
    [0.1 L, 0.2 L) and [0.5 L, 0.6 L); for three [0.1 L, 0.2 L), [0.3 L, 0.4 L) and [0.6 L, 0.7 L).
    `y` is the class, the symbols read as binary digits, the first one lowest. Guessing gives an
    accuracy of 1/4 (1/8 for three). Solved: under 1 % wrong.

    Args:
        length: Integer of at least 10. Defaults to `100`.
        symbols: 2 or 3, the number of symbols to remember. Defaults to `2`.
        sizes: Sequences for training, validation and test. Defaults to `(10000, 1000, 1000)`.

    Reference:
        - Hochreiter & Schmidhuber, 1997, experiment 6, in the form of
          [Pascanu et al., 2013](https://arxiv.org/abs/1211.5063).
    """

    metric: str = "accuracy"
    mode: str = "max"
    success: float | None = 0.99
    vocabulary: int | None = 6

    def __init__(self, length: int = 100, symbols: int = 2, sizes: Sequence[int] = SIZES):
        super().__init__(_at_least("length", length, 10), sizes)
        self.symbols: int = _checks.one_of("symbols", symbols, (2, 3))
        self.outputs: Outputs = Outputs(2**self.symbols)
        self.baseline: float = 0.5**self.symbols

    def sample(self, generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        x = generator.integers(2, 6, size=(count, self.length), dtype=np.int32)
        symbols = generator.integers(0, 2, size=(count, self.symbols), dtype=np.int32)
        width = self.length // 10
        starts = [self.length * tenths // 10 for tenths in STARTS[self.symbols]]
        offsets = generator.integers(0, width, size=(count, self.symbols))
        np.put_along_axis(x, np.array(starts) + offsets, symbols, axis=1)
        return x, symbols @ (1 << np.arange(self.symbols, dtype=np.int32))


@register("random_permutation")
class RandomPermutation(Task):
    """Name the first of many random symbols, after the last one.

    Tokens: the first is 0 or 1, the others are drawn from 2 to `symbols - 1`. `y` is the first
    token: the only predictable continuation of the sequence. Guessing between 0 and 1 gives an
    accuracy of 1/2. Solved: under 1 % wrong.

    Args:
        length: Integer of at least 2. Defaults to `100`.
        symbols: Integer of at least 3. Size of the alphabet. Defaults to `100`.
        sizes: Sequences for training, validation and test. Defaults to `(10000, 1000, 1000)`.

    Reference:
        - Hochreiter & Schmidhuber, 1997, experiment 2, in the form of
          [Pascanu et al., 2013](https://arxiv.org/abs/1211.5063) (symbols may repeat).
    """

    metric: str = "accuracy"
    mode: str = "max"
    baseline: float = 0.5
    success: float | None = 0.99

    def __init__(self, length: int = 100, symbols: int = 100, sizes: Sequence[int] = SIZES):
        super().__init__(_at_least("length", length, 2), sizes)
        self.symbols: int = _at_least("symbols", symbols, 3)
        self.vocabulary: int | None = self.symbols
        self.outputs: Outputs = Outputs(self.symbols)

    def sample(self, generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        x = generator.integers(2, self.symbols, size=(count, self.length), dtype=np.int32)
        x[:, 0] = generator.integers(0, 2, size=count)
        return x, x[:, 0].copy()


def _at_least(name: str, value: int, minimum: int) -> int:
    value = _checks.positive_integer(name, value)
    _checks.number(name, value, at_least=minimum)
    return value
