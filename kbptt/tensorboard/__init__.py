"""Gradient profiles in TensorBoard's files: writing, reading, figures and the plugin.

Nothing here imports Keras or TensorFlow, since TensorBoard imports the plugin.
"""

from kbptt import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
