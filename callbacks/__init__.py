"""Keras callbacks. Imported as `kbptt.callbacks`."""

from kbptt import _lazy

if __name__ != "kbptt.callbacks":
    # From the project's root; a second copy of every class would be registered with Keras.
    raise ImportError("Import kbptt.callbacks: the folder callbacks is not a separate package.")

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
