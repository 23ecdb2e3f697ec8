"""What the shell completes: names of tasks, methods, cells, …, without importing TensorFlow.

Each function gets the word so far and returns whole words that begin with it. In a list
(`clip,ort`) or a combination (`clip+ort`) that is the word up to the last separator, and each
possible next name.
"""

import contextlib
import re
from collections.abc import Callable, Iterable
from typing import Any

from kbptt.cells.names import NAMES

Described = tuple[str, str]


def task(ctx: Any, incomplete: str) -> list[Described]:
    """Names of tasks, with the first line of their description."""
    registry = _registry(ctx)
    described = ((name, registry.summary(name)) for name in registry.names())
    return _after_the_last(",", incomplete, described)


def method(ctx: Any, incomplete: str) -> list[Described]:
    """Names of methods, also after a '+' or a comma."""
    _registry(ctx)
    from kbptt import methods

    described = ((name, methods.get(name).description) for name in methods.names())
    return _after_the_last(",+", incomplete, described)


def option(ctx: Any, incomplete: str) -> list[Described]:
    """Names of the options of a trial, and of the tasks that were given, with their '='."""
    from kbptt.ablation import options

    registry, names = _registry(ctx), options.short_names()
    # In the middle of an option, what came before it may not have been parsed.
    given = (ctx.params.get("task"), *(ctx.params.get("tasks") or ()), *ctx.args)
    for one in ",".join(filter(None, given)).split(","):
        with contextlib.suppress(ValueError):
            names += registry.options(one)
    names = [f"{name}=" for name in dict.fromkeys(names)]
    return [(name, "") for name in names if name.startswith(incomplete)]


def optimizer(incomplete: str) -> list[str]:
    """Names of Keras's optimizers."""
    from kbptt.ablation import early

    return _from_the_source(early.optimizers, incomplete)


def initializer(incomplete: str) -> list[str]:
    """Names of kbptt's and Keras's initializers, those in lower case alone."""
    from kbptt.ablation import early

    def names() -> Iterable[str]:
        return (n for n in early.names_of("recurrent_initializer") if n == n.lower())

    return _from_the_source(names, incomplete)


def normalization(incomplete: str) -> list[str]:
    """Names of kbptt's normalizations."""
    from kbptt.ablation import early

    return _from_the_source(lambda: early.names_of("normalization"), incomplete)


def one_of(*words: str) -> Callable[[str], list[str]]:
    """A function that completes to one of these words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


cell: Callable[[str], list[str]] = one_of(*NAMES)


def _after_the_last(
    separators: str, incomplete: str, described: Iterable[Described]
) -> list[Described]:
    before = re.match(f"(?:.*[{separators}])?", incomplete)
    kept = before[0] if before else ""
    used = re.split(f"[{separators}]", kept)
    words = ((f"{kept}{name}", text) for name, text in described if name not in used)
    return [(word, text) for word, text in words if word.startswith(incomplete)]


def _from_the_source(names: Callable[[], Iterable[str]], incomplete: str) -> list[str]:
    from kbptt.ablation.signatures import Unreadable

    with contextlib.suppress(Unreadable):
        return [name for name in names() if name.startswith(incomplete)]
    return []


def _registry(ctx: Any) -> Any:
    """The tasks, those of the modules that were named with `--import` among them."""
    from kbptt.tasks import registry

    with contextlib.suppress(Exception):  # a module with a mistake is no word to complete
        registry.import_modules(ctx.params.get("imports") or ())
    return registry
