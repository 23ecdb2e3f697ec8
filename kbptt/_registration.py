"""Makes ``keras.models.load_model`` find kbptt's classes after a plain ``import kbptt``.

Keras finds a custom class only in its registry: it does not import the module that a saved file
names, unless the package is one of Keras's own. Importing kbptt's modules here would import
TensorFlow. So once Keras is imported, stand-ins are registered that import the class when Keras
deserializes one; the import registers the class itself in place of its stand-in.
"""

import contextlib
import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

SERIALIZABLE = {
    "callbacks": (
        "AdaClip",
        "AdaGC",
        "AdaptiveGradientClip",
        "AdaptiveTruncation",
        "AutoClip",
        "ClipByGlobalNorm",
        "ClipByNorm",
        "ClipByValue",
        "GradientFlossing",
        "GradientFlow",
        "GradientNorm",
        "GradientNormPenalty",
        "GradientStabilizer",
        "SpectralMonitor",
        "ZClip",
    ),
    "constraints": ("Orthogonal", "SpectralNorm"),
    "gradient_clip": ("ByNorm",),
    "initializers": (
        "Cayley",
        "Chrono",
        "Henaff",
        "Identity",
        "Legendre",
        "LegendreInput",
        "OrthogonalPerGate",
        "SpectralRadius",
        "UniformGate",
    ),
    "layers": ("GRU", "LSTM", "RNN", "SimpleRNN"),
    "normalization": ("LayerNormalization", "RMSNormalization"),
    "optimizers": (
        "Clipped",
        "optimizers.AdaClip",
        "optimizers.AdaGC",
        "optimizers.AdaptiveGradientClip",
        "optimizers.AutoClip",
        "optimizers.ClipByGlobalNorm",
        "optimizers.ClipByNorm",
        "optimizers.ClipByValue",
        "optimizers.GradientNorm",
        "optimizers.GradientStabilizer",
        "optimizers.ZClip",
    ),
    "parametrizations": ("CayleyTransform", "HouseholderReflections", "MatrixExponential"),
    "regularizers": (
        "ActivationRegularization",
        "NormStabilizer",
        "Orthogonality",
        "SequenceRegularization",
        "VanishingGradient",
    ),
    "tasks.keras_objects": (
        "BitsPerSymbol",
        "InfluenceBalancingCell",
        "OneHot",
        "WithinSquaredError",
    ),
    "truncation": ("AnticipatedReweighted", "Full", "Randomized", "SnAp", "Windowed"),
}
"""Module: the names of its classes in ``register_keras_serializable(package="kbptt")``.

The last part of a name is that of the class.
"""

NAMES = {
    "cayley": "Cayley",
    "henaff": "Henaff",
    "orthogonal_per_gate": "OrthogonalPerGate",
    "spectral_radius": "SpectralRadius",
    "uniform_gate": "UniformGate",
}
"""Names of initializers in arguments of any layer, such as ``recurrent_initializer="henaff"``.

Those that Keras has itself keep its meaning there, and others need an argument. The layers of kbptt
know all names: `kbptt.layers.identifiers`.
"""


def register_when_keras_is_imported() -> None:
    """Registers the stand-ins now if Keras is already imported, else right after its import."""
    if "keras" in sys.modules:
        _Awaited.register()
    else:
        sys.meta_path.insert(0, _Awaited)


class _Awaited:
    """Imports wrapt when Keras is: it takes longer than all else that `import kbptt` does."""

    @staticmethod
    def register() -> None:
        import wrapt

        wrapt.register_post_import_hook(_register, "keras")

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        """The hook of the import system; finds nothing but the beginning of Keras's import."""
        if name != "keras":
            return None
        with contextlib.suppress(ValueError):  # a second thread has done this
            sys.meta_path.remove(cls)
            cls.register()
        return importlib.util.find_spec(name)


def _register(keras: ModuleType) -> None:
    # Not an attribute of `keras`, which may be in the middle of its own import.
    objects = importlib.import_module("keras.saving").get_custom_objects()
    for module, names in SERIALIZABLE.items():
        for name in names:
            objects.setdefault(f"kbptt>{name}", _stand_in(module, name))
    for name, class_name in NAMES.items():
        objects.setdefault(name, _stand_in("initializers", class_name))


def _stand_in(module: str, name: str) -> type:
    class_name = name.rpartition(".")[2]

    def real() -> Any:
        return getattr(importlib.import_module(f"kbptt.{module}"), class_name)

    class StandIn:
        """Makes instances of the class that it stands for."""

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return real()(*args, **kwargs)

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            return real().from_config(config)

    StandIn.__name__ = StandIn.__qualname__ = class_name
    return StandIn
