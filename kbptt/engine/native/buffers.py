"""Memory for the arrays that the compiled loops fill."""

import math
import threading
import time
import weakref

import numpy as np

_NOTHING = np.empty(0, np.uint8)


class Buffers:
    """Buffer pool: avoids faulting in and zeroing fresh pages every step.

    An array's buffer comes back when TensorFlow lets go of the array. One that nobody takes again
    for a while is returned to the operating system.

    Args:
        count: Number of free buffers kept at most, so that sequences of many lengths do not each
            leave theirs. Defaults to 16.
        total: Bytes of free buffers kept at most. Defaults to 1 GiB.
        seconds: How long a free buffer is kept. Defaults to 10.

    Attributes:
        free: The free buffers by identity, each with the time since when, oldest first.
    """

    def __init__(self, count: int = 16, total: int = 2**30, seconds: float = 10.0) -> None:
        self.count = count
        self.total = total
        self.seconds = seconds
        self.free: dict[int, tuple[float, np.ndarray]] = {}
        self._lent: set[int] = set()
        self._watcher: threading.Thread | None = None
        self._watcher_lock = threading.Lock()

    def array(self, shape: list[int], dtype: np.dtype) -> np.ndarray:
        """An uninitialized array, aligned so that TensorFlow takes it over without a copy.

        The buffer is lent as long as the array itself is there: a view of it does not keep it.
        """
        size = math.prod(shape) * dtype.itemsize
        buffer = self._take(size + 64)
        offset = -buffer.ctypes.data % 64
        array = buffer[offset : offset + size].view(dtype).reshape(shape)
        self._lent.add(id(buffer))
        weakref.finalize(array, self._give, buffer).atexit = False
        with self._watcher_lock:
            if self._watcher is None or not self._watcher.is_alive():  # as in a forked process
                self._watcher = threading.Thread(target=self._watch, name="kbptt", daemon=True)
                self._watcher.start()
        return array

    # An array may be let go of at any moment and in any thread, even one that holds a lock. So
    # there is none here: every operation on `free` and `_lent` is atomic. A list of the keys is;
    # one of the items makes tuples, and with them the garbage collector may let go of an array.

    def _give(self, buffer: np.ndarray) -> None:
        self.free[id(buffer)] = time.monotonic(), buffer
        self._lent.discard(id(buffer))

    def _take(self, size: int) -> np.ndarray:
        for key in reversed(list(self.free)):
            _, buffer = self.free.get(key, (0.0, _NOTHING))
            if size <= buffer.size <= 2 * size and self.free.pop(key, None) is not None:
                return buffer
        self.trim()
        return np.empty(size, np.uint8)

    def trim(self) -> None:
        """Lets go of the free buffers that are too many, too large together or too old."""
        total, oldest = 0, time.monotonic() - self.seconds
        for count, key in enumerate(reversed(list(self.free)), 1):
            since, buffer = self.free.get(key, (0.0, _NOTHING))
            total += buffer.size
            if count > self.count or total > self.total or since < oldest:
                self.free.pop(key, None)

    def _watch(self) -> None:
        while True:
            time.sleep(self.seconds)
            self.trim()
            with self._watcher_lock:
                if not self.free and not self._lent:
                    self._watcher = None
                    return
