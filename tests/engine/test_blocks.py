"""Time as blocks: what one window sees is what its definition says."""

import itertools

import numpy as np
import pytest
import reference_bptt
import tensorflow as tf

from kbptt.engine.blocks import Blocks, divide
from kbptt.truncation import Full, Windowed


@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("align", ["end", "start"])
def test_blocks_are_the_windows_of_the_definition(align, known):
    for timesteps, length in itertools.product(range(1, 8), range(1, 10)):
        for stride in range(1, length + 1):
            windows = divide(
                timesteps if known else tf.constant(timesteps), Windowed(length, stride, align)
            )
            blocks = Blocks(windows)
            x = tf.range(1, timesteps + 1)[:, None]
            split = blocks.split(x)
            np.testing.assert_array_equal(blocks.join(split), x)
            real = blocks.real().numpy()
            np.testing.assert_array_equal(split[..., 0].numpy() > 0, real)
            # Window b goes back from the end of block b through `length` timesteps.
            line = split.numpy().reshape(-1)
            found = set()
            for b in range(int(windows.count)):
                end = (int(blocks.before) + b + 1) * int(windows.stride)
                inside = line[max(0, end - int(windows.length)) : end]
                losses = line[end - int(windows.stride) : end]
                found.add((*inside[inside > 0], 0, *losses[losses > 0]))
            expected = {
                (*range(w.start + 1, w.end + 1), 0, *range(w.first + 1, w.end + 1))
                for w in reference_bptt.windows(timesteps, length, stride, align)
            }
            assert found == expected


def test_full_bptt_is_one_block():
    for truncation in (Full(), Windowed(9, 8)):
        windows = divide(7, truncation)
        assert (windows.count, windows.stride, windows.length, windows.reach) == (1, 7, 7, 1)
        assert not Blocks(windows).padded
        assert not windows.overlapping
