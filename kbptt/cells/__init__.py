"""The cells: for each its equations, one timestep forward, and its vector-Jacobian product.

`names` is the only list of them; the C++ loops of `kbptt.engine.native` have those of its names
that they know. How to add one is in CONTRIBUTING.md.
"""

from kbptt import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
