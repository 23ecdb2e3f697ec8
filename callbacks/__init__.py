"""Keras callbacks. Imported as `kbptt.callbacks`."""

from kbptt import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["gradient_flow", "gradient_transform"],
    submod_attrs={
        "adaptive_gradient_clip": ["AdaptiveGradientClip"],
        "adaptive_truncation": ["AdaptiveTruncation"],
        "auto_clip": ["AutoClip"],
        "clip_by_global_norm": ["ClipByGlobalNorm"],
        "clip_by_norm": ["ClipByNorm"],
        "clip_by_value": ["ClipByValue"],
        "gradient_flow": ["GradientFlow"],
        "gradient_norm": ["GradientNorm"],
        "gradient_norm_penalty": ["GradientNormPenalty"],
        "gradient_transform": ["GradientTransform"],
        "spectral_monitor": ["SpectralMonitor"],
        "z_clip": ["ZClip"],
    },
)
