"""Clipping of the norm of the whole gradient."""

import keras

from kbptt import clipping
from kbptt.callbacks.gradient_transform import GradientTransform, Schedule


@keras.saving.register_keras_serializable(package="kbptt")
class ClipByGlobalNorm(GradientTransform):
    """Scales the gradient of all chosen variables together to a norm of at most `threshold`.

    Keeps the direction of the step: the usual remedy for exploding gradients in recurrent networks.
    As Keras's `global_clipnorm`, for all or some variables, with statistics, right under
    `MirroredStrategy`, and without turning every gradient NaN when one is.

    Example:

    ```python
    model.fit(x, y, callbacks=[kbptt.callbacks.ClipByGlobalNorm(1.0)])
    ```

    Args:
        threshold: Positive float or schedule. The largest global norm. A start: 0.5 to 10 times the
            average norm, which `GradientNorm` measures.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Prefix of the epoch logs. Defaults to `"clip_by_global_norm"`.

    Reference:
        - [Pascanu, Mikolov & Bengio, 2013](https://arxiv.org/abs/1211.5063), algorithm 1
    """

    def __init__(self, threshold: float | Schedule, *, variables=None, name=None):
        super().__init__(threshold, variables=variables, name=name)

    def transform(self, gradients, norms, weights, state):
        return *clipping.clip_by_global_norm(gradients, state["threshold"], norms), state
