"""Makes ``keras.models.load_model`` know kbptt's classes after a plain ``import kbptt``.

Keras finds a custom class only once its module has been imported and so registered. Importing them
in ``kbptt/__init__.py`` would import TensorFlow; a hook that waits for Keras costs nothing until
Keras is there.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings

# Modules that call `keras.saving.register_keras_serializable`.
SERIALIZABLE = (
    "layers",
    "truncation",
    "initializers",
    "regularizers",
    "normalization",
    "tasks.keras_objects",
)


def register() -> None:
    """Imports every module that registers Keras-serializable classes.

    Warns if one cannot be imported (TensorFlow broken or missing) instead of breaking the import
    of Keras, or of a program such as TensorBoard which loads kbptt only as a plugin. Whoever then
    uses kbptt's layers gets the error itself.
    """
    try:
        for name in SERIALIZABLE:
            importlib.import_module(f"kbptt.{name}")
    except ImportError as error:
        warnings.warn(
            f"keras.models.load_model does not know kbptt's classes: {error}.", stacklevel=2
        )


def register_when_keras_is_imported() -> None:
    """Registers now if Keras is already imported, else right after its import."""
    if "keras" in sys.modules:
        # A partly initialized Keras (kbptt imported while Keras is) counts as "later".
        if hasattr(sys.modules["keras"], "saving"):
            register()
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Finds ``keras`` and kbptt's modules as Python would; calls `register` once Keras has run.

    If a module of kbptt imports Keras, `register` waits for the end of that module: what it imports
    needs the module complete.
    """

    def __init__(self):
        self.running = set()

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "keras" and not fullname.startswith("kbptt."):
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module):
            self.running.add(fullname)
            try:
                run(module)
            finally:
                self.running.discard(fullname)
            if not self.running and "keras" in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                register()

        spec.loader.exec_module = exec_module
        return spec
