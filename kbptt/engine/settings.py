"""How the loops run, which no result depends on but by rounding: threads, compilers, memory."""

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the loops that are built in a scope of `using`.

    Attributes:
        native: Boolean. Whether layers use the loops compiled from C++ where these can run.
        jit: Boolean. Whether XLA compiles the TensorFlow loops.
        differentiable: Boolean. Whether layers run an ordinary loop that TensorFlow differentiates
            any number of times, see `differentiable`.
        gradient: Boolean. Whether loops have a gradient. In a file that only runs forward, those of
            kbptt would be functions that nobody can call.
        threads: Integer, threads of a C++ loop; None is as many as TensorFlow gives an operation.
        members: Integer, how many of those threads share rows, each with a part of the units; None
            is what `kbptt.engine.plan` says.
        kept_gates: Bytes up to which a C++ loop keeps the gates for the backward pass; larger ones
            are recomputed, for a third of the memory and 1.1 to 1.4 times the time. None is
            128 MiB, or 1/128 of the machine's memory if that is less.
        instruction_set: Name of an instruction set of the C++ loops; None is the best that the
            machine has.
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
    """The settings in force where the code runs or is traced."""
    return _current.get()


@contextlib.contextmanager
def using(**changes: bool | int | str | None) -> Iterator[Settings]:
    """A scope in which loops are built and called with other `Settings`.

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
    """A scope in which layers run a loop that TensorFlow differentiates itself.

    The engine's gradient is written by hand and has no gradient itself. In this scope layers give
    the same numbers by an ordinary loop, slower and with more memory, of which gradients of any
    order can be taken: what an exact gradient-norm penalty needs. Sliding windows, which no
    ordinary loop expresses, are refused there.
    """
    with using(differentiable=True):
        yield
