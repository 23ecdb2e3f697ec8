"""Gradient clipping as a part of the optimizer: `Clipped` and the transforms it applies.

Imported eagerly: `keras.models.load_model` finds a class only once its module is imported.
"""

from kbptt.optimizers.ada_gc import AdaGC
from kbptt.optimizers.adaptive_gradient_clip import AdaptiveGradientClip
from kbptt.optimizers.auto_clip import AutoClip
from kbptt.optimizers.clipped import Clipped
from kbptt.optimizers.fixed_clips import ClipByGlobalNorm, ClipByNorm, ClipByValue
from kbptt.optimizers.stable_spam import AdaClip, GradientStabilizer
from kbptt.optimizers.transform import GradientNorm, GradientTransform
from kbptt.optimizers.z_clip import ZClip

__all__ = [
    "AdaClip",
    "AdaGC",
    "AdaptiveGradientClip",
    "AutoClip",
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "Clipped",
    "GradientNorm",
    "GradientStabilizer",
    "GradientTransform",
    "ZClip",
]
