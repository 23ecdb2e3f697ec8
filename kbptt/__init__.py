"""Truncated backpropagation through time for Keras.

``import kbptt`` is light: it imports neither Keras nor TensorFlow. Each name below is imported when
it is first used.
"""

from kbptt import _lazy, _registration

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)

_registration.register_when_keras_is_imported()
