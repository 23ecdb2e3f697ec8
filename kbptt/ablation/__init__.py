"""Ablations: methods × tasks × seeds, run on Dask, kept in a ledger, judged with statistics.

Importing this package imports neither Keras nor TensorFlow; only the trials do, in their workers.
"""

from kbptt import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["ledger", "options", "statistics", "trial"],
    submod_attrs={
        "grid": ["Grid"],
        "ledger": ["Ledger", "LedgerError"],
        "reporting": ["Report"],
        "results": ["Results"],
        "study": ["compare", "report"],
    },
)
