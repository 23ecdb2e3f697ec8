"""Truncated backpropagation through time for Keras.

``import kbptt`` is light: it imports neither Keras nor TensorFlow. Each name below is imported when
it is first used.
"""

import lazy_loader

from kbptt import _checks, _registration

__version__ = "0.1.0"

_lazy_getattr, _, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "ablation",
        "analysis",
        "callbacks",
        "clipping",
        "engine",
        "initializers",
        "layers",
        "methods",
        "normalization",
        "regularizers",
        "tasks",
        "tensorboard",
        "truncation",
    ],
    submod_attrs={"layers": ["GRU", "LSTM", "RNN", "SimpleRNN", "convert"]},
)


def __getattr__(name):
    try:
        return _lazy_getattr(name)
    except AttributeError:
        if name in __all__:
            raise
        hint = _checks.did_you_mean(name, __all__)
        raise AttributeError(f"module 'kbptt' has no attribute {name!r}{hint}") from None


def __dir__():
    return ["__version__", *__all__]


_registration.register_when_keras_is_imported()
