"""What a recurrent cell is to the loops: one timestep and its vector-Jacobian product.

All states and gradients are tuples of tensors ``(rows, width)``; a row is one sample, or one sample
of one window in the backward pass.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import tensorflow as tf

from kbptt.cells.activations import ACTIVATION, Activation
from kbptt.cells.layer_norm import center, scale

Tensors: TypeAlias = tuple[tf.Tensor, ...]


class Step(Protocol):
    """One timestep of any cell, as the loops in TensorFlow see it.

    Attributes:
        output: Index of the state that is the step's output.
        hidden: Index of the state whose gradient norm is recorded.
        written: Indices of the states that the loop stores; `recover` computes the others.
        called_again: Whether `vjp` and `weight_gradients` each call the step again. Then
            `vjp_of_all`, which calls it once, takes their place.
    """

    output: int
    hidden: int
    written: tuple[int, ...]
    called_again: bool

    def forward(self, x: tf.Tensor, state: Tensors, weights: Any) -> tuple[Tensors, Tensors]:
        """Returns the next state and the residuals: what the backward pass needs of this step."""
        ...

    def recover(self, start: Tensors, residuals: Tensors, written: Tensors) -> Tensors:
        """All states over time, start included, from the stored ones and the residuals."""
        ...

    def named_gates(self, residuals: Tensors) -> dict[str, tf.Tensor]:
        """The gates by their names in the cell's equations, from the residuals; none by default."""
        ...

    def vjp(
        self,
        x: tf.Tensor,
        previous: Tensors,
        state: Tensors,
        residuals: Tensors,
        gradient: Tensors,
        weights: Any,
        back: Callable[[tf.Tensor], tf.Tensor],
    ) -> tuple[Tensors, Tensors]:
        """J_tᵀ ∂L/∂h_t (guide 2.4), and the local gradients that `weight_gradients` sums.

        `back` takes ∂L/∂(h_{t−1}·U) to what reaches h_{t−1} through U. A step of which nothing is
        known but its call does without.
        """
        ...

    def weight_gradients(
        self, x: tf.Tensor, previous: Tensors, residuals: Tensors, local: Tensors, weights: Any
    ) -> tuple[tf.Tensor, Any]:
        """Gradients of the inputs and of the weights (guide 2.5), from all timesteps at once."""
        ...

    def vjp_of_all(
        self, x: tf.Tensor, previous: Tensors, gradient: Tensors, weights: Any
    ) -> tuple[Tensors, tf.Tensor, Tensors]:
        """The vector-Jacobian products with respect to states, inputs and weights."""
        ...


class Weights(NamedTuple):
    """What a cell reads; N is units times the number of gates. None where there is no such weight.

    The TensorFlow loops get inputs that are projected already: there `kernel`, `bias` and
    `input_gain` are None.

    Attributes:
        kernel: W, ``(features, N)``.
        recurrent_kernel: U, ``(units, N)``.
        bias: ``(N,)``. Added to x·W.
        recurrent_bias: ``(units,)``. GRU: added to h·U of the candidate.
        input_gain: ``(N,)``. Of layer-normalised x·W. With layer normalization (not RMS)
            the columns of both kernels are centred, unless the cell has `centres`.
        recurrent_gain: ``(N,)``. Of layer-normalised h·U; SimpleRNN: of the sum.
        state_gain: ``(units,)``. Of the layer-normalised cell state of an LSTM.
        state_bias: ``(units,)``. Likewise.
        h_masks: ``(gates, rows, units)``. No weight: recurrent dropout, the factors on what each
            gate reads of h.
    """

    kernel: Any = None
    recurrent_kernel: Any = None
    bias: Any = None
    recurrent_bias: Any = None
    input_gain: Any = None
    recurrent_gain: Any = None
    state_gain: Any = None
    state_bias: Any = None
    h_masks: Any = None


class Cell(Step):
    """A cell whose only recurrent matrix product is h·U, the rest being elementwise.

    Its inputs are projected by one product before the loop, and its gradient is written by hand,
    from residuals of the forward pass: that is what makes it fast.

    Args:
        activations: Names among `ACTIVATION`: of the candidate, and of the gates if any.
        normalization: None, or the `kbptt.normalization.LayerNormalization` of the layer.
        centres: Whether the cell centres h·U and x·W. Otherwise the caller centres the kernels,
            which is not the same where gates read inputs of their own. False for RMS normalization,
            which subtracts no mean.

    Attributes:
        name: Name of the cell, in Keras, in `kbptt.cells.CELLS` and among the C++ loops.
        gates: Column blocks of the kernels.
        states: Names of the states; the first is the output.
        gains: Further weights with layer normalization, by name: their width in units.
        activation: φ, of the candidate.
        recurrent_activation: σ, of the gates; φ if there are none.
    """

    name: ClassVar[str]
    gates: ClassVar[int] = 1
    states: ClassVar[tuple[str, ...]] = ("h",)
    gains: ClassVar[dict[str, int]] = {}
    normalized: ClassVar[type["Cell"]]

    output = 0
    hidden = 0
    written: tuple[int, ...] = (0,)
    called_again = False

    def __init__(
        self, activations: tuple[str, ...], normalization: Any = None, centres: bool = False
    ) -> None:
        self.activations = activations
        self.normalization = normalization
        self.centres = centres
        self.activation: Activation = ACTIVATION[activations[0]]
        self.recurrent_activation: Activation = ACTIVATION[activations[-1]]

    @classmethod
    def groups(cls, units: int) -> tuple[int, ...]:
        """Widths of the column groups of a kernel that layer normalization takes together."""
        return (cls.gates * units,)

    def project(
        self, x: tf.Tensor, weights: Weights, masks: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, Weights]:
        """The inputs of all timesteps as the step reads them, and the weights left to the step.

        ``x·W + b``, or with layer normalization ``gain ⊙ LN(x·W) + b``; by differentiable
        operations, in the dtype of the kernel.

        Args:
            x: ``(batch, timesteps, features)``.
            weights: All weights.
            masks: ``(gates, batch, features)``. Dropout, the factors on what each gate reads of x;
                or None.
        """
        left = weights._replace(kernel=None, bias=None, input_gain=None)
        if self.normalization is None:
            return project(x, weights.kernel, weights.bias, masks), left
        projected = self._centred(project(x, weights.kernel, masks=masks))
        groups = self.groups(weights.recurrent_kernel.shape[0])
        projected = scale(projected, groups, self.normalization.epsilon)
        projected *= tf.cast(weights.input_gain, projected.dtype)
        if weights.bias is not None:
            projected += tf.cast(weights.bias, projected.dtype)
        return projected, left

    def recover(self, start: Tensors, residuals: Tensors, written: Tensors) -> Tensors:
        return written

    def named_gates(self, residuals: Tensors) -> dict[str, tf.Tensor]:
        return {}

    def _centred(self, sums: tf.Tensor) -> tf.Tensor:
        width: Any = sums.shape[-1]
        return center(sums, self.groups(width // self.gates)) if self.centres else sums

    def product(self, h: tf.Tensor, weights: Weights) -> tf.Tensor:
        """h·U; with dropout each gate reads an h of its own."""
        if weights.h_masks is None:
            return self._centred(tf.matmul(h, weights.recurrent_kernel))
        blocks = tf.split(weights.recurrent_kernel, self.gates, axis=-1)
        masks = tf.unstack(weights.h_masks, self.gates)
        parts = [tf.matmul(h * m, block) for m, block in zip(masks, blocks, strict=True)]
        return self._centred(tf.concat(parts, axis=-1))

    def product_vjp(self, d: tf.Tensor, weights: Weights) -> tf.Tensor:
        """The gradient of h_{t-1} from that of h_{t-1}·U, for as many rows as `h_masks` has."""
        d = self._centred(d)
        if weights.h_masks is None:
            return tf.matmul(d, weights.recurrent_kernel, transpose_b=True)
        blocks = tf.split(weights.recurrent_kernel, self.gates, axis=-1)
        parts = zip(tf.split(d, self.gates, axis=-1), blocks, strict=True)
        backs = [tf.matmul(part, block, transpose_b=True) for part, block in parts]
        masks = tf.unstack(weights.h_masks, self.gates)
        return tf.add_n([m * back for m, back in zip(masks, backs, strict=True)])

    def kernel_gradient(self, h: tf.Tensor, dz: tf.Tensor, weights: Weights) -> tf.Tensor:
        """∂L/∂U = Σ_t h_{t-1}ᵀ dz_t (guide 2.5), as one product over all timesteps."""
        dz = self._centred(dz)
        if weights.h_masks is None:
            return tf.matmul(flatten_time(h), flatten_time(dz), transpose_a=True)
        masks = tf.unstack(weights.h_masks, self.gates)
        parts = zip(masks, tf.split(dz, self.gates, axis=-1), strict=True)
        sums = [
            tf.matmul(flatten_time(h * m), flatten_time(part), transpose_a=True)
            for m, part in parts
        ]
        return tf.concat(sums, axis=-1)


def project(
    x: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor | None = None,
    masks: tf.Tensor | None = None,
) -> tf.Tensor:
    """``x·W + b`` of ``(batch, timesteps, features)`` in one product, in the dtype of W.

    With `masks`, ``(gates, batch, features)``, in one for each gate.
    """
    if masks is not None:
        gates: Any = masks.shape[0]
        kernels = tf.split(kernel, gates, axis=-1)
        biases = [None] * gates if bias is None else tf.split(bias, gates)
        seen = [
            tf.cast(x, kernel.dtype) * tf.cast(m, kernel.dtype)[:, None] for m in tf.unstack(masks)
        ]
        parts = [project(*part) for part in zip(seen, kernels, biases, strict=True)]
        return tf.concat(parts, axis=-1)
    shape = tf.shape(x)
    flat = tf.reshape(tf.cast(x, kernel.dtype), [-1, x.shape[-1]])
    if bias is not None:
        # The bias as one more row of the kernel: adding it, and above all summing its gradient
        # over all timesteps, would each be one more pass over the largest tensor there is.
        flat = tf.concat([flat, tf.ones([tf.shape(flat)[0], 1], flat.dtype)], axis=-1)
        kernel = tf.concat([kernel, tf.cast(bias, kernel.dtype)[None]], axis=0)
    projected = tf.reshape(tf.matmul(flat, kernel), [shape[0], shape[1], kernel.shape[-1]])
    projected.set_shape([*x.shape[:2], kernel.shape[-1]])
    return projected


def flatten_time(x: tf.Tensor) -> tf.Tensor:
    """``(T, batch, width)`` as ``(T·batch, width)``."""
    return tf.reshape(x, [-1, tf.shape(x)[-1]])


def sum_over_time(x: tf.Tensor) -> tf.Tensor:
    """``(T, batch, width)`` as ``(width,)``."""
    return tf.reduce_sum(x, axis=[0, 1])
