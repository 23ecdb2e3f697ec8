"""TensorBoard's data providers, kept from making arrays of tensors that declare too much."""

import numpy as np
import pytest
from tensorboard import context
from tensorboard.compat.proto import tensor_pb2
from tensorboard.data import grpc_provider, provider
from tensorboard.data.proto import data_provider_pb2
from tensorboard.util import tensor_util

from kbptt.tensorboard import guard


def tensor(sizes, **fields):
    made = tensor_pb2.TensorProto(dtype=1, **fields)
    for size in sizes:
        made.tensor_shape.dim.add(size=size)
    return made


class Stub:
    """A data server that has one profile, and one number for half a billion of them."""

    def ReadTensors(self, request):
        assert request.plugin_filter.plugin_name == "p" and request.downsample.num_points == 9
        reply = data_provider_pb2.ReadTensorsResponse()
        data = reply.runs.add(run_name="r").tags.add(tag_name="t").data
        data.step.extend([1, 2])
        data.wall_time.extend([0.0, 0.0])
        data.value.add().CopyFrom(tensor_util.make_tensor_proto(np.float32([1, 2, 3])))
        data.value.add().CopyFrom(tensor([2**29], float_val=[0.5]))
        return reply

    def ListRuns(self, request):
        reply = data_provider_pb2.ListRunsResponse()
        reply.runs.add(name="r")
        return reply


def test_the_provider_that_asks_the_data_server():
    original = grpc_provider.GrpcDataProvider("nowhere", Stub())
    guarded = guard.guard(original)
    found = guarded.read_tensors(
        context.RequestContext(), experiment_id="", plugin_name="p", downsample=9
    )
    first, second = found["r"]["t"]
    assert (first.step, second.step) == (1, 2)
    assert first.numpy.tolist() == [1, 2, 3] and second.numpy.shape == (0, 0)
    # All else is the provider's own, and other plugins go on using that one.
    (run,) = guarded.list_runs(context.RequestContext(), experiment_id="")
    assert run.run_name == "r" and type(original._stub) is Stub


def test_a_provider_of_another_make_is_used_as_it_is():
    class Other(provider.DataProvider):
        list_plugins = list_runs = list_scalars = read_scalars = read_last_scalars = None
        list_tensors = read_tensors = None
        list_blob_sequences = read_blob_sequences = read_blob = None

    other = Other()
    assert guard.guard(other) is other


@pytest.mark.parametrize(
    ("made", "sound"),
    [
        (tensor_util.make_tensor_proto(np.ones(1000, np.float32)), True),
        (tensor_util.make_tensor_proto(np.ones((10, 3), np.int8)), True),
        (tensor_util.make_tensor_proto(np.zeros((0, 2**20))), True),
        (tensor_util.make_tensor_proto(7.0), True),
        (tensor_util.make_tensor_proto(["a"] * 50), True),
        (tensor([300], float_val=[1.0] * 300), True),
        (tensor([300], float_val=[1.0]), False),
        (tensor([300], tensor_content=b"abcd"), False),
        (tensor([-4], float_val=[1.0]), False),
        (tensor([-(2**30), 2**34 - 1], float_val=[1.0]), False),
        (tensor([2**32, 2**32], float_val=[1.0]), False),  # 2^64, which is 0 to NumPy
    ],
)
def test_no_more_elements_than_bytes(made, sound):
    assert guard.is_sound(made) is sound
