"""Elman RNN with truncated backpropagation through time."""

from typing import Unpack

import keras

from kbptt._typing import Activation, Constraint, Initializer, Regularizer, Seed, SimpleRNNOptions
from kbptt.gradient_clip import GradientClipLike
from kbptt.layers.identifiers import resolve
from kbptt.layers.projected import ProjectedLayer
from kbptt.layers.zoneout import ZoneoutLike
from kbptt.normalization import NormalizationLike
from kbptt.parametrizations import ParametrizationLike
from kbptt.regularizers.vanishing_gradient import GradientRegularizerLike
from kbptt.truncation.policies import TruncationLike


@keras.saving.register_keras_serializable(package="kbptt")
class SimpleRNN(ProjectedLayer, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN` with truncated backpropagation through time.

    Arguments, weights (names, shapes and order), outputs, masks and states are those of
    `keras.layers.SimpleRNN`. With ``activation="linear", use_bias=False`` it is the RNN of the
    guide's section 2, and its gradients are the closed forms of `kbptt.analysis.linear_rnn`.

    Args:
        units: Positive integer. Width of the state.
        activation: Activation of the state; None is linear. Defaults to `"tanh"`.
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
        return_sequences: Boolean. Return the outputs of all timesteps, not only the last. Defaults
            to `False`.
        return_state: Boolean. Return the last state in addition to the output. Defaults to `False`.
        go_backwards: Boolean. Process the sequence from its end and return it reversed. Defaults to
            `False`.
        stateful: Boolean. Start each batch from the last state of the previous one. Defaults to
            `False`.
        unroll: Boolean. Accepted for compatibility; the loop is never unrolled. Defaults to
            `False`.
        seed: Integer, `keras.random.SeedGenerator` or None. Seed for all random draws. Defaults to
            `None`.
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
        **kwargs: `name`, `dtype`, `trainable` and `zero_output_for_mask`, as in Keras.

    Raises:
        ValueError: If an argument is out of its range.
    """

    cell_name = "SimpleRNN"

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
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
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: Seed = None,
        *,
        truncation: TruncationLike = None,
        normalization: NormalizationLike = None,
        gradient_regularizer: GradientRegularizerLike = None,
        gradient_clip: GradientClipLike = None,
        recurrent_parametrization: ParametrizationLike = None,
        trainable_initial_state: bool = False,
        zoneout: ZoneoutLike = 0.0,
        **kwargs: Unpack[SimpleRNNOptions],
    ) -> None:
        super().__init__(
            units,
            activation=activation,
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
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            seed=seed,
            **kwargs,
        )
        # Keras 3.15's SimpleRNN takes this argument and drops it.
        activity_regularizer = resolve("activity_regularizer", activity_regularizer)
        self.activity_regularizer = keras.regularizers.get(activity_regularizer)
        self._set_up(
            truncation,
            gradient_clip,
            normalization=normalization,
            regularizer=gradient_regularizer,
            parametrization=recurrent_parametrization,
            trainable_initial_state=trainable_initial_state,
            zoneout=zoneout,
        )
