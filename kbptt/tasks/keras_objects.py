"""Keras objects of the tasks. Importing this module imports Keras."""

import math
from typing import Any

import keras
from keras import ops

# Metrics wrap functions: then Keras leaves out the timesteps that are masked, those of a stream
# that belong to no sequence among them.


def _bits(y_true, y_pred):
    nats = keras.losses.sparse_categorical_crossentropy(
        y_true, ops.cast(y_pred, "float32"), from_logits=True
    )
    return nats / math.log(2)


def _is_within(y_true, y_pred, bound):
    error = ops.square(ops.cast(y_pred, "float32") - ops.cast(y_true, "float32"))
    return ops.cast(error <= bound, "float32")


@keras.saving.register_keras_serializable(package="kbptt")
class BitsPerSymbol(keras.metrics.MeanMetricWrapper):
    """Mean cross entropy of integer targets in bits (base-2 logarithm), from logits.

    Args:
        name: String. Defaults to `"bits"`.
        dtype: The dtype of the metric. Defaults to `None`.
    """

    def __init__(self, name: str = "bits", dtype: Any = None):
        super().__init__(_bits, name=name, dtype=dtype)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


@keras.saving.register_keras_serializable(package="kbptt")
class WithinSquaredError(keras.metrics.MeanMetricWrapper):
    """Fraction of the predictions whose squared error is at most `bound`.

    Args:
        bound: Float, the largest squared error that counts as correct.
        name: String. Defaults to `"solved"`.
        dtype: The dtype of the metric. Defaults to `None`.
    """

    def __init__(self, bound: float, name: str = "solved", dtype: Any = None):
        super().__init__(_is_within, name=name, dtype=dtype, bound=bound)
        self.bound = bound

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype, "bound": self.bound}


@keras.saving.register_keras_serializable(package="kbptt")
class OneHot(keras.layers.Layer):
    """Integer tokens `(batch, timesteps)` to one-hot vectors `(batch, timesteps, tokens)`.

    `keras.layers.CategoryEncoding` does the same except for sequences of one timestep, whose
    timesteps axis it drops.

    Args:
        tokens: Integer, the number of distinct tokens.
    """

    def __init__(self, tokens: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.tokens = tokens

    def call(self, inputs):
        return ops.one_hot(inputs, self.tokens, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "tokens": self.tokens}


@keras.saving.register_keras_serializable(package="kbptt")
class InfluenceBalancingCell(keras.layers.Layer):
    """The linear chain s_t = A s_{t-1} + θ (1, ..., 1, -1, ..., -1) with one parameter, θ.

    A has 0.5 on the diagonal and the superdiagonal, so θ reaches the output s^1 first through the
    `positive` units nearest to it and much later through the others: the immediate influence of θ
    has the opposite sign of its final one, ds^1/dθ = 2 (positive - (units - positive)).

    Args:
        units: Integer. Length of the chain. Defaults to `23`.
        positive: Integer. Units on which θ enters with a plus sign. Defaults to `10`.
        theta: Float. Initial value of θ. Defaults to `0.5`.

    Call arguments:
        inputs: `(batch, features)`. Ignored: the chain drives itself.
        states: List of the one state, `(batch, units)`. Starts at 1.

    Reference:
        - [Tallec & Ollivier, 2017](https://arxiv.org/abs/1702.05043).
    """

    def __init__(self, units: int = 23, positive: int = 10, theta: float = 0.5, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.positive = positive
        self.theta_start = theta
        self.state_size = units
        self.output_size = 1

    def build(self, input_shape):
        self.theta = self.add_weight(
            name="theta", shape=(), initializer=keras.initializers.Constant(self.theta_start)
        )
        signs = [1.0] * self.positive + [-1.0] * (self.units - self.positive)
        self._signs = ops.convert_to_numpy(signs).astype(self.compute_dtype)

    def call(self, inputs, states, training=False):
        state = states[0]
        # A s: every unit is the mean of itself and of the next one up the chain.
        shifted = ops.pad(state[:, 1:], ((0, 0), (0, 1)))
        state = 0.5 * (state + shifted) + self.theta * self._signs
        return state[:, :1], [state]

    def get_initial_state(self, batch_size=None):
        return [ops.ones((batch_size, self.units), dtype=self.compute_dtype)]

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "positive": self.positive,
            "theta": self.theta_start,
        }
