"""The ledger: one SQLite file with the configuration, the trials and their results.

Every result is one transaction, so SIGKILL at any moment loses at most the trials that were
running. The rollback journal, unlike WAL, needs no shared memory and works on network file systems.
A lock on a file beside the ledger keeps a second runner out; the kernel releases it when the
process ends, so no stale lock is left behind.
"""

import contextlib
import errno
import json
import os
import pathlib
import socket
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from kbptt._locks import try_lock
from kbptt.ablation.rows import (
    STATES,
    UNREADABLE,
    Trial,
    canonical,
    dump,
    is_below,
    key_of,
    load,
    read,
)
from kbptt.ablation.text import one_line

FILE = "ledger.sqlite"
LOCK = "ledger.lock"
FORMAT = "1"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    directory TEXT NOT NULL UNIQUE,
    config TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'running', 'done', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    error TEXT,
    finished REAL
);
"""


class LedgerError(ValueError):
    """A ledger cannot be used as requested; the message is one sentence for the user."""


class Ledger:
    """States and results of the trials in one directory.

    Args:
        directory: The log directory; created if it does not exist.
        read_only: Whether to open without the lock, to report on a running or finished ablation.
    """

    def __init__(self, directory: str | os.PathLike[str], read_only: bool = False):
        self.directory: pathlib.Path = pathlib.Path(directory)
        self.path: pathlib.Path = self.directory / FILE
        self._lock = None
        if read_only:
            if not self.path.exists():
                raise LedgerError(
                    f"There is no ablation in {str(self.directory)!r}: it has no {FILE}. "
                    "Pass the directory that you passed to `kbptt compare --logdir`."
                )
            # "rw" for a reader, so that SQLite can roll back the journal that SIGKILL left.
            self._connection = self._connect(self.path.resolve().as_uri() + "?mode=rw")
        else:
            make_directory(self.directory)
            self._lock = _Lock(self.directory / LOCK)
            try:
                self._connection = self._connect(self.path.resolve().as_uri())
                with self._explained():
                    self._connection.execute("PRAGMA journal_mode = DELETE")
                    self._connection.execute("PRAGMA synchronous = FULL")
                    self._connection.executescript(_SCHEMA)
            except BaseException:
                self._lock.release()
                raise
        try:
            self._check_format(read_only)
        except BaseException:
            self.close()
            raise

    def _connect(self, uri: str) -> sqlite3.Connection:
        with self._explained():
            connection = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None)
        connection.text_factory = _decoded  # invalid UTF-8 costs one row only
        return connection

    def _check_format(self, read_only: bool) -> None:
        found = self.meta("format")
        if found is None and not read_only:
            self.set_meta("format", FORMAT)
        elif found != FORMAT:
            raise LedgerError(
                f"{str(self.path)!r} has ledger format {one_line(str(found))}; this kbptt reads "
                f"format {FORMAT}. Use the kbptt that wrote it, or a different directory."
            )

    def close(self) -> None:
        self._connection.close()
        if self._lock:
            self._lock.release()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def meta(self, name: str) -> Any:
        """A value stored by `set_meta`; None if there is none, `UNREADABLE` if it is not JSON."""
        with self._explained():
            row = self._connection.execute(
                "SELECT value FROM meta WHERE name = ?", (name,)
            ).fetchone()
        try:
            return load(row[0]) if row else None
        except ValueError:
            return UNREADABLE

    @property
    def commits(self) -> list[str]:
        """The commits of the working directory that the ablation ran at."""
        found = self.meta("commits")
        return list(map(str, found)) if isinstance(found, list) else []

    def set_meta(self, name: str, value: Any) -> None:
        with self._transaction() as execute:
            execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    def plan(
        self, configuration: Mapping[str, Any], cells: Iterable[tuple[Mapping[str, Any], str]]
    ) -> None:
        """Stores the configuration and adds the trials that are new, in one transaction.

        Args:
            configuration: The grid; the next run's grid is compared with it.
            cells: Pairs of a trial's configuration and its directory below the log directory.
        """
        with self._transaction() as execute:
            execute(
                "INSERT OR REPLACE INTO meta VALUES ('configuration', ?)",
                (canonical(configuration),),
            )
            rows = execute("SELECT key, directory, config FROM trials")
            known = {key: (directory, config) for key, directory, config in rows}
            taken = {directory for directory, _ in known.values()}
            position = len(known)
            for config, directory in cells:
                text = canonical(config)
                key = key_of(text)
                old, stored = known.get(key, (None, None))
                if stored == text and is_below(old):
                    continue
                directory = old if is_below(old) else directory
                if directory != old and directory in taken:
                    directory = f"{directory}-{key[:8]}"
                # The key identifies the trial, so a damaged configuration or directory is repaired.
                execute(
                    "INSERT INTO trials (key, position, directory, config) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET directory = excluded.directory, "
                    "config = excluded.config",
                    (key, position, directory, text),
                )
                known[key] = directory, text
                taken.add(directory)
                position += old is None

    def clear(self) -> None:
        """Removes every trial and the configuration."""
        with self._transaction() as execute:
            execute("DELETE FROM trials")
            execute("DELETE FROM meta WHERE name != 'format'")

    def recover(self, retry_failed: bool = False, closed: Collection[str] = ()) -> None:
        """Marks trials that were running when the last run ended as pending.

        Args:
            retry_failed: Whether those that failed become pending too.
            closed: Keys of trials that are not retried.
        """
        pending = "UPDATE trials SET state = 'pending', attempts = 0, error = NULL WHERE "
        with self._transaction() as execute:
            execute(pending + "state NOT IN ('pending', 'done', 'failed')")
            if retry_failed:
                failed = execute("SELECT key FROM trials WHERE state = 'failed'").fetchall()
                for (key,) in failed:
                    if key not in closed:
                        execute(pending + "key = ?", (key,))

    def start(self, key: str) -> int:
        """Marks a trial as running; returns the number of the attempt, from 1."""
        with self._transaction() as execute:
            execute(
                "UPDATE trials SET state = 'running', attempts = attempts + 1 "
                "WHERE key = ? AND state IN ('pending', 'running')",
                (key,),
            )
            return execute("SELECT attempts FROM trials WHERE key = ?", (key,)).fetchone()[0]

    def finish(self, key: str, result: Mapping[str, Any]) -> None:
        """Stores a result, unless the trial already has one."""
        with self._transaction() as execute:
            execute(
                "UPDATE trials SET state = 'done', result = ?, error = NULL, finished = ? "
                "WHERE key = ? AND state != 'done'",
                (dump(result), time.time(), key),
            )

    def fail(self, key: str, error: str) -> None:
        """Records that a trial failed for good, with its error."""
        with self._transaction() as execute:
            execute(
                "UPDATE trials SET state = 'failed', error = ?, finished = ? "
                "WHERE key = ? AND state != 'done'",
                (error, time.time(), key),
            )

    def reject(self, errors: Mapping[str, str]) -> None:
        """Marks trials as failed whose results cannot be read, by key."""
        with self._transaction() as execute:
            for key, error in errors.items():
                execute(
                    "UPDATE trials SET state = 'failed', error = ? "
                    "WHERE key = ? AND state = 'done'",
                    (error, key),
                )

    def trials(self, *states: str) -> list[Trial]:
        """The trials in one of the states (default: all), in the order of the grid."""
        return list(self.each(*states))

    def each(self, *states: str) -> Iterator[Trial]:
        """As `trials`, one by one, so that a large ablation need not fit into memory."""
        where = f"WHERE state IN ({','.join('?' * len(states))})" if states else ""
        with self._explained():
            rows = self._connection.execute(
                "SELECT key, config, directory, state, attempts, result, error FROM trials "
                f"{where} ORDER BY position",
                states,
            )
            for row in rows:
                trial = read(*row)
                if not states or trial.state in states:
                    yield trial

    def directories(self) -> dict[Any, Any]:
        """The directory of every trial by its key, as stored in the ledger."""
        with self._explained():
            return dict(self._connection.execute("SELECT key, directory FROM trials"))

    def counts(self) -> dict[str, int]:
        """How many trials are in each state."""
        with self._explained():
            found = dict(
                self._connection.execute("SELECT state, COUNT(*) FROM trials GROUP BY state")
            )
        return {state: found.get(state, 0) for state in STATES}

    def last_finished(self) -> float | None:
        """When the last trial ended, in seconds since 1970; None if that is not known."""
        with self._explained():
            return self._connection.execute(
                "SELECT MAX(finished) FROM trials WHERE typeof(finished) = 'real'"
            ).fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                # When the disk is full, SQLite has already rolled back.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns errors of the disk and of SQLite into one sentence for the user."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise disk_full(self.directory) from error
            raise LedgerError(f"Cannot use the ledger {str(self.path)!r}: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise LedgerError(
                f"{str(self.path)!r} is not a ledger of kbptt, or is damaged: {error}. "
                "Move it away, or use a different directory."
            ) from error


def disk_full(directory: str | os.PathLike[str]) -> LedgerError:
    """The error for a full disk."""
    return LedgerError(
        f"The disk that holds {str(directory)!r} is full. Every result so far is safe: free some "
        "space and run the same command again to continue."
    )


def is_disk_full(error: OSError) -> bool:
    """Whether an error means that the disk or the quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _decoded(stored: bytes) -> str:
    return stored.decode("utf-8", "backslashreplace")


def make_directory(directory: pathlib.Path) -> None:
    """Makes a log directory, unless it is there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(directory) from error
        raise LedgerError(
            f"Cannot make the log directory {str(directory)!r}: {error.strerror}."
        ) from error


class _Lock:
    """An advisory lock on a file, held for as long as the process lives."""

    def __init__(self, path: pathlib.Path):
        try:
            self._file = open(path, "a+", encoding="utf-8")
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(path.parent) from error
            raise LedgerError(
                f"Cannot write in the log directory {str(path.parent)!r}: {error.strerror}."
            ) from error
        if not try_lock(self._file):
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise LedgerError(
                f"Another run is using {str(path.parent)!r} ({holder}). Wait for it, stop it, or "
                "choose a different --logdir."
            )
        with contextlib.suppress(OSError):  # naming the holder is optional: the disk may be full
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()

    def release(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
