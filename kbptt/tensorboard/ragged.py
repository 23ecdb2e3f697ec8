"""Profiles of different lengths as one table that takes no more memory than the profiles."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np


class Ragged:
    """Vectors of any lengths as a table `(rows, columns)`, aligned at their last element.

    Rows are padded only when they are read: one profile of a million timesteps does not make
    thousands of short ones as long.

    Args:
        vectors: The rows, or an array of them, which is then never copied.
        columns: Number of columns. Defaults to that of the longest row.

    Attributes:
        vectors: The rows.
        shape: `(rows, columns)`, as of an array.
    """

    def __init__(self, vectors: Sequence[np.ndarray] | np.ndarray, columns: int | None = None):
        self._table = vectors if isinstance(vectors, np.ndarray) else None
        self.vectors: list[np.ndarray] = list(vectors)
        longest = max(map(len, self.vectors), default=0)
        self.shape: tuple[int, int] = len(self.vectors), longest if columns is None else columns

    @property
    def size(self) -> int:
        """Number of elements, without padding."""
        return sum(map(len, self.vectors))

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Some of the rows as float32 array; masked where a vector has no such column."""
        chosen = self.vectors[rows]
        columns = self.shape[1]
        padded = np.zeros((len(chosen), columns), np.float32)
        missing = np.zeros(padded.shape, bool)
        for row, vector in enumerate(chosen):
            padded[row, columns - len(vector) :] = vector
            missing[row, : columns - len(vector)] = True
        return np.ma.MaskedArray(padded, missing) if missing.any() else padded

    def part(self, rows: slice, first: int, last: int) -> "Ragged":
        """The table of these rows and the columns from `first` to before `last`."""
        _, columns = self.shape
        last = min(max(last, 0), columns)
        first = min(max(first, 0), last)
        if self._table is not None:
            return Ragged(self._table[rows, first:last], last - first)
        starts = [columns - len(vector) for vector in self.vectors[rows]]
        parts = [
            vector[max(first - start, 0) : max(last - start, 0)]
            for start, vector in zip(starts, self.vectors[rows], strict=True)
        ]
        return Ragged(parts, last - first)

    def blocks(self, rows: slice, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """The rows as arrays without padding: `(first column, (some rows, other columns))`.

        Args:
            rows: Slice.
            size: Integer. Approximate largest number of elements of a block.
        """
        if self._table is not None:
            table = self._table[rows]
            together = max(1, size // max(table.shape[1], 1))
            for at in range(0, len(table), together):
                yield self.shape[1] - table.shape[1], table[at : at + together]
            return
        for length, alike in itertools.groupby(self.vectors[rows], len):
            alike = list(alike)
            together = max(1, size // max(length, 1))
            for at in range(0, len(alike), together):
                yield self.shape[1] - length, np.stack(alike[at : at + together])
