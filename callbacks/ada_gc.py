"""`kbptt.optimizers.AdaGC` as a callback."""

import keras

from kbptt import optimizers
from kbptt.callbacks.gradient_transform import GradientTransform


@keras.saving.register_keras_serializable(package="kbptt")
class AdaGC(optimizers.AdaGC, GradientTransform):
    """Clips each variable's gradient relative to a moving average of its own clipped norms.

    `kbptt.optimizers.AdaGC` with the same arguments, during `fit` only and on any model.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.AdaGC(warmup_steps=100)])
    ```
    """
