"""`kbptt.optimizers.ClipByNorm` as a callback."""

import keras

from kbptt import optimizers
from kbptt.callbacks.gradient_transform import GradientTransform


@keras.saving.register_keras_serializable(package="kbptt")
class ClipByNorm(optimizers.ClipByNorm, GradientTransform):
    """Scales each variable's gradient separately to a norm of at most `threshold`.

    `kbptt.optimizers.ClipByNorm` with the same arguments, during `fit` only and on any model.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.ClipByNorm(1.0, variables="recurrent_kernel")])
    ```
    """
