"""How far back in time a gradient flows: the policies for ``truncation=``, and their windows."""

from kbptt import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
