"""GRU with truncated backpropagation through time."""

from typing import Any, Literal, Unpack

import keras
from keras import ops

from kbptt._typing import Activation, Constraint, GatedOptions, Initializer, Regularizer, Seed
from kbptt.gradient_clip import GradientClipLike
from kbptt.layers.projected import ProjectedLayer
from kbptt.layers.zoneout import ZoneoutLike
from kbptt.normalization import NormalizationLike
from kbptt.parametrizations import ParametrizationLike
from kbptt.regularizers.vanishing_gradient import GradientRegularizerLike
from kbptt.truncation.policies import TruncationLike


@keras.saving.register_keras_serializable(package="kbptt")
class GRU(ProjectedLayer, keras.layers.GRU):
    """`keras.layers.GRU` with truncated backpropagation through time.

    Arguments, weights (names, shapes and order), outputs, masks and states are those of
    `keras.layers.GRU`; ``use_cudnn`` is ignored. With ``reset_after=False`` the reset gate is
    inside the recurrent product, and the layer uses the engine's slower path for arbitrary cells.

    Args:
        units: Positive integer. Width of the state.
        activation: Activation of the candidate; None is linear. Defaults to `"tanh"`.
        recurrent_activation: Activation of the gates; None is linear. Defaults to `"sigmoid"`.
        use_bias: Boolean. Whether the layer has a bias. Defaults to `True`.
        kernel_initializer: Initializer of the input kernel. Defaults to `"glorot_uniform"`.
        recurrent_initializer: Initializer of the recurrent kernel, such as those of
            `kbptt.initializers`. Defaults to `"orthogonal"`.
        bias_initializer: Initializer of the bias. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the input kernel. Defaults to `None`.
        recurrent_regularizer: Regularizer of the recurrent kernel. Defaults to `None`.
        bias_regularizer: Regularizer of the bias. Defaults to `None`.
        activity_regularizer: Regularizer of the layer's output. Defaults to `None`.
        kernel_constraint: Constraint on the input kernel. Defaults to `None`.
        recurrent_constraint: Constraint on the recurrent kernel, such as `"orthogonal"` of
            `kbptt.constraints`. Defaults to `None`.
        bias_constraint: Constraint on the bias. Defaults to `None`.
        dropout: Float in [0, 1]. Fraction of the inputs to drop. Defaults to `0.0`.
        recurrent_dropout: Float in [0, 1]. Fraction of the state to drop before the recurrent
            product, with the same mask at all timesteps. Defaults to `0.0`.
        seed: Integer, `keras.random.SeedGenerator` or None. Seed for all random draws. Defaults to
            `None`.
        return_sequences: Boolean. Return the outputs of all timesteps, not only the last. Defaults
            to `False`.
        return_state: Boolean. Return the last state in addition to the output. Defaults to `False`.
        go_backwards: Boolean. Process the sequence from its end and return it reversed. Defaults to
            `False`.
        stateful: Boolean. Start each batch from the last state of the previous one. Defaults to
            `False`.
        unroll: Boolean. Accepted for compatibility; the loop is never unrolled. Defaults to
            `False`.
        reset_after: Boolean. Apply the reset gate after the recurrent product. Defaults to `True`.
        use_cudnn: `"auto"`, True or False. Accepted for compatibility; cuDNN is not used. Defaults
            to `"auto"`.
        truncation: See `kbptt.LSTM`.
        normalization: See `kbptt.LSTM`.
        gradient_regularizer: See `kbptt.LSTM`.
        gradient_clip: See `kbptt.LSTM`.
        recurrent_parametrization: See `kbptt.LSTM`.
        trainable_initial_state: Boolean. Learn the initial states of a sequence, to which resets
            also return, as weights ``(units,)``, initialized to zeros. Defaults to `False`.
        zoneout: Float in [0, 1). Probability that a unit keeps its value for a timestep in
            training; at inference, old and new values are averaged with this weight. Defaults to
            `0.0`.
        h_detach: Float in [0, 1]. Probability, per timestep, that no gradient flows back through
            the recurrent kernel to the previous timestep; the path through z ⊙ h stays. Defaults to
            `0.0`.
        **kwargs: `name`, `dtype`, `trainable`, `zero_output_for_mask` and `implementation`, as in
            Keras.

    Raises:
        ValueError: If an argument is out of its range.
    """

    cell_name = "GRU"

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        activity_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: Seed = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: bool | Literal["auto"] = "auto",
        *,
        truncation: TruncationLike = None,
        normalization: NormalizationLike = None,
        gradient_regularizer: GradientRegularizerLike = None,
        gradient_clip: GradientClipLike = None,
        recurrent_parametrization: ParametrizationLike = None,
        trainable_initial_state: bool = False,
        zoneout: ZoneoutLike = 0.0,
        h_detach: float = 0.0,
        **kwargs: Unpack[GatedOptions],
    ) -> None:
        super().__init__(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            reset_after=reset_after,
            use_cudnn=use_cudnn,
            **kwargs,
        )
        self._set_up(
            truncation,
            gradient_clip,
            normalization=normalization,
            regularizer=gradient_regularizer,
            parametrization=recurrent_parametrization,
            trainable_initial_state=trainable_initial_state,
            zoneout=zoneout,
            h_detach=h_detach,
        )

    def _recurrence(self, training=False):
        # Without `reset_after` the reset gate stands inside the recurrent product.
        return super()._recurrence(training) if self.reset_after else None

    def _weights(self, centres=False):
        """Keras's two biases, of which the recurrent one of z and r can be added to the other."""
        weights = super()._weights(centres)
        return weights._replace(**split_bias(self.cell.bias))


def split_bias(bias: Any) -> dict[str, Any]:
    """The fields of `Weights` for the biases ``(2, 3 units)`` of a Keras cell, or for None."""
    if bias is None:
        return {}
    inputs, recurrent = ops.unstack(bias, 2)
    zr = inputs.shape[0] // 3 * 2
    bias = inputs + ops.concatenate([recurrent[:zr], ops.zeros_like(inputs[zr:])])
    return {"bias": bias, "recurrent_bias": recurrent[zr:]}
