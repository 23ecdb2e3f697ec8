"""From the name of a variant to its step.

A variant is a library and its options: `keras jit`, `kbptt windowed layernorm`, `torch detach`,
`floor` (matrix products alone), `peak` (the floating-point work at the peak of the machine).
"""

import functools
import importlib.util
from collections.abc import Callable

from . import floor, jax_steps, keras_steps, peak, torch_steps
from .sizes import Size

LIBRARIES = {
    "keras": keras_steps.make,
    "kbptt": functools.partial(keras_steps.make, library="kbptt"),
    "other": functools.partial(keras_steps.make, library="kbptt"),  # of a different checkout
    "torch": torch_steps.make,
    "jax": jax_steps.make,
    "floor": floor.make,
    "peak": peak.make,
}


def parse(variant: str) -> tuple[str, dict[str, str]]:
    """Library and options of a variant."""
    library, *options = variant.split()
    pairs = (option.partition("=") for option in options)
    return library, {name: value for name, _, value in pairs}


def make_step(variant: str, cell: str, size: Size) -> Callable[[], object]:
    """A function that runs one step, which has run once."""
    library, options = parse(variant)
    return LIBRARIES[library](options, cell, size)


@functools.cache
def missing(library: str) -> str:
    """Why the library cannot be measured here; empty if it can."""
    if library in ("torch", "jax") and not importlib.util.find_spec(library):
        return f"{library} is not installed"
    if library == "peak" and not peak.compiler():
        return "no C compiler (cc, gcc, clang or $CC) for the peak of the machine"
    return ""


def applies(variant: str, size: Size) -> bool:
    """Whether the variant exists for this size."""
    library, options = parse(variant)
    if options.keys() & {"windowed", "detach"} and size.window >= size.timesteps:
        return False
    if "detach" in options and size.bidirectional:
        return False  # the second direction's state comes from the other side
    if library == "jax" and size.one_hot:
        return False
    if "once" in options:
        return size.timesteps == 1
    if options.keys() & {"predict", "evaluate"}:
        return size.timesteps > 1
    return library != "peak" or size.units >= 256  # below, products are not what a step is made of
