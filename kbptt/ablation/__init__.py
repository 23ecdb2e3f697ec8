"""Ablations: methods × tasks × seeds, run on Dask, stored in a ledger, compared statistically.

Importing this package imports neither Keras nor TensorFlow; only the trials do, in their workers.
"""

from kbptt import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
