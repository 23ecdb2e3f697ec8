"""`kbptt.optimizers.ZClip` as a callback."""

import keras

from kbptt import optimizers
from kbptt.callbacks.gradient_transform import GradientTransform


@keras.saving.register_keras_serializable(package="kbptt")
class ZClip(optimizers.ZClip, GradientTransform):
    """Clips the global norm only where it spikes: by its z-score against a moving average.

    `kbptt.optimizers.ZClip` with the same arguments, during `fit` only and on any model.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.ZClip()])
    ```
    """
