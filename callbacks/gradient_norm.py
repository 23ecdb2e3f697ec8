"""Measurement of the gradient norm."""

import keras

from kbptt.callbacks.gradient_transform import GradientTransform


@keras.saving.register_keras_serializable(package="kbptt")
class GradientNorm(GradientTransform):
    """Measures the global norm of the gradient and changes nothing.

    Its place among the callbacks is its place among the transforms: before a clip it measures the
    raw gradient, after it the clipped one. Alone it leaves training exactly as it is, also where a
    gradient is NaN, and works with an optimizer that clips by itself.

    Example:

    ```python
    norm = kbptt.callbacks.GradientNorm()
    history = model.fit(x, y, callbacks=[norm]).history["gradient_norm"]
    ```

    Args:
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Key of the epoch logs. Defaults to `"gradient_norm"`.
    """

    observes_only = True

    def __init__(self, *, variables=None, name=None):
        super().__init__(variables=variables, name=name)

    def transform(self, gradients, norms, weights, state):
        return gradients, norms, state
