"""Consecutive windows of long sequences, for training with the state carried between them."""

import copy
import warnings
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import keras
import numpy as np

from kbptt import _checks, _keras
from kbptt.data import schedule as schedules
from kbptt.data.schedule import Schedule
from kbptt.data.sequences import Sequences, Target, gather
from kbptt.data.tensorflow import dataset
from kbptt.data.windows import Epoch, Run
from kbptt.layers import find

Offset: TypeAlias = Literal["random", 0]
Order: TypeAlias = Literal["given", "shuffled"]

# Type checkers that do not read Keras's sources know none of its classes, and would know nothing of
# what has such a base, nor of the functions that take it.
if TYPE_CHECKING:

    class _Data:
        """Data as Keras takes them."""
else:

    class _Data(_keras.DataAdapter, keras.utils.PyDataset):
        """Data as Keras takes them."""


class Streams(_Data):
    """Long sequences as batches of windows, in which each row continues where it stopped.

    Truncated BPTT with an update per window: `model.fit` reads a window and updates the weights,
    and `kbptt.callbacks.StreamState` carries the states of the recurrent layers to the next one.

    ```python
    data = kbptt.data.Streams(tokens, length=128, batch_size=16)
    model.fit(data, epochs=10, callbacks=[kbptt.callbacks.StreamState(data)])
    ```

    Each epoch reads every step of every sequence once, with its target. A single array is split
    into `batch_size` contiguous parts, one per row of the batch; sequences in a list queue up for
    the rows. Where a row has no steps, before or after those of its sequence, its sample weight is
    0 and `StreamState` holds the states. Batches are ``(x, y, sample weight)``, all with the same
    shape, and there are equally many in every epoch. `fit` never shuffles them. Arrays can be
    larger than memory (`np.memmap`), since only what a window needs is read.

    Args:
        x: Array ``(timesteps, …)`` of tokens or features, or a list of such arrays, of any lengths.
        y: Targets, aligned with `x`; see `target`. Defaults to `None`.
        length: Positive integer. Steps of a window. Defaults to `128`.
        batch_size: Positive integer. Number of rows. Defaults to `16`.
        target: `"next"`: the `x` of the next step, even across the ends of windows. `None`: `y` has
            one target per step. `"last"`: `y` has one per sequence, at its last step. Defaults to
            `"next"`.
        context: Integer of at least 0. Steps before each window that are read again, without a
            loss: TBPTT(k1 = `length`, k2 = `length + context`), guide 1.2. Defaults to `0`.
        context_gradient: Boolean. Whether the gradient flows back into the context. False only
            burns in the state (R2D2). Defaults to `True`.
        offset: `"random"`: the start of a sequence's windows is drawn in every epoch. `0`: the
            first window starts at its first step. Defaults to `"random"`.
        order: `"given"`, or `"shuffled"`: shuffle whole sequences in every epoch. Defaults to
            `"given"`.
        pack: Boolean. Whether a sequence may begin inside a window, right after the previous one.
            Inputs are then a pair ``(x, resets)``, where the boolean ``(batch, timesteps)`` is the
            `resets` of kbptt's layers. Defaults to `False`.
        seed: Non-negative integer, for offsets and order. Defaults to `0`.

    Attributes:
        one: Whether `x` is a single array and not a list.

    Raises:
        ValueError: If an argument is out of its range, or `x` and `y` do not fit together.

    Reference: [Williams & Peng, 1990](https://doi.org/10.1162/neco.1990.2.4.490);
    [Kapturowski et al., 2019](https://openreview.net/forum?id=r1lyTjAqYX) (burn-in).
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        length: int = 128,
        batch_size: int = 16,
        target: Target = "next",
        context: int = 0,
        context_gradient: bool = True,
        offset: Offset = "random",
        order: Order = "given",
        pack: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.length: int = _checks.positive_integer("length", length)
        self.rows: int = _checks.positive_integer("batch_size", batch_size)
        self.context: int = _checks.count("context", context)
        self.context_gradient: bool = _checks.flag("context_gradient", context_gradient)
        if offset != "random":
            _checks.count("offset", offset)  # False is none
        self.offset: Offset = _checks.one_of("offset", offset, ("random", 0))
        self.order: Order = _checks.one_of("order", order, ("given", "shuffled"))
        self.pack: bool = _checks.flag("pack", pack)
        self.seed: int = _checks.check_seed(seed)
        self.one: bool = not isinstance(x, list)
        self._whole: Sequences = gather(x, y, target)
        self.sequences: Sequences = self._whole.divided(self.rows) if self.one else self._whole
        if self.pack and target == "last":
            raise ValueError(
                "`pack=True` and `target='last'` exclude each other: several sequences may end in "
                "one window of a row. Pass a target for each step, with `target=None`."
            )
        self._reset: bool = False
        self._begin: int | None = None
        self._window: int = 0
        self._drawn: tuple[int, Epoch] = (0, self._draw(0))
        self._reading: tuple[int, Epoch] = (
            self._drawn
        )  # the same of the windows that are read ahead

    # Where it stands ---------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Windows read so far: `len` per finished epoch, plus those of the current one.

        `StreamState` counts the windows that the model was trained on. Without it, `fit` advances
        the position only by whole epochs.
        """
        return self._drawn[0] * len(self) + self._window

    def seek(self, step: int) -> None:
        """Moves to a position: the next epoch of `fit` begins there."""
        step = _checks.count("step", step)
        number, self._window = divmod(step, len(self))
        if number != self._drawn[0]:
            self._drawn = number, self._draw(number)

    @property
    def epoch(self) -> Epoch:
        """The windows of the epoch that `position` is in."""
        return self._drawn[1]

    def __len__(self) -> int:
        """Windows of an epoch, the same for all epochs."""
        return len(self.epoch)

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray, np.ndarray]:
        """A window of the present epoch: ``(x, y, sample weight)``."""
        if not 0 <= index < len(self):
            raise IndexError(f"Window {index} is out of range: there are {len(self)}.")
        return self.epoch.window(index)

    def in_order(
        self, batch_size: int | None = None, inputs_only: bool = False, multiple_of: int = 1
    ) -> "Streams":
        """The same sequences as inference reads them: whole, no context, no offset, not shuffled.

        Windows have as many timesteps, all of which are new.

        Args:
            batch_size: Rows. Defaults to those of this one, or fewer for fewer sequences.
            inputs_only: Whether steps without a target are read too, and no targets are.
            multiple_of: Of which the rows are a multiple.
        """
        other = copy.copy(self)
        other.sequences = self._whole.inputs() if inputs_only else self._whole
        if batch_size is None:
            rows = min(self.rows, len(other.sequences))
        else:
            rows = _checks.positive_integer("batch_size", batch_size)
        other.rows = -(-rows // multiple_of) * multiple_of
        other.length += other.context
        other.context, other.offset, other.order = 0, 0, "given"
        other._drawn, other._window = (0, other._draw(0)), 0
        other._reading = other._drawn
        return other

    def fingerprint(self) -> dict[str, Any]:
        """What determines the windows of all epochs, except the content of the arrays."""
        names = "length", "rows", "context", "context_gradient", "offset", "order", "pack", "seed"
        values = {name: getattr(self, name) for name in names}
        sizes = self.sequences.sizes.tolist()
        steps = zlib.crc32(repr(sizes).encode())
        return {**values, "target": self.sequences.target, "sequences": len(sizes), "sizes": steps}

    # An epoch ----------------------------------------------------------------------------------

    def _draw(self, number: int) -> Epoch:
        """The windows of an epoch, which depend only on its number and the seed."""
        generator = np.random.default_rng([self.seed, number])
        sizes = self.sequences.sizes
        runs = None
        if self.pack:
            queues = self._share_out(sizes, generator)
            runs = [Run(queue, np.cumsum(sizes[queue])) for queue in queues if len(queue)]
            sizes = np.array([run.ends[-1] for run in runs])
        leads = np.zeros(len(sizes), np.int64)
        if self.offset == "random":
            leads = schedules.draw_leads(sizes, self.length, generator)
        if runs is None:
            queues = self._share_out(schedules.windows(sizes, leads, self.length), generator)
        else:
            queues = [np.arange(row, min(row + 1, len(runs))) for row in range(self.rows)]
        schedule = Schedule(sizes, leads, queues, self.length)
        return Epoch(self.sequences, schedule, runs, self.context)

    def _share_out(self, costs: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        if self.order == "shuffled":
            return schedules.deal(costs, self.rows, generator)
        return schedules.queue_up(costs, self.rows)

    def _rest(self) -> tuple[int, int]:
        """The positions of the rest of the epoch, from the present one on."""
        self._reading = self._drawn
        return self.position, (self._drawn[0] + 1) * len(self)

    def _read(self, position: int) -> tuple[Any, np.ndarray, np.ndarray]:
        """The window at a position. By the time it is read ahead, `position` may have moved on."""
        number, window = divmod(position, len(self))
        if number != self._reading[0]:
            self._reading = number, self._draw(number)
        # A subclass may change what it yields.
        return self[window] if number == self._drawn[0] else self._reading[1].window(window)

    def _check_carried(self) -> None:
        """Warns where Keras takes windows and nothing carries the states on."""
        for method in ("evaluate", "predict", "fit"):
            arguments = _keras.running(method)
            if arguments is not None and arguments.get("x") is self:
                given = arguments.get("callbacks")
                given = getattr(given, "callbacks", given) or []
                given = given if isinstance(given, (list, tuple)) else [given]
                carried = any(hasattr(callback, "carries_streams") for callback in given)
                recurrent = find.recurrent_layers(arguments["self"])
                by_hand = any(layer.stateful for layer in recurrent)
                if (carried and method != "predict") or by_hand or not recurrent:
                    return
                mend = "add kbptt.callbacks.StreamState to `callbacks` to carry the states"
                warnings.warn(
                    f"`{method}` reads windows of Streams, each starting from initial states: "
                    f"{mend if method == 'fit' else f'use kbptt.{method}_stream'}.",
                    stacklevel=2,
                )
                return

    # What Keras asks for -----------------------------------------------------------------------

    # Windows are read ahead and for other purposes too. That an epoch is over Keras tells as below;
    # `StreamState` has moved the position by then.

    def on_epoch_begin(self) -> None:
        self._begin = self.position

    def on_epoch_end(self) -> None:
        # The first time it is called before training, to undo what looking at a batch has done.
        if self._reset and self.position == self._begin:
            self.seek((self._drawn[0] + 1) * len(self))
        self._reset, self._begin = True, None

    def get_numpy_iterator(self) -> Iterator[Any]:
        return map(self._read, range(*self._rest()))

    def get_tf_dataset(self) -> Any:
        self._reset = False
        self._check_carried()
        return dataset(self._rest, self._read, self.epoch.window(0))

    @property
    def num_batches(self) -> int:
        return len(self)

    @property
    def batch_size(self) -> int:
        return self.rows

    @property
    def has_partial_batch(self) -> bool:
        return False

    @property
    def partial_batch_size(self) -> None:
        return None
