"""Ablations: methods × tasks × seeds, run on Dask, kept in a ledger, judged with statistics.

Importing this package imports neither Keras nor TensorFlow; only the trials do, in their workers.
"""

from kbptt import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
