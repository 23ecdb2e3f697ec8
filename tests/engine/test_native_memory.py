"""The buffers of the C loops: used again while steps follow each other, given back afterwards."""

import threading
import time

import numpy as np
import pytest

from kbptt.engine.native.buffers import Buffers

FLOAT = np.dtype(np.float32)


def wait(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_the_same_memory_step_after_step():
    buffers = Buffers()
    addresses = set()
    for _ in range(5):
        arrays = [buffers.array([100, 10], FLOAT) for _ in range(3)]
        addresses |= {a.ctypes.data for a in arrays}
        assert all(a.ctypes.data % 64 == 0 for a in arrays)
        del arrays
    assert len(addresses) == 3


def test_an_array_in_use_is_nobody_elses():
    buffers = Buffers()
    first = buffers.array([1000], FLOAT)
    first[:] = 1
    for _ in range(3):
        buffers.array([1000], FLOAT)[:] = 2
    np.testing.assert_array_equal(first, 1)


def test_much_larger_buffers_are_not_used_for_small_arrays():
    buffers = Buffers()
    large = buffers.array([10**6], FLOAT)
    address = large.ctypes.data
    del large
    small = buffers.array([10], FLOAT)
    assert abs(small.ctypes.data - address) > 64


def test_buffers_that_nobody_uses_are_given_back_without_a_further_call():
    buffers = Buffers(seconds=0.05)
    array = buffers.array([10**6], FLOAT)
    del array
    assert wait(lambda: not buffers.free)
    # … one that was let go of long after the last call as well; then the watching thread ends.
    array = buffers.array([10**6], FLOAT)
    time.sleep(0.2)
    del array
    assert wait(lambda: not buffers.free)
    assert wait(lambda: buffers._watcher is None)


@pytest.mark.parametrize("limit", [{"count": 4}, {"total": 4 * 4 * 10**4 + 1000}])
def test_many_lengths_leave_a_bounded_rest(limit):
    buffers = Buffers(seconds=600, **limit)
    arrays = [buffers.array([10**4], FLOAT) for _ in range(50)]
    arrays.clear()
    assert len(buffers.free) == 50
    buffers.trim()
    assert 3 <= len(buffers.free) <= 4


def test_threads_never_share_a_buffer():
    buffers = Buffers(seconds=0.001)
    wrong = []

    def work(mark):
        for size in list(range(1000, 1100)) * 5:
            array = buffers.array([size], FLOAT)
            array[:] = mark
            time.sleep(0)
            if not (array == mark).all():
                wrong.append(mark)

    workers = [threading.Thread(target=work, args=[i]) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert wait(lambda: not buffers.free)
