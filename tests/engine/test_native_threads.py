"""Threads of the C++ loops that share units; wide layers; what a pass keeps, and for whom."""

import concurrent.futures
import threading

import numpy as np
import pytest
import tensorflow as tf
from recurrent import data, everything, make

import kbptt
from kbptt.engine import cpu, native, using

pytestmark = pytest.mark.skipif(native.library() is None, reason="the C++ loops were not built")
SETS = library.instruction_sets if (library := native.library()) else []


def wide(cell, units, features, **arguments):
    """As `make`, but neither saturated nor chaotic with many units."""
    layer = make(cell, units=units, features=features, **arguments)
    layer.set_weights([w / max(units, features) ** 0.5 for w in layer.get_weights()])
    return layer


def assert_close(found, expected, of_float32=1e-6):
    """Up to a part of the largest number: norms are in float32 whatever the dtype."""
    for a, b in zip(found, expected, strict=True):
        part = of_float32 if a.dtype == np.float32 else 1e-9
        np.testing.assert_allclose(a, b, rtol=0, atol=part * max(np.abs(b).max(), 1e-3))


def in_time(function, seconds=120):
    """What `function` returns; a failure if threads wait for each other for ever."""
    future = concurrent.futures.Future()

    def run():
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)


@pytest.mark.parametrize(
    ("cell", "units", "batch", "timesteps", "arguments"),
    [
        ("SimpleRNN", 1024, 64, 2, {"threads": 3}),
        ("LSTM", 300, 4, 40, {"threads": 4}),
        ("LSTM", 512, 4, 40, {"threads": 6}),
        ("GRU", 80, 3, 50, {"threads": 5}),
        ("LSTM", 208, 80, 3, {"threads": 2, "members": 2}),
    ],
)
@pytest.mark.parametrize("kept_gates", [0, 2**30])
def test_threads_with_shares_of_unequal_size(cell, units, batch, timesteps, arguments, kept_gates):
    """They agree on the rows that go through time together, and so on when they meet."""
    x, state, _, d = data(cell, timesteps=timesteps, batch=batch, features=5, units=units)
    x, state, d = np.float32(x), [np.float32(s) for s in state], np.float32(d)

    def run(**arguments):
        with using(kept_gates=kept_gates, **arguments):
            return everything(wide(cell, units, 5, dtype="float32"), x, state, d)

    assert_close(in_time(lambda: run(**arguments)), run(threads=1), of_float32=1e-4)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize(
    ("cell", "units", "features", "dtype"),
    [("SimpleRNN", 256, 256, "float32"), ("LSTM", 16, 300, "float32"), ("GRU", 16, 128, "float64")],
)
def test_wide_inputs(cell, units, features, dtype, instruction_set):
    """The gradient of more rows at once than there are units or features."""
    x, state, _, d = data(cell, timesteps=9, batch=64, features=features, units=units)
    x, state, d = x.astype(dtype), [s.astype(dtype) for s in state], np.array(d, dtype)

    def run():
        return everything(wide(cell, units, features, dtype=dtype), x, state, d)

    with using(instruction_set=instruction_set, threads=1):
        found = run()
    with native.disabled():
        expected = run()
    assert_close(found, expected, of_float32=1e-4)


@pytest.mark.parametrize("interrupted", ["forward", "backward"])
def test_nobody_waits_for_a_thread_that_does_not_come(interrupted, monkeypatch):
    """As where Ctrl-C comes after the start of the others and before the part of this one."""
    x, state, _, d = data("LSTM", units=64)
    # Not of when the tests were collected: others load the library again.
    loops = native.library()
    layer, its_pass = wide("LSTM", 64, 3), getattr(loops, interrupted)

    def no_part_of_this_thread(*arguments):
        if not threading.current_thread().name.startswith("kbptt"):
            raise KeyboardInterrupt
        its_pass(*arguments)

    def run(**arguments):
        with using(**arguments):
            return everything(layer, x, state, d)

    with monkeypatch.context() as context:
        context.setattr(loops, interrupted, no_part_of_this_thread)
        with pytest.raises(KeyboardInterrupt):
            in_time(lambda: run(threads=2, members=2))
    assert_close(in_time(lambda: run(threads=2, members=2)), run(threads=1))


def test_a_function_that_has_run_keeps_more_once_a_tape_asks(monkeypatch):
    layer, x = kbptt.LSTM(4, dtype="float64"), tf.constant(data("LSTM")[0])
    function = tf.function(lambda x: layer(x))
    calls, forward = [], cpu.CPULoop.run_forward

    def counting(self, names, read, *values):
        calls.append(any(read[2:]))
        return forward(self, names, read, *values)

    monkeypatch.setattr(cpu.CPULoop, "run_forward", counting)
    function(x)
    assert calls == [False]
    for _ in range(2):
        calls.clear()
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(function(x))
        tape.gradient(loss, layer.trainable_variables)
        assert calls == [True]
