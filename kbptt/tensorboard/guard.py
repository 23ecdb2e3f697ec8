"""Checks tensors of foreign event files before anything makes arrays of them.

A tensor may give one number for all the elements that its shape declares: a few hundred bytes of an
event file become gigabytes of memory. kbptt writes 4 bytes per norm. So a tensor that declares more
elements than it has bytes is damaged, and the memory of all others is bounded by their files' size.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.compat.proto import tensor_pb2, types_pb2
from tensorboard.data.grpc_provider import GrpcDataProvider
from tensorboard.data.provider import DataProvider
from tensorboard.util import tensor_util

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


def tensors(
    data: DataProvider, arguments: dict[str, Any]
) -> Iterator[tuple[str, str, Sequence[int], Sequence[tensor_pb2.TensorProto]]]:
    """`(run, tag, steps, tensors)` of what `data.read_tensors(**arguments)` would return as arrays.

    Making an array of each of 10,000 small tensors takes longer than all the rest. A provider that
    is none of TensorBoard's has arrays only; they are returned as tensors.
    """
    captured: list[Any] = []
    wrappers = {
        MultiplexerDataProvider: lambda source: _CapturedEvents(source, captured),
        GrpcDataProvider: lambda source: _CapturedReply(source, captured),
    }
    replaced: Any = _tensorboard.replace_source(data, wrappers)
    found = replaced.read_tensors(**arguments)
    if replaced is data:
        for run, tags in found.items():
            for tag, series in tags.items():
                protos = [tensor_util.make_tensor_proto(datum.numpy) for datum in series]
                captured.append((run, tag, [datum.step for datum in series], protos))
    yield from captured


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


class _CapturedEvents(_Multiplexer):
    """Keeps what is read, and gives the provider nothing to make arrays of."""

    def __init__(self, inner: Any, captured: list[Any]):
        super().__init__(inner)
        self._captured = captured

    def Tensors(self, run: str, tag: str) -> list[Any]:
        events = super().Tensors(run, tag)
        steps = [event.step for event in events]
        self._captured.append((run, tag, steps, [event.tensor_proto for event in events]))
        return []


class _CapturedReply(_Guarded):
    def __init__(self, inner: Any, captured: list[Any]):
        super().__init__(inner)
        self._captured = captured

    def ReadTensors(self, request: Any) -> Any:
        reply = self._inner.ReadTensors(request)
        for run in reply.runs:
            for tag in run.tags:
                self._captured.append((run.run_name, tag.tag_name, tag.data.step, tag.data.value))
        return type(reply)()


def _elements(event: Any) -> int:
    return math.prod(dim.size for dim in event.tensor_proto.tensor_shape.dim)


def _nothing() -> tensor_pb2.TensorProto:
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT)
    for _ in range(2):
        tensor.tensor_shape.dim.add(size=0)
    return tensor
