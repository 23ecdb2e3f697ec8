"""Tensors of foreign event files, looked at before anyone makes arrays of them.

A tensor may give a single number for as many elements as its shape declares: an event file of some
hundred bytes for gigabytes of memory. kbptt writes 4 bytes for every norm. So a tensor that
declares more elements than it has bytes is damaged, and what all others take is bounded by the
size of their files.
"""

import copy
import dataclasses
import math
from typing import Any

from tensorboard.compat.proto import tensor_pb2, types_pb2
from tensorboard.data import provider

# The records of a tag that are made into arrays at once, in elements: as float32 the 256 MiB that
# TensorBoard's data server sends in one reply. TensorBoard without that server knows no bound.
MAX_ELEMENTS = 2**26


def is_sound(tensor: tensor_pb2.TensorProto) -> bool:
    """Whether a tensor's data can be as many as its shape declares."""
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    # Not by NumPy: its product of such numbers overflows, back to a plausible one.
    return min(sizes, default=0) >= 0 and math.prod(sizes) <= tensor.ByteSize()


def guard(data: provider.DataProvider) -> provider.DataProvider:
    """A provider like `data` that makes no array of a tensor that is not sound.

    What stands in for such a tensor is an empty array of two dimensions: no profile, and no scalar.

    `read_tensors` and `read_scalars` of TensorBoard's providers return arrays, and no public
    function of theirs returns what these are made from. So the copy's private source of protos is
    replaced: `_multiplexer` of the provider that reads event files itself, `_stub` of the one that
    asks the data server. A provider with neither is returned as it is; the shapes of its arrays are
    then looked at when it has made them.
    """
    for name, guarded in (("_multiplexer", _Multiplexer), ("_stub", _Stub)):
        if hasattr(data, name):
            data = copy.copy(data)
            setattr(data, name, guarded(getattr(data, name)))
    return data


class _Guarded:
    """Everything of another object but what a subclass has itself."""

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
