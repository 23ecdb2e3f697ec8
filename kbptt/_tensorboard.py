"""What kbptt uses of TensorBoard without a public name, each with its reason.

TensorBoard loads this module with its plugins, so it imports neither Keras nor TensorFlow.
"""

import copy
from collections.abc import Callable
from typing import Any

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.data.grpc_provider import GrpcDataProvider
from tensorboard.data.provider import DataProvider

from kbptt._fence import Fence

_fence = Fence("tensorboard", checked="2.21.0")

# Where TensorBoard's providers keep the source of the protos that they make arrays of: the provider
# that reads event files itself, and the one that asks the data server.
_SOURCES = {MultiplexerDataProvider: "_multiplexer", GrpcDataProvider: "_stub"}


def replace_source(data: DataProvider, wrappers: dict[type, Callable[[Any], Any]]) -> DataProvider:
    """A copy of a provider of TensorBoard's whose source of protos is wrapped.

    `read_tensors` and `read_scalars` return arrays, and no public method returns the protos.

    Args:
        data: The provider. One that is none of TensorBoard's is returned as it is.
        wrappers: By the provider's class, what makes the new source of the old one.
    """
    for kind, wrap in wrappers.items():
        if isinstance(data, kind):
            copied = copy.copy(data)
            setattr(copied, _SOURCES[kind], wrap(_fence.get(data, _SOURCES[kind])))
            return copied
    return data
