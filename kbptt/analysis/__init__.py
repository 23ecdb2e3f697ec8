"""Analysis of gradients and of recurrent networks."""

from kbptt import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
