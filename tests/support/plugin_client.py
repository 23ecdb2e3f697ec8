"""The tab's server side, through TensorBoard's own WSGI application."""

import argparse
import contextlib
import json
import struct

import numpy as np
from tensorboard.backend import application
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from kbptt.tensorboard import plugin

BASE = "/data/plugin/gradient_flow"


def make_client(root):
    flags = argparse.Namespace(samples_per_plugin={}, path_prefix="")
    plugin.GradientFlowLoader().fix_flags(flags)
    multiplexer = plugin_event_multiplexer.EventMultiplexer(
        tensor_size_guidance=flags.samples_per_plugin
    )
    multiplexer.AddRunsFromDirectory(str(root))
    for run in multiplexer.Runs():
        # Like TensorBoard's data server, which an unreadable file does not keep from other runs.
        with contextlib.suppress(Exception):
            multiplexer.GetAccumulator(run).Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(root))
    context = base_plugin.TBContext(data_provider=provider, flags=flags)
    loaded = plugin.GradientFlowLoader().load(context)
    return Client(application.TensorBoardWSGI([loaded], data_provider=provider))


def get(client, route, status=200, **arguments):
    response = client.get(f"{BASE}/{route}", query_string=arguments)
    assert response.status_code == status, response.get_data(as_text=True)
    return response


def read_grids(response):
    """`[(header, values)]` of the frames of `/grid`."""
    data, found = response.get_data(), []
    while data:
        (length,) = struct.unpack("<I", data[:4])
        header = json.loads(data[4 : 4 + length])
        end = 4 + length + 4 * header["rows"] * header["cols"]
        values = np.frombuffer(data[4 + length : end], "<f4")
        found.append((header, values.reshape(header["rows"], header["cols"])))
        data = data[end:]
    return found


def read_grid(response):
    """Header and values of the only frame."""
    ((header, values),) = read_grids(response)
    return header, values


def summary(client, run, tag):
    (found,) = get(client, "summary", run=run, tag=tag).json
    return found
