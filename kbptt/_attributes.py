"""Attributes that are checked when set, or whose error names what to do instead."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Value = TypeVar("Value")


class Option(Generic[Value]):
    """An attribute that is checked whenever it is set.

    Args:
        check: Called with the attribute's name and value. Returns what to keep, or raises
            `ValueError`.
    """

    def __init__(self, check: Callable[[str, Any], Value]) -> None:
        self.check = check

    def __set_name__(self, cls: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, owner: None, cls: type) -> Self: ...

    @overload
    def __get__(self, owner: object, cls: type | None = None) -> Value: ...

    def __get__(self, owner: Any, cls: type | None = None) -> Self | Value:
        return self if owner is None else vars(owner)[self.name]

    def __set__(self, owner: Any, value: Any) -> None:
        vars(owner)[self.name] = self.check(self.name, value)


class Fixed(Generic[Value]):
    """An attribute that can only be read.

    Args:
        read: Returns its value, given the owner.
        mend: What to do instead of setting it.
    """

    def __init__(self, read: Callable[[Any], Value], mend: str) -> None:
        self.read = read
        self.mend = mend

    def __set_name__(self, cls: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, owner: None, cls: type) -> Self: ...

    @overload
    def __get__(self, owner: object, cls: type | None = None) -> Value: ...

    def __get__(self, owner: Any, cls: type | None = None) -> Self | Value:
        return self if owner is None else self.read(owner)

    def __set__(self, owner: Any, value: Any) -> None:
        raise AttributeError(f"`{self.name}` of {type(owner).__name__} cannot be set. {self.mend}")
