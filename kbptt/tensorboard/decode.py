"""Profiles from the tensors of a time series, which come from foreign event files."""

import contextlib
import operator
from collections.abc import Sequence

import numpy as np
from tensorboard.compat.proto import tensor_pb2, types_pb2
from tensorboard.util import tensor_util

from kbptt.tensorboard import guard, reader
from kbptt.tensorboard.ragged import Ragged
from kbptt.tensorboard.series import Records


def records(
    steps: Sequence[int], tensors: Sequence[tensor_pb2.TensorProto], by_lag: bool
) -> Records:
    """The profiles among the tensors, sorted by step; of equal steps (a resumed run) the last one.

    Args:
        steps: The step of each tensor.
        tensors: As they were written; what is not a vector of nonnegative norms counts as damaged.
        by_lag: Whether to turn the vectors around, so that lag 0 comes last.
    """
    last = dict(sorted(zip(steps, tensors, strict=True), key=operator.itemgetter(0)))
    turned = slice(None, None, -1 if by_lag else 1)
    norms = _as_one_buffer(last)
    if norms is not None:
        return Records(np.array(list(last), np.int64), Ragged(norms[:, turned]))
    found = {}
    for step, tensor in last.items():
        # A tensor with foreign fields can raise anything.
        with contextlib.suppress(Exception):
            if guard.is_sound(tensor):
                profile = reader.profile(step, tensor_util.make_ndarray(tensor))
                if profile is not None:
                    found[step] = profile[turned]
    vectors = Ragged(list(found.values()))
    return Records(np.array(list(found), np.int64), vectors, len(last) - len(found))


def _as_one_buffer(tensors: dict[int, tensor_pb2.TensorProto]) -> np.ndarray | None:
    """All profiles as one table, if they are all as kbptt writes them and equally long, else None.

    `make_ndarray` of each would take ten times as long.
    """
    if not tensors or max(map(abs, tensors)) > reader.MAX_STEP:
        return None
    shape = next(iter(tensors.values())).tensor_shape
    size = shape.dim[0].size if len(shape.dim) == 1 else 0
    if not 0 < size <= reader.MAX_TIMESTEPS:
        return None
    parts = []
    for tensor in tensors.values():
        content = tensor.tensor_content
        if tensor.dtype != types_pb2.DT_FLOAT or len(content) != 4 * size:
            return None
        if tensor.tensor_shape != shape:
            return None
        parts.append(content)
    norms = np.frombuffer(b"".join(parts), "<f4").reshape(len(parts), -1)
    return None if (norms < 0).any() else norms
