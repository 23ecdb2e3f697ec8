"""How the loops run: threads, compilers, memory. Results depend on it only up to rounding."""

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the loops that are built inside `using`.

    Attributes:
        native: Boolean. Whether layers use the C++ loops where these can run.
        jit: Boolean. Whether XLA compiles the TensorFlow loops.
        differentiable: Boolean. Whether layers run an ordinary loop that TensorFlow differentiates
            any number of times, see `differentiable`.
        gradient: Boolean. Whether loops have a gradient. In an exported model that only runs
            forward, kbptt's gradients would be functions that cannot be called.
        threads: Integer, threads of a C++ loop; None uses as many as TensorFlow gives an operation.
        members: Integer, how many of those threads share rows, each with part of the units; None
            lets `kbptt.engine.plan` decide.
        kept_gates: Bytes up to which a C++ loop stores the gates for the backward pass; larger ones
            are recomputed, which takes a third of the memory and 1.1 to 1.4 times as long. None is
            128 MiB, or 1/128 of the machine's memory if that is less.
        instruction_set: Name of an instruction set of the C++ loops; None uses the best available.
    """

    native: bool = True
    jit: bool = True
    differentiable: bool = False
    gradient: bool = True
    threads: int | None = None
    members: int | None = None
    kept_gates: int | None = None
    instruction_set: str | None = None


_DEFAULT = Settings()
_current: ContextVar[Settings] = ContextVar("kbptt_settings", default=_DEFAULT)


def settings() -> Settings:
    """Returns the settings that apply where the code runs or is traced."""
    return _current.get()


@contextlib.contextmanager
def using(**changes: bool | int | str | None) -> Iterator[Settings]:
    """Changes `Settings` for the loops that are built and called inside a `with` block.

    Args:
        **changes: Attributes of `Settings`.
    """
    token = _current.set(dataclasses.replace(_current.get(), **changes))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """Inside this `with` block, layers run a loop that TensorFlow differentiates itself.

    The engine's hand-written gradient has no gradient of its own. Inside the block, layers compute
    the same numbers with an ordinary loop, which is slower and takes more memory but supports
    gradients of any order, as needed for an exact gradient-norm penalty. Sliding windows, which an
    ordinary loop cannot express, raise an error.
    """
    with using(differentiable=True):
        yield
