"""Models whose recorded gradients are known, and what GradientFlow logs of them."""

import contextlib
import warnings

import keras
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

TIMESTEPS = 6


@keras.saving.register_keras_serializable("kbptt_tests")
class Recorded(keras.layers.SimpleRNN):
    """A layer whose norms are known: 0.5^(lag) times the number of times they were read."""

    timesteps = TIMESTEPS
    reads = 0

    @property
    def gradient_norms(self):
        self.reads += 1
        return (self.reads * 0.5 ** np.arange(self.timesteps)[::-1]).astype(np.float32)


def make_model(layer=None, run_eagerly=True, **compile_arguments):
    """Eager unless the test is about compiled steps: tracing would take most of the time."""
    layer = layer or Recorded(3, name="rnn")
    model = keras.Sequential([keras.Input((TIMESTEPS, 2)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=run_eagerly, **compile_arguments)
    return model


def data(samples=12):
    rng = np.random.default_rng(0)
    return rng.normal(size=(samples, TIMESTEPS, 2)).astype("float32"), np.ones((samples, 1))


def fit(model, callback, epochs=2, **arguments):
    x, y = data()
    model.fit(x, y, batch_size=2, epochs=epochs, verbose=0, callbacks=[callback], **arguments)


@contextlib.contextmanager
def one_warning(text):
    """Expects exactly one warning of kbptt, whatever TensorFlow warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    messages = [str(w.message) for w in caught]
    (message,) = [m for m in messages if m.startswith(("GradientFlow", "kbptt"))]
    assert text in message


def load(log_dir):
    """`({tag: [(step, value)]}, accumulator)`, keeping every record."""
    accumulator = EventAccumulator(
        str(log_dir), size_guidance={"tensors": 0}, purge_orphaned_data=False
    )
    accumulator.Reload()
    tags = accumulator.Tags()["tensors"]
    series = {
        tag: [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in accumulator.Tensors(tag)]
        for tag in tags
    }
    return series, accumulator


def steps(series, tag="gradient_flow/rnn/dL_dh"):
    return [step for step, _ in series[tag]]
