"""A file lock that is released when its process ends, even by SIGKILL."""

from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    try:
        import msvcrt
    except ImportError:
        msvcrt = None


def try_lock(file: IO) -> bool:
    """Locks an open file until it is closed.

    Returns:
        False if another process holds the lock. True where the system has no locks.
    """
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            # Windows makes locked bytes unreadable, so lock one far behind the text.
            position = file.tell()
            file.seek(1 << 30)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(position)
    except OSError:
        return False
    return True
