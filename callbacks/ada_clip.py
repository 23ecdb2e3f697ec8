"""`kbptt.optimizers.AdaClip` as a callback."""

import keras

from kbptt import optimizers
from kbptt.callbacks.gradient_transform import GradientTransform


@keras.saving.register_keras_serializable(package="kbptt")
class AdaClip(optimizers.AdaClip, GradientTransform):
    """Clips the elements of each variable's gradient that exceed a moving maximum.

    `kbptt.optimizers.AdaClip` with the same arguments, during `fit` only and on any model.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.AdaClip()])
    ```
    """
