"""`StreamState`: training over windows is what a loop by hand does, sequence by sequence."""

import numpy as np
import pytest
from stream_loop import RECURRENT, Loop, build, sequences

from kbptt.callbacks import StreamState
from kbptt.data import Streams
from kbptt.engine import using

pytestmark = pytest.mark.usefixtures("float64")

SIZES = 17, 5, 9, 1, 12, 8

CASES = {
    "plain": {},
    "no offset": {"offset": 0},
    "shuffled": {"order": "shuffled", "seed": 3},
    "packed": {"pack": True},
    "context": {"context": 3},
    "a context longer than the window": {"context": 7},
    "packed with context": {"pack": True, "context": 2},
    "burn-in": {"context": 3, "context_gradient": False},
}


def compare(model, hand, data, epochs=2, **fit):
    loop, losses = Loop(hand), []
    for epoch in range(epochs):
        data.seek(epoch * len(data))
        loop.epoch(data)
        losses.append(np.average(loop.losses, weights=loop.counts))
    data.seek(0)
    history = model.fit(
        data, epochs=epochs, verbose=0, callbacks=[StreamState(data)], **fit
    ).history
    assert data.position == epochs * len(data)
    for a, b in zip(model.get_weights(), hand.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-10)


@pytest.mark.parametrize("engine", ["native", "tensorflow"])
@pytest.mark.parametrize("cell", RECURRENT)
def test_every_cell_and_loop(cell, engine):
    x, y = sequences(*SIZES)
    data = Streams(x, y, target=None, length=4, batch_size=3)
    with using(native=engine == "native", jit=False):
        compare(build(cell), build(cell), data)


@pytest.mark.parametrize("case", CASES)
def test_every_stream(case):
    x, y = sequences(*SIZES)
    options = CASES[case]
    data = Streams(x, y, target=None, length=4, batch_size=3, **options)
    pack = options.get("pack", False)
    hand = build("stack", pack=pack, trainable_initial_state=True)
    model = build("stack", pack=pack, trainable_initial_state=True)
    compare(model, hand, data)
