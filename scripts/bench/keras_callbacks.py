"""Callbacks whose cost is measured: lists of them, given a folder to log to."""

from kbptt import callbacks as kb

EPOCH = 30  # steps: after each, `GradientFlow` logs by default

CALLBACKS = {
    "": lambda folder: [],
    "GradientFlow": lambda folder: [kb.GradientFlow(folder)],
    "GradientFlow10": lambda folder: [kb.GradientFlow(folder, log_freq=10)],
    "GradientFlow10undrawn": lambda folder: [
        kb.GradientFlow(folder, log_freq=10, heatmap_freq=None)
    ],
    "ClipByValue": lambda folder: [kb.ClipByValue(1.0)],
    "ClipByNorm": lambda folder: [kb.ClipByNorm(1.0)],
    "ClipByGlobalNorm": lambda folder: [kb.ClipByGlobalNorm(1.0)],
    "AdaptiveGradientClip": lambda folder: [kb.AdaptiveGradientClip()],
    "AutoClip": lambda folder: [kb.AutoClip()],
    "ZClip": lambda folder: [kb.ZClip()],
}
