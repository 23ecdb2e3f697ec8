"""`kbptt.optimizers.AdaptiveGradientClip` as a callback."""

import keras

from kbptt import optimizers
from kbptt.callbacks.gradient_transform import GradientTransform


@keras.saving.register_keras_serializable(package="kbptt")
class AdaptiveGradientClip(optimizers.AdaptiveGradientClip, GradientTransform):
    """Bounds each output unit's gradient by the norm of its weights (AGC).

    `kbptt.optimizers.AdaptiveGradientClip` with the same arguments, during `fit` only and on any
    model.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.AdaptiveGradientClip(0.01, variables="lstm")])
    ```
    """
