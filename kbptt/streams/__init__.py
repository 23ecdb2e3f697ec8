"""Models on streams: states carried from window to window, in training and inference."""

from kbptt import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
