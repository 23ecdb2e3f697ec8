"""Access to names that Keras, TensorFlow and TensorBoard do not make public.

`_keras.py`, `_tensorflow.py` and `_tensorboard.py` are the only modules that use such names, each
with its reason. `tests/test_private_names.py` checks every one of them against the installed
release, and that no other module uses any.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


class Fence:
    """Reads the private names of one package, or raises a clear error if one is gone.

    Args:
        package: Name of the package, which is imported, such as `"keras"`.
        checked: The release that the names were checked on.
    """

    def __init__(self, package: str, checked: str) -> None:
        self.package = package
        self.checked = checked

    def get(self, owner: Any, name: str) -> Any:
        """The attribute `name` of `owner`.

        Raises:
            RuntimeError: If there is none.
        """
        try:
            return getattr(owner, name)
        except AttributeError:
            kind = owner if isinstance(owner, type) else type(owner)
            raise RuntimeError(self.message(f"{kind.__name__}.{name}")) from None

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """A scope for imports of private modules, which names the missing one in its error."""
        try:
            yield
        except ImportError as error:
            raise ImportError(self.message(f"{error.name} ({error})")) from error

    def message(self, name: str) -> str:
        """The error message for a release without `name`."""
        installed = sys.modules[self.package].__version__
        return (
            f"kbptt needs the private name {name} of {self.package}, which the installed release "
            f"{installed} does not have. It was checked on {self.package} {self.checked}: install "
            f'that release (pip install "{self.package}=={self.checked}") or a newer kbptt.'
        )
