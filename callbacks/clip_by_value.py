"""`kbptt.optimizers.ClipByValue` as a callback."""

import keras

from kbptt import optimizers
from kbptt.callbacks.gradient_transform import GradientTransform


@keras.saving.register_keras_serializable(package="kbptt")
class ClipByValue(optimizers.ClipByValue, GradientTransform):
    """Limits every element of the gradient to [-threshold, threshold].

    `kbptt.optimizers.ClipByValue` with the same arguments, during `fit` only and on any model.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.ClipByValue(1.0)])
    ```
    """
