"""Clipping of the norm of each variable's gradient."""

import keras

from kbptt import clipping
from kbptt.callbacks.gradient_transform import GradientTransform, Schedule


@keras.saving.register_keras_serializable(package="kbptt")
class ClipByNorm(GradientTransform):
    """Scales each variable's gradient to a norm of at most `threshold`, one by one.

    Keeps the direction within a variable, not of the whole step. As Keras's `clipnorm`, for all or
    some variables, with statistics, and right under `MirroredStrategy`.

    Example:

    ```python
    clip = kbptt.callbacks.ClipByNorm(1.0, variables="recurrent_kernel")
    model.fit(x, y, callbacks=[clip])
    ```

    Args:
        threshold: Positive float or schedule. The largest norm of one variable's gradient.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Prefix of the epoch logs. Defaults to `"clip_by_norm"`.
    """

    def __init__(self, threshold: float | Schedule, *, variables=None, name=None):
        super().__init__(threshold, variables=variables, name=name)

    def transform(self, gradients, norms, weights, state):
        return *clipping.clip_by_norm(gradients, state["threshold"], norms), state
