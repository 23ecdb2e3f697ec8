"""Evaluation and prediction on streams, with separate states."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from kbptt import _keras
from kbptt.data import Streams
from kbptt.streams.layers import carrying_layers
from kbptt.streams.rows import Rows


def evaluate_stream(
    model: keras.Model, data: Streams, batch_size: int | None = None
) -> dict[str, float]:
    """Returns loss and metrics of a model on whole sequences, read window by window.

    Every sequence is read from its beginning to its end as if in one pass, in the given order: no
    offset, no context, and a single array is not split. The loss and the metrics are means over all
    timesteps, so the result depends neither on the length of the windows nor on the number of rows.
    (A loss with ``reduction="sum"``, or one that returns a scalar, is averaged over windows.) A
    running `fit` is not affected: neither its states nor its metrics change.

    Args:
        model: A compiled model.
        data: The `kbptt.data.Streams`; its position does not matter.
        batch_size: Positive integer: sequences that are read side by side. Defaults to the rows of
            `data`, or fewer if it has fewer sequences.

    Returns:
        Dict of `"loss"` and the metrics, as `model.evaluate(return_dict=True)`.

    Raises:
        ValueError: As `kbptt.callbacks.StreamState` in `fit`.
    """
    state = _evaluation(model, _streams(data), batch_size)
    with _metrics_kept(model):
        results = model.evaluate(state.data, callbacks=[state], verbose=0, return_dict=True)
    return {name: float(value) for name, value in results.items()}


_EVALUATIONS = "_kbptt_evaluations"  # of a model: the last ones, whose traces serve for the next
_KEPT = 4
_LOOKING = threading.RLock()


def _evaluation(model: keras.Model, data: Streams, batch_size: int | None) -> Any:
    """The `StreamState` that evaluates the model on these data."""
    from kbptt.callbacks import StreamState

    evaluations = model.__dict__.setdefault(_EVALUATIONS, [])
    found = (state for d, size, state in evaluations if d is data and size == batch_size)
    state = next(found, None)
    if state is None:
        replicas = model.distribute_strategy.num_replicas_in_sync
        state = StreamState(data.in_order(batch_size, multiple_of=replicas))
        evaluations.append((data, batch_size, state))
        del evaluations[:-_KEPT]
    state.data.seek(0)
    return state


@contextlib.contextmanager
def _metrics_kept(model: keras.Model) -> Iterator[None]:
    """A scope after which a `fit` that is running goes on with its metrics as they were."""
    if _keras.running("fit") is None:
        yield
        return
    kept = [(variable, variable.numpy()) for variable in model.metrics_variables]
    try:
        yield
    finally:
        model.reset_metrics()
        for variable, value in kept:
            variable.assign(value)


def predict_stream(model: keras.Model, data: Streams, batch_size: int | None = None) -> Any:
    """Returns outputs of a model for whole sequences, read window by window.

    Equal to one pass over each sequence, but apart from the outputs, memory does not grow with its
    length. See `evaluate_stream`.

    Args:
        model: A built model.
        data: The `kbptt.data.Streams`; its targets are ignored.
        batch_size: Positive integer: sequences that are read side by side. Defaults to the rows of
            `data`, or fewer if it has fewer sequences.

    Returns:
        For a single array the outputs ``(timesteps, …)``; for a list of sequences a list of outputs
        in the same order. For a model with one output per sequence, at its last timestep, an array
        ``(sequences, …)``. Nested like the outputs of the model.
    """
    ordered = _streams(data).in_order(batch_size, inputs_only=True)
    if not model.built:
        model.build(tree.map_structure(lambda v: v.shape, ordered[0][0]))
    layers = carrying_layers("predict_stream", model)
    rows = Rows(layers, ordered, tf.distribute.get_strategy())
    epoch = ordered.epoch
    rows.start(epoch.places, 0)

    def predict(inputs: Any) -> Any:
        with rows.window():
            return model(inputs, training=False)

    def traced(inputs: Any) -> Any:
        return tf.function(predict, jit_compile=model.jit_compile or None).get_concrete_function(
            inputs
        )

    by_step = data.sequences.target != "last"
    step, structure, collected = predict, None, []
    for index in range(len(epoch)):
        inputs = tree.map_structure(tf.convert_to_tensor, ordered[index][0])
        if step is predict:
            # Layers look at the rows only where a step is traced, or run eagerly; those of one
            # prediction at a time.
            with _LOOKING, rows.carrying():
                step = predict if model.run_eagerly else traced(inputs)
                structure = step(inputs)
        else:
            structure = step(inputs)
        outputs = [np.asarray(output) for output in tree.flatten(structure)]
        collected = collected or [_Collected(output, ordered, by_step) for output in outputs]
        for into, output in zip(collected, outputs, strict=True):
            into.add(index, output)
    return tree.pack_sequence_as(structure, [into.result(data.one) for into in collected])


def _streams(data: Any) -> Streams:
    if not isinstance(data, Streams):
        raise ValueError(
            f"`data` expected kbptt.data.Streams. Received: {type(data).__name__}. Use "
            "kbptt.data.Streams(x, …) for arrays."
        )
    return data


class _Collected:
    """Predictions of all sequences, filled window by window.

    Args:
        example: The output for a window.
        data: The `Streams`.
        by_step: Whether outputs with a timestep axis have one for each step.
    """

    def __init__(self, example: np.ndarray, data: Streams, by_step: bool) -> None:
        self.epoch = data.epoch
        self.sizes = data.sequences.sizes
        timesteps = example.shape[1:2]  # of a model that answers once, there is none
        self.by_step: bool = by_step and timesteps == (self.epoch.timesteps,)
        shape = example.shape[2:] if self.by_step else example.shape[1:]
        sizes = self.sizes if self.by_step else np.ones_like(self.sizes)
        self.values = [np.empty((size, *shape), example.dtype) for size in sizes]

    def add(self, window: int, outputs: np.ndarray) -> None:
        for row in range(self.epoch.rows):
            for sequence, first, stop, at in self.epoch.parts(window, row):
                if self.by_step:
                    self.values[sequence][first:stop] = outputs[row, at : at + stop - first]
                elif stop == self.sizes[sequence]:
                    self.values[sequence][0] = outputs[row]

    def result(self, one: bool) -> Any:
        if not self.by_step:
            return np.concatenate(self.values)
        return self.values[0] if one else self.values
