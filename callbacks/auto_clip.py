"""`kbptt.optimizers.AutoClip` as a callback."""

import keras

from kbptt import optimizers
from kbptt.callbacks.gradient_transform import GradientTransform


@keras.saving.register_keras_serializable(package="kbptt")
class AutoClip(optimizers.AutoClip, GradientTransform):
    """Clips the global norm to a percentile of all global norms so far.

    `kbptt.optimizers.AutoClip` with the same arguments, during `fit` only and on any model.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.AutoClip(percentile=10)])
    ```
    """
