"""Any Keras cell with truncated backpropagation through time."""

from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import tree

from kbptt._typing import Cell, RNNOptions
from kbptt.gradient_clip import GradientClipLike
from kbptt.layers import keras_cells
from kbptt.layers.any_cell import CellLayer, Part, is_float
from kbptt.layers.identifiers import resolved
from kbptt.layers.truncated import Stacked
from kbptt.truncation.policies import TruncationLike


@keras.saving.register_keras_serializable(package="kbptt")
class RNN(CellLayer, keras.layers.RNN):
    """`keras.layers.RNN` with truncated backpropagation through time, for any cell.

    Built-in, stacked, nested-state and user-written cells work as in `keras.layers.RNN`. Keras's
    own cells, alone and in stacks, run as fast as `kbptt.LSTM`, `kbptt.GRU` and `kbptt.SimpleRNN`.
    Any other cell is called once more per timestep in the backward pass. A cell that changes
    variables while it runs (its own random numbers, moving averages) cannot be called again with
    the same result; it runs in an ordinary differentiable loop, which is slower and has the same
    truncation.

    Args:
        cell: A Keras RNN cell, or a list of cells to stack.
        return_sequences: Boolean. Return the outputs of all timesteps, not only the last. Defaults
            to `False`.
        return_state: Boolean. Return the last state in addition to the output. Defaults to `False`.
        go_backwards: Boolean. Process the sequence from its end and return it reversed. Defaults to
            `False`.
        stateful: Boolean. Start each batch from the last state of the previous one. Defaults to
            `False`.
        unroll: Boolean. Accepted for compatibility; the loop is never unrolled. Defaults to
            `False`.
        zero_output_for_mask: Boolean. Output zeros, not the previous output, at masked timesteps.
            Defaults to `False`.
        truncation: See `kbptt.LSTM`.
        gradient_clip: See `kbptt.LSTM`.
        trainable_initial_state: See `kbptt.LSTM`; they start at the cell's own initial states.
        **kwargs: `name`, `dtype`, `trainable` and `activity_regularizer`, as in Keras.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        cell: Cell | Sequence[Cell],
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        *,
        truncation: TruncationLike = None,
        gradient_clip: GradientClipLike = None,
        trainable_initial_state: bool = False,
        **kwargs: Unpack[RNNOptions],
    ) -> None:
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            **resolved(dict(kwargs)),
        )
        self._set_up(truncation, gradient_clip, trainable_initial_state)

    def inner_loop(self, sequences, initial_state, mask, training=False, resets=None):
        cells = self._cells() if len(sequences.shape) == 3 else None
        if cells is None:
            return super().inner_loop(sequences, initial_state, mask, training, resets)
        x, start, mask, resets = self._prepare(sequences, initial_state, mask, resets)
        final, last = [], None
        for number, (cell, known) in enumerate(cells, 1):
            stacked = None if len(cells) == 1 else Stacked(number, top=number == len(cells))
            # Cells get their states in a list, even if there is only one.
            sizes = cell.state_size
            sizes = sizes if tree.is_nested(sizes) else [sizes]
            own = slice(len(final), len(final) + len(tree.flatten(sizes)))
            restart = resets if resets is None else resets._replace(states=resets.states[own])
            problem = x, start[own], mask, restart
            if known is not None:
                recurrence, weights = known
                results = self._run_loop(
                    *self._projected(
                        cell, recurrence, weights, problem, training=training, stacked=stacked
                    )
                )
            else:
                dtypes = x.dtype, [s.dtype for s in start[own]]
                results = self._run_any(
                    cell, sizes, problem, dtypes, training=training, stacked=stacked
                )
            last, x, states = results
            final.extend(states)
        return last, x, self._pack(final)

    def _cells(self) -> list[tuple[Any, Any]] | None:
        """Cells to run one after the other over the whole sequence, or None for the cell as it is.

        With each what `keras_cells.recognize` knows of it.
        """
        cells = keras_cells.stack(self.cell)
        if cells is not None:
            options = self._options()
            # The windows of one cell after those of another would reach back twice as far, and
            # each would draw its own ξ.
            if options.stride != options.length or self.truncation.stochastic:
                return None
        dtype = self.compute_dtype
        if getattr(self.cell, "compute_dtype", None) != dtype:
            return None
        parts = [(c, keras_cells.recognize(c, dtype)) for c in cells or [self.cell]]
        # Without a fast cell among them nothing is gained.
        return parts if any(known is not None for _, known in parts) else None

    def parts(self, training: bool) -> list[Part]:
        why = (
            "not Keras's SimpleRNNCell, GRUCell (`reset_after`) or LSTMCell with activations that "
            "the engine implements, or a stack with overlapping or random windows"
        )
        cells = self._cells() or [(self.cell, None)]
        return [self._part(cell, None if known is None else known[0], why) for cell, known in cells]

    def _influential(self) -> tuple[list[Any], bool]:
        cells = self._cells()
        if cells is None:
            return [v for v in getattr(self.cell, "variables", ()) if is_float(v)], True
        if len(cells) > 1:
            raise ValueError(
                f"Layer '{self.name}': truncation=SnAp(1) carries the influence on the states of a "
                f"single cell, and the layer has {len(cells)}. Use one layer per cell: kbptt.LSTM, "
                "kbptt.GRU, kbptt.SimpleRNN or kbptt.RNN."
            )
        ((_, known),) = cells
        return [w for w in known[1] if w is not None], False
