"""Options that stay as they were when a layer took them."""

from typing import Any, TypeVar


class Freezable:
    """Base of objects that a layer compiles into its loops: changed later they would be ignored."""

    _frozen = False

    def __setattr__(self, name: str, value: Any) -> None:
        if self._frozen:
            raise AttributeError(
                f"This {type(self).__name__} belongs to a layer, which has compiled it. "
                f"Received: {name}={value!r}. Create a new one and assign it to the layer, for "
                "example `layer.truncation = …`; the next training step uses it."
            )
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        config: dict[str, Any] = getattr(self, "get_config", dict)()
        arguments = ", ".join(f"{name}={value!r}" for name, value in config.items())
        return f"{type(self).__name__}({arguments})"


_Option = TypeVar("_Option")


def frozen(option: _Option) -> _Option:
    """Returns `option`, which from now on refuses to be changed."""
    if isinstance(option, Freezable):
        vars(option)["_frozen"] = True
    return option
