"""Connections to one SQLite file, and how they live through forks.

A connection must never cross a fork, not even unused: SQLite remembers per file which locks its process holds, the
child inherits that memory but not the locks, and would go on with a file that others believe nobody uses. So all
connections are closed before a fork, after those in use came back.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from threading import Condition, Event, Lock
from typing import Any, TypeVar, TypeVarTuple
from weakref import WeakSet, finalize

from ..clock import SystemClock
from ..errors import StoreError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_IDLE = 8  # connections kept open; more are opened when as many threads come, and closed again
_NEVER = -1  # an epoch that no connection is kept for
_LOOK = 1.0  # seconds between two looks at whether the path still names our file
_FORK_WAIT = 1.0  # seconds that a fork waits for operations in other threads
_monotonic = SystemClock.monotonic  # whatever Clock is given: this is about files, not sessions
_BUSY = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS unsticky_sessions (
        key TEXT NOT NULL PRIMARY KEY, fields BLOB NOT NULL, created REAL NOT NULL, touched REAL NOT NULL,
        expires REAL NOT NULL, owner TEXT, generation INTEGER NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS unsticky_sessions_expires ON unsticky_sessions (expires)",
    "CREATE INDEX IF NOT EXISTS unsticky_sessions_owner ON unsticky_sessions (owner) WHERE owner IS NOT NULL",
)
_HAS_SCHEMA = "SELECT count(*) FROM sqlite_master WHERE name IN ('unsticky_sessions', 'unsticky_sessions_owner')"


class BusyError(StoreError):
    """Another writer held the file for all of the busy timeout. Nothing was written."""


class SqlitePool:
    """Connections to the file at `path`, each used by one thread at a time. `busy_timeout` is in seconds.

    They are handed out as cursors, one of each connection: making another one costs a third of what a read does.
    """

    def __init__(self, path: str, busy_timeout: float) -> None:
        self._path = os.path.abspath(path)
        self._busy_timeout = busy_timeout
        self._idle: list[sqlite3.Cursor] = []
        self._file: tuple[int, int] | None = None  # which one the path named when we opened it
        self._look_again = 0.0
        self._epoch = 0  # raised by close(): connections in use then are not kept
        self._after_fork()
        _pools.add(self)
        finalize(self, _close_all, self._idle)

    def run(self, work: Callable[[sqlite3.Cursor, *Ts], T], *args: *Ts) -> T:
        """`work(cursor, ...)`. What it leaves open when it raises is rolled back. Raises StoreError."""
        epoch = self._epoch
        try:
            cursor = self._take()
            try:
                result = work(cursor, *args)
            except BaseException as error:
                self._give(cursor, epoch if _recover(cursor.connection, error) else _NEVER)
                raise
            self._give(cursor, epoch)
            return result
        except sqlite3.Error as error:
            raise store_error(error) from error

    def fetch(self, statement: str, parameters: tuple[Any, ...]) -> Any:
        """The first row, or None. Raises StoreError. `run` for the one thing that is done at every request."""
        epoch = self._epoch
        try:
            cursor = self._take()
            try:
                row = cursor.execute(statement, parameters).fetchone()
            except BaseException as error:
                self._give(cursor, epoch if _recover(cursor.connection, error) else _NEVER)
                raise
            self._give(cursor, epoch)
            return row
        except sqlite3.Error as error:
            raise store_error(error) from error

    def close(self) -> None:
        self._epoch += 1
        self._close_idle()
        if self._forking:
            self._tell_fork()

    # Each step of these is one operation on a list or a set, so the usual way needs no lock.

    def _take(self) -> sqlite3.Cursor:
        if self._forking:
            self._wait_for_fork()
        if _monotonic() >= self._look_again:
            self._look()
        try:
            return self._idle.pop()  # or a fork, which may have begun since, has it
        except IndexError:
            return self._open()

    def _give(self, cursor: sqlite3.Cursor, epoch: int) -> None:
        """`epoch`: as it was before the cursor was taken."""
        if epoch == self._epoch and len(self._idle) < _IDLE:
            self._idle.append(cursor)
        else:
            self._close(cursor)
        if self._forking:
            self._tell_fork()

    def _close(self, cursor: sqlite3.Cursor) -> None:
        _close_all([cursor])
        self._opened.discard(cursor)  # not before: a fork must not come in between

    def _look(self) -> None:
        """Leave a file that was deleted or replaced: others do not see what is written to it any more."""
        self._look_again = _monotonic() + _LOOK
        if self._file is not None and _file(self._path) != self._file:
            self._file = None
            self.close()

    def _close_idle(self) -> None:
        while self._idle:
            try:
                self._close(self._idle.pop())
            except IndexError:  # another thread took the last one
                return

    def _wait_for_fork(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)

    def _tell_fork(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _open(self) -> sqlite3.Cursor:
        place = object()
        self._opened.add(place)  # announced first, asked afterwards: a fork that begins in between sees it, or is seen
        while self._forking:
            self._opened.discard(place)
            self._tell_fork()
            self._wait_for_fork()
            self._opened.add(place)
        try:
            cursor = self._connected().cursor()
            self._opened.add(cursor)
            return cursor
        finally:
            self._opened.discard(place)
            self._tell_fork()

    def _connected(self) -> sqlite3.Connection:
        with _creating:
            _create_private(self._path)
            connection = sqlite3.connect(
                self._path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._file = _file(self._path)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            self._switch_to_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        if connection.execute(_HAS_SCHEMA).fetchone()[0] < 2:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("COMMIT")

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite does not wait for other processes that switch at the same time, whatever the busy timeout is.
        for _ in range(int(self._busy_timeout / 0.005)):
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    raise
            Event().wait(0.005)
        connection.execute("PRAGMA journal_mode=WAL")

    def before_fork(self) -> None:
        with self._changed:
            self._forking = True
            self._changed.wait_for(self._is_closed, _FORK_WAIT)

    def _is_closed(self) -> bool:
        self._close_idle()
        return not self._opened

    def after_fork_in_parent(self) -> None:
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def _after_fork(self) -> None:
        self._changed = Condition(Lock())
        self._forking = False
        self._opened: set[object] = set()  # cursors, idle or in use, and the places of those to come

    after_fork_in_child = _after_fork


def store_error(error: sqlite3.Error) -> StoreError:
    """SQLite's own texts name tables and columns, never the file or a value."""
    kind = BusyError if _is_busy(error) else StoreError
    return kind(f"SQLite store: {error}")


def _is_busy(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def _recover(connection: sqlite3.Connection, error: BaseException) -> bool:
    """Roll back; False if the connection should not be used again."""
    try:
        if connection.in_transaction:
            connection.rollback()
    except sqlite3.Error:
        return False
    return not isinstance(error, sqlite3.Error) or _is_busy(error)


def _close_all(cursors: list[sqlite3.Cursor]) -> None:
    for cursor in cursors:
        try:
            cursor.connection.close()
        except sqlite3.Error:  # a broken file can't be closed well
            pass


def _file(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _create_private(path: str) -> None:
    """Make a new file readable by us alone; SQLite gives its companions (-wal, -shm) the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise StoreError(f"SQLite store: the directory {os.path.dirname(path)!r} does not exist") from None
    except OSError as error:
        raise StoreError(f"SQLite store: can't create the file: {error.strerror}") from None


# Creating and opening are one step for all threads: closing a second descriptor of a file drops this process's locks.
_creating = Lock()
_pools: WeakSet[SqlitePool] = WeakSet()


def _each_pool(method: str) -> None:
    for pool in tuple(_pools):
        getattr(pool, method)()


def _child() -> None:
    global _creating
    _creating = Lock()
    _each_pool("after_fork_in_child")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=partial(_each_pool, "before_fork"),
        after_in_parent=partial(_each_pool, "after_fork_in_parent"),
        after_in_child=_child,
    )
