"""LSTM with truncated backpropagation through time."""

from typing import Literal, Unpack

import keras

from kbptt._typing import Activation, Constraint, GatedOptions, Initializer, Regularizer, Seed
from kbptt.gradient_clip import GradientClipLike
from kbptt.layers.projected import ProjectedLayer
from kbptt.layers.zoneout import ZoneoutLike
from kbptt.normalization import NormalizationLike
from kbptt.parametrizations import ParametrizationLike
from kbptt.regularizers.vanishing_gradient import GradientRegularizerLike
from kbptt.truncation.policies import TruncationLike


@keras.saving.register_keras_serializable(package="kbptt")
class LSTM(ProjectedLayer, keras.layers.LSTM):
    """`keras.layers.LSTM` with truncated backpropagation through time.

    Arguments, weights (names, shapes and order), outputs, masks and states are those of
    `keras.layers.LSTM`; ``use_cudnn`` is ignored. Only how the gradient is computed, and how
    far back it flows, differs.

    Example:

    >>> layer = kbptt.LSTM(64, truncation=32, return_sequences=True)
    >>> layer(np.zeros((8, 256, 16), "float32")).shape
    TensorShape([8, 256, 64])

    Args:
        units: Positive integer. Width of the state.
        activation: Activation of the candidate and of the cell state in the output; None is linear.
            Defaults to `"tanh"`.
        recurrent_activation: Activation of the gates; None is linear. Defaults to `"sigmoid"`.
        use_bias: Boolean. Whether the layer has a bias. Defaults to `True`.
        kernel_initializer: Initializer of the input kernel. Defaults to `"glorot_uniform"`.
        recurrent_initializer: Initializer of the recurrent kernel, such as those of
            `kbptt.initializers`. Defaults to `"orthogonal"`.
        bias_initializer: Initializer of the bias. Defaults to `"zeros"`.
        unit_forget_bias: Boolean. Initialize the bias of the forget gate to ones, whatever
            `bias_initializer` is. Defaults to `True`.
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
        use_cudnn: `"auto"`, True or False. Accepted for compatibility; cuDNN is not used. Defaults
            to `"auto"`.
        truncation: None for full BPTT, an integer for chunks of that many timesteps, or a
            `kbptt.truncation.Truncation`. Defaults to `None`.
        normalization: None, or a `kbptt.normalization` identifier such as `"layer"`. Defaults to
            `None`.
        gradient_regularizer: None, or a `kbptt.regularizers` identifier such as
            `"vanishing_gradient"` (Pascanu's Ω). Defaults to `None`.
        gradient_clip: None, a positive float that bounds every element of the gradient carried to
            the previous timestep (Graves, 2013), or `kbptt.clipping.ByNorm`, which bounds its norm.
            Defaults to `None`.
        recurrent_parametrization: None, or a `kbptt.parametrizations` identifier, `"exp"`,
            `"cayley"` or `"householder"`: the recurrent matrix of every gate stays orthogonal,
            starting from the value of `recurrent_initializer` (or the nearest orthogonal matrix).
            Defaults to `None`.
        trainable_initial_state: Boolean. Learn the initial states of a sequence, to which resets
            also return, as weights ``(units,)``, initialized to zeros. Defaults to `False`.
        zoneout: Float in [0, 1), or one for h and one for c. Probability that a unit keeps its
            value for a timestep in training; at inference, old and new values are averaged with
            this weight. The authors use 0.05 for h and 0.5 for c. Defaults to `0.0`.
        h_detach: Float in [0, 1]. Probability, per timestep, that no gradient flows back through h
            to the previous timestep; the path through c stays. Defaults to `0.0`.
        **kwargs: `name`, `dtype`, `trainable`, `zero_output_for_mask` and `implementation`, as in
            Keras.

    Raises:
        ValueError: If an argument is out of its range.
    """

    cell_name = "LSTM"

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        unit_forget_bias: bool = True,
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
            unit_forget_bias=unit_forget_bias,
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
