"""The threads of a pass of the compiled loops."""

import contextlib
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from kbptt.engine.native.library import Problem


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="kbptt")


# Threads of a team wait for each other: all must run at once. Two teams would have to share the
# threads of the pool, and each could wait for some that the other has.
_meetings_at_a_time = threading.Lock()


class InPool:
    """A scope in which `work` runs with each of `calls` but the first; its body runs that.

    It is left when all have ended, also where the body raises: threads that share rows then stop
    waiting for the one that did not come.

    Args:
        work: A pass of `Loops`.
        calls: The arguments of each thread.
        problem: The `Problem` of the pass.
    """

    def __init__(self, work: Callable[..., None], calls: list[tuple], problem: Problem) -> None:
        self.work = work
        self.calls = calls[1:]
        self.problem = problem
        self.lock = _meetings_at_a_time if problem.members > 1 else contextlib.nullcontext()
        self.others: list[Future[None]] = []

    def __enter__(self) -> None:
        self.lock.__enter__()
        try:
            for arguments in self.calls:
                self.others.append(_pool(len(self.calls)).submit(self.work, *arguments))
        except BaseException as error:
            self.__exit__(type(error))
            raise

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:  # as by Ctrl-C: a thread did not come for which others wait
            self.problem.call_off()
        try:
            wait(self.others)  # they write to arrays that go when this function ends
        except BaseException:
            wait(self.others)
            raise
        finally:
            self.lock.__exit__(None, None, None)
        if kind is None:
            for other in self.others:
                other.result()
