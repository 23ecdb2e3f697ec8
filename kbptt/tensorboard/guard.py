"""Checks tensors of foreign event files before anything makes arrays of them.

A tensor may give one number for all the elements that its shape declares: a few hundred bytes of an
event file become gigabytes of memory. kbptt writes 4 bytes per norm. So a tensor that declares more
elements than it has bytes is damaged, and the memory of all others is bounded by their files' size.
"""

import dataclasses
import math
from typing import Any

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.compat.proto import tensor_pb2, types_pb2
from tensorboard.data.grpc_provider import GrpcDataProvider
from tensorboard.data.provider import DataProvider

from kbptt import _tensorboard

# Most elements of a tag made into arrays at once: as float32 the 256 MiB that TensorBoard's
# data server sends in one reply. Without that server TensorBoard has no bound.
MAX_ELEMENTS = 2**26


def is_sound(tensor: tensor_pb2.TensorProto) -> bool:
    """Whether a tensor's data can be as many as its shape declares."""
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    # Not by NumPy: its product of such numbers overflows, back to a plausible one.
    return min(sizes, default=0) >= 0 and math.prod(sizes) <= tensor.ByteSize()


def guard(data: DataProvider) -> DataProvider:
    """A provider like `data` that makes no array of a tensor that is not sound.

    It returns an empty array of two dimensions in place of such a tensor: no profile, and no
    scalar. A provider that is none of TensorBoard's is returned as it is; the shapes of its arrays
    are then checked once it has made them.
    """
    wrappers = {MultiplexerDataProvider: _Multiplexer, GrpcDataProvider: _Stub}
    return _tensorboard.replace_source(data, wrappers)


class _Guarded:
    """Delegates to another object whatever a subclass does not define."""

    def __init__(self, inner: Any):
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Multiplexer(_Guarded):
    def Tensors(self, run: str, tag: str) -> list[Any]:
        """The events of a tag, evenly thinned out where they have too many elements at once."""
        events = [
            event
            if is_sound(event.tensor_proto)
            else dataclasses.replace(event, tensor_proto=_nothing())
            for event in self._inner.Tensors(run, tag)
        ]
        while len(events) > 1 and sum(map(_elements, events)) > MAX_ELEMENTS:
            events = events[::-2][::-1]  # the last one stays
        return events


class _Stub(_Guarded):
    def ReadTensors(self, request: Any) -> Any:
        reply = self._inner.ReadTensors(request)
        for run in reply.runs:
            for tag in run.tags:
                for tensor in tag.data.value:
                    if not is_sound(tensor):
                        tensor.CopyFrom(_nothing())
        return reply


def _elements(event: Any) -> int:
    return math.prod(dim.size for dim in event.tensor_proto.tensor_shape.dim)


def _nothing() -> tensor_pb2.TensorProto:
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT)
    for _ in range(2):
        tensor.tensor_shape.dim.add(size=0)
    return tensor
