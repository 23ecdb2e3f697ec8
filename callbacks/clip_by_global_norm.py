"""`kbptt.optimizers.ClipByGlobalNorm` as a callback."""

import keras

from kbptt import optimizers
from kbptt.callbacks.gradient_transform import GradientTransform


@keras.saving.register_keras_serializable(package="kbptt")
class ClipByGlobalNorm(optimizers.ClipByGlobalNorm, GradientTransform):
    """Scales the gradient of all selected variables together to a norm of at most `threshold`.

    `kbptt.optimizers.ClipByGlobalNorm` with the same arguments, during `fit` only and on any model.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.ClipByGlobalNorm(1.0)])
    ```
    """
