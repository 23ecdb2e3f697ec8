"""`kbptt.optimizers.GradientNorm` as a callback."""

import keras

from kbptt import optimizers
from kbptt.callbacks.gradient_transform import GradientTransform


@keras.saving.register_keras_serializable(package="kbptt")
class GradientNorm(optimizers.GradientNorm, GradientTransform):
    """Measures the global norm of the gradient and changes nothing.

    `kbptt.optimizers.GradientNorm` with the same arguments, during `fit` only and on any model.

    Example:

    ```python
    norm = kbptt.callbacks.GradientNorm()
    history = model.fit(x, y, callbacks=[norm]).history["gradient_norm"]
    ```
    """
