"""Which units zoneout holds, in NumPy: from the definition and from Salmon et al. (2011)."""

from collections.abc import Sequence

import numpy as np


def held(
    rates: Sequence[float], key: np.ndarray | None, t: int, batch: int, units: int
) -> list[np.ndarray]:
    """For each state ``(batch, units)`` of zeros and ones at timestep t; the rates if no key."""
    if key is None:
        return [np.full([batch, units], rate) for rate in rates]
    key, before = map(int, key)
    quarter, out = -(-units // 4), []
    for i, rate in enumerate(rates):
        row = ((before + t) * batch + np.arange(batch)) * len(rates) + i
        words = philox(key, row[:, None] * quarter + np.arange(quarter))
        words = np.concatenate(list(words), axis=1)[:, :units]
        out.append(np.float64(words < min(rate * 2**32, 2**32 - 1)))
    return out


def philox(key: int, counts: np.ndarray) -> np.ndarray:
    """Philox4x32-10 of 64-bit counts: four words for each, which are the first axis."""
    low, half = np.uint64(2**32 - 1), np.uint64(32)
    counts = np.asarray(counts, np.uint64)
    a, b, c, d = counts & low, counts >> half, counts * np.uint64(0), counts * np.uint64(0)
    k, m = key % 2**32, key >> 32
    for _ in range(10):
        left, right = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, c = (right >> half) ^ b ^ np.uint64(k), (left >> half) ^ d ^ np.uint64(m)
        b, d = right & low, left & low
        k, m = (k + 0x9E3779B9) % 2**32, (m + 0xBB67AE85) % 2**32
    return np.stack([a, b, c, d])
