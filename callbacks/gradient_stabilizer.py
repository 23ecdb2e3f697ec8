"""`kbptt.optimizers.GradientStabilizer` as a callback."""

import keras

from kbptt import optimizers
from kbptt.callbacks.gradient_transform import GradientTransform


@keras.saving.register_keras_serializable(package="kbptt")
class GradientStabilizer(optimizers.GradientStabilizer, GradientTransform):
    """Replaces the norm of each variable's gradient by an estimate, and keeps its direction.

    `kbptt.optimizers.GradientStabilizer` with the same arguments, during `fit` only and on any
    model.

    Example:

    ```python
    clips = [kbptt.callbacks.AdaClip(), kbptt.callbacks.GradientStabilizer()]  # Stable-SPAM
    model.fit(x, y, callbacks=clips)
    ```
    """
