"""The callback that carries states from window to window of a stream."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kbptt import _keras
from kbptt.callbacks import _step, _stream_checkpoint as checkpoints, _substitution
from kbptt.callbacks._options import Frequency, epoch_or_steps
from kbptt.data import Streams
from kbptt.layers import find
from kbptt.streams.layers import carrying_layers
from kbptt.streams.mean import RealSteps
from kbptt.streams.rows import Rows


class StreamState(keras.callbacks.Callback):
    """Carries the states of a model's recurrent layers from window to window of `Streams`.

    ```python
    data = kbptt.data.Streams(tokens, length=128, batch_size=16)
    model.fit(data, epochs=10, callbacks=[kbptt.callbacks.StreamState(data)])
    ```

    Each row of the batch continues from the states it had at the end of the previous window; where
    a sequence begins, it starts from the initial states of the layers. No gradient flows from a
    window into the previous one. Layers need no ``stateful=True``; the model has no state between
    steps, so `predict`, `evaluate` and saved files are those of a model trained on whole sequences.
    The loss and the metrics are means over the timesteps that belong to a sequence, both within a
    window and over an epoch.

    `data` counts the windows trained on, so a second `fit` continues where the first one stopped,
    even in the middle of an epoch. Validation data that are `Streams` are read with separate
    states. `kbptt.evaluate_stream` does the same outside `fit`.

    With `path`, rerunning the same script resumes a training run that was killed: weights,
    optimizer, states, random seeds, metrics and position are as in an uninterrupted run. The file
    is removed when `fit` ends.

    Args:
        data: The `kbptt.data.Streams` passed to `fit`.
        path: String, path-like or None: the file that stores what is needed to resume. Defaults to
            `None`.
        save_freq: `"epoch"` or a positive integer, the number of windows between saves. Defaults to
            `"epoch"`.

    Raises:
        ValueError: from `fit`, before training, if a layer cannot carry its state (`Bidirectional`,
            ``go_backwards``, Keras layers that are not kbptt's), if `fit` receives different data
            or part of an epoch, or if the file belongs to a different model or stream.
    """

    # By which the data know that they are not read as windows alone.
    carries_streams = True

    def __init__(
        self,
        data: Streams,
        path: str | os.PathLike[str] | None = None,
        save_freq: Frequency = "epoch",
    ) -> None:
        super().__init__()
        if not isinstance(data, Streams):
            raise ValueError(
                "`data` expected the kbptt.data.Streams that is passed to `fit`. Received: "
                f"{type(data).__name__}."
            )
        self.data: Streams = data
        self.path: str | None = None if path is None else os.fspath(path)
        self.save_freq: Frequency = epoch_or_steps("save_freq", save_freq)
        self._training: _OnStream | None = None
        self._testing: _OnStream | None = None
        self._found: checkpoints.Checkpoint | None = None
        self._trained: int = -1  # position after the last window that was trained on
        self._tested: int = 0  # position before validation
        self._first = True  # whether no epoch of this `fit` has begun
        self._begin = self._epoch = 0  # of the running epoch: its first position, Keras's number

    def states(self) -> list[np.ndarray]:
        """The states after the last window of training: each ``(rows, width)``, layer by layer."""
        if self._training is None:
            return []
        return [np.asarray(state) for state in self._training.rows.states()]

    # Training ---------------------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        data, self._found = self.data, None
        carrying_layers("StreamState", self.model)
        _check_replicas(self.model, data)
        kept = self._training
        if kept is None or kept.model is not self.model or not kept.rows.fits():
            self._training, self._trained = _OnStream(self.model, data, trained=True), -1
        _substitution.of(self.model).join(wrapper=self._training)
        _check_data(self.model, data, self.params)
        self._first = True
        if self.path is None:
            return
        checkpoints.check_writable(self.path)
        if os.path.exists(self.path):
            self._found = found = checkpoints.read(self.path)
            found.check_data(data)
            data.seek(found.position)
            _keras.begin_with_epoch(self.model, found.epoch)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        data, training = self.data, self._training
        if self._first and epoch and not data.position:
            data.seek(epoch * len(data))  # `initial_epoch`, or another callback's
        self._first = False
        window = data.position % len(data)
        self._begin, self._epoch = data.position - window, epoch
        if window:
            _keras.build_for(self.model, data[0])  # steps that are skipped report metrics
        if self._found is not None:
            # Here all callbacks have joined, and Keras has reset its metrics.
            self._restore()
        afresh = data.position != self._trained
        training.rows.start(data.epoch.places, window, afresh)
        training.skip = window

    def _restore(self) -> None:
        found, self._found = self._found, None
        _keras.build_for(self.model, self.data[0])
        clipped = _substitution.of(self.model).clipped
        if clipped is not None:
            clipped.remember(self.model.trainable_variables)
        found.restore(self.model, self._training.rows)
        if found.position % len(self.data) == 0:
            self.model.reset_metrics()  # those of the epoch before
        self._trained = found.position

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        _substitution.of(self.model).take_step()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        data, before = self.data, self.data.position
        # `batch` is the last of a call that may run several.
        window = min(batch + 1, len(data))
        if self._begin + window <= before:
            return  # trained on before
        self._trained = self._begin + window
        data.seek(self._trained)
        # At the end of an epoch after validation, which else would be missing.
        if self.save_freq != "epoch" and window < len(data):
            if self._trained // self.save_freq > before // self.save_freq:
                self._save(self._epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.data.position == self._begin + len(self.data):
            self._save(epoch + 1)

    def _save(self, epoch: int) -> None:
        if self.path is not None:
            checkpoints.write(self.path, self.model, self._training.rows, self.data, epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._found is not None:
            self._restore()  # no epoch was left
        _substitution.of(self.model).leave(wrapper=self._training)
        _keras.begin_with_epoch(self.model, None)
        if self.path is not None and os.path.exists(self.path):
            os.remove(self.path)

    # Validation -------------------------------------------------------------------------------

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        data = (_keras.running("evaluate") or {}).get("x", self.data)
        if not isinstance(data, Streams):
            self._testing = None
            return
        if self._testing is None or not self._testing.fits(self.model, data):
            carrying_layers("StreamState", self.model)
            self._testing = _OnStream(self.model, data)
        self._tested = data.position
        self._testing.rows.start(data.epoch.places, self._tested % len(data), afresh=True)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._testing is not None:
            # The next validation reads the same windows; training, where it is on them, goes on.
            self._testing.data.seek(self._tested)

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._testing is not None:
            self._testing.take_test_step()


class _OnStream(_step.StepWrapper):
    """The steps of a model on the windows of a stream.

    Args:
        model: The model, built.
        data: The `Streams`.
        trained: Whether the steps train.

    Attributes:
        rows: The `Rows` with its states.
        skip: Windows at the beginning of the epoch that were trained on before.
    """

    TWICE = "Two StreamState callbacks in one fit. One is enough for all layers of the model."

    def __init__(self, model: keras.Model, data: Streams, trained: bool = False) -> None:
        self.model = model
        self.data = data
        self.rows = Rows(find.truncated_layers(model), data, model.distribute_strategy, trained)
        self.skip = 0
        self._real = RealSteps(model, self.rows)
        self._own_function = self._function = None

    def wrap(self, step: _step.Step) -> _step.Step:
        counted = self._real.wrap(step)

        def on_window(batch: Any) -> Any:
            with self.rows.window():
                return counted(batch)

        return on_window

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        with self.rows.carrying(), self.rows.window(keep=False):
            yield

    def skips(self) -> bool:
        skip = self.skip > 0
        if skip:
            self.skip -= self.model.steps_per_execution
        return skip

    def run(self, function: Any, iterator: Any) -> Any:
        with self.rows.carrying(), self._real.counting():
            return function(iterator)

    # `evaluate` -------------------------------------------------------------------------------

    def fits(self, model: keras.Model, data: Streams) -> bool:
        """Whether it was made for these, and the model was not compiled again since."""
        own = self._own_function
        return self.model is model and self.data is data and own is model.test_function

    def take_test_step(self) -> None:
        """Has the step of `evaluate` that is about to begin run on a window."""
        model = self.model
        if self._function is None:
            self._own_function = model.test_function
            self._function = _step.make_test_function(model, [self])
        vars(model)["test_function"] = self._test

    def _test(self, iterator: Any) -> Any:
        vars(self.model)["test_function"] = self._own_function
        return self.run(self._function, iterator)


def _check_replicas(model: keras.Model, data: Streams) -> None:
    """Raises `ValueError` if the rows cannot be shared out."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    if data.rows % replicas:
        raise ValueError(
            f"Each of {replicas} replicas carries its own rows: `batch_size` of Streams expected a "
            f"multiple of {replicas}. Received: {data.rows}."
        )


def _check_data(model: keras.Model, data: Streams, params: Any) -> None:
    """Raises `ValueError` if `fit` cannot train on `data`, window after window."""
    fit = _keras.running("fit") or {"x": data}
    if fit["x"] is not data:
        raise ValueError(
            "`fit` expected the Streams passed to StreamState, and received different data: write "
            "`model.fit(data, callbacks=[StreamState(data)])`. Batches of arrays, which `fit` "
            "shuffles, are not consecutive in time."
        )
    for name in ("y", "sample_weight", "class_weight"):
        if fit.get(name) is not None:
            raise ValueError(
                f"`fit` expected only Streams, which have targets and weights, and also received "
                f"`{name}`. Remove it."
            )
    steps = (params or {}).get("steps")
    if steps != len(data):
        raise ValueError(
            f"An epoch of these Streams has {len(data)} windows, but `fit` received a number of "
            f"{steps} steps. Remove `steps_per_epoch`."
        )
    window = data.position % len(data)
    if window % model.steps_per_execution:
        raise ValueError(
            f"Training resumes at window {window} of an epoch, so `steps_per_execution` must "
            f"divide it. Received: {model.steps_per_execution}."
        )
