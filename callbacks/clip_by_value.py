"""Clipping of every gradient component."""

import keras

from kbptt import clipping
from kbptt.callbacks.gradient_transform import GradientTransform, Schedule


@keras.saving.register_keras_serializable(package="kbptt")
class ClipByValue(GradientTransform):
    """Limits every component of the gradient to [-threshold, threshold].

    Changes the direction of the step. As Keras's `clipvalue`, for all or some variables, with
    statistics, and right under `MirroredStrategy`.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.ClipByValue(1.0)])
    ```

    Args:
        threshold: Positive float or schedule. The largest magnitude of a component.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Prefix of the epoch logs. Defaults to `"clip_by_value"`.
    """

    def __init__(self, threshold: float | Schedule, *, variables=None, name=None):
        super().__init__(threshold, variables=variables, name=name)

    def transform(self, gradients, norms, weights, state):
        return clipping.clip_by_value(gradients, state["threshold"]), None, state
