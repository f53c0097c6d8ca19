"""Sessions in one SQLite file, for all processes of one host.

One row per session, its fields as one msgpack map: a session is read whole, so one lookup and one decode are all that
a load costs, and a write rewrites about a kilobyte. The file is in WAL mode: readers never wait for a writer.
`synchronous=NORMAL`: a power cut can lose the last writes but never damages the file; a killed process loses nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from ..clock import Clock
from ..errors import DamagedRecord
from ..session.store import APPLIED, Applied, Change, Record
from .merge import check_names, merge
from .sqlite_pool import BusyError, SqlitePool
from .sqlite_writer import GroupWriter
from .urls import sqlite_path

_LOOP_PATIENCE = 0.005  # seconds that an event loop's thread may wait for another writer

_SELECT = "SELECT fields, created, touched, expires, owner, generation FROM unsticky_sessions WHERE key = ?"
_PAGE = """SELECT key, fields, created, touched, expires, owner, generation FROM unsticky_sessions
    WHERE key > ? ORDER BY key LIMIT ?"""
_INSERT = """INSERT INTO unsticky_sessions (key, fields, created, touched, expires, owner, generation)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET fields = excluded.fields, created = excluded.created,
    touched = excluded.touched, expires = excluded.expires, owner = excluded.owner, generation = excluded.generation
    WHERE unsticky_sessions.expires <= ?"""
_UPDATE = "UPDATE unsticky_sessions SET fields = ?, touched = ?, expires = ?, owner = ?, generation = ? WHERE key = ?"
_UNCHANGED = " AND fields = ? AND touched = ? AND expires = ? AND owner IS ? AND generation = ?"
_UPDATE_UNCHANGED = _UPDATE + _UNCHANGED
# A column with an index costs a third more, even where its value stays; and one that is not set need not be compared.
_UPDATE_FIELDS = """UPDATE unsticky_sessions SET fields = ?
    WHERE key = ? AND fields = ? AND expires = ? AND generation = ?"""
_DELETE = "DELETE FROM unsticky_sessions WHERE key = ?"
_PURGE = """DELETE FROM unsticky_sessions WHERE key IN
    (SELECT key FROM unsticky_sessions WHERE expires <= ? ORDER BY expires LIMIT ?)"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, bytes]).decode


def open_store(url: str, clock: Clock, timeout: float) -> SqliteStore:
    return SqliteStore(sqlite_path(url), clock, timeout)


def open_async_store(url: str, clock: Clock, timeout: float) -> AsyncSqliteStore:
    return AsyncSqliteStore(sqlite_path(url), clock, timeout)


class SqliteStore:
    """A Store, Purgeable, Scannable. A verb waits at most `timeout` seconds for other writers."""

    local = True

    def __init__(self, path: str, clock: Clock, timeout: float) -> None:
        self._now = clock.time
        self._pool = SqlitePool(path, timeout)

    def load(self, key: str) -> Record | None:
        return _record(self._pool.fetch(_SELECT, (key,)), self._now())

    def create(self, key: str, record: Record) -> bool:
        check_names(record.fields)
        return self._pool.run(_create, key, record, self._now())

    def update(self, key: str, change: Change) -> Applied:
        now = self._now()
        if change.base is not None and self._pool.run(_update_unchanged, key, change, change.base, now):
            return APPLIED
        check_names(change.put, change.drop, change.expect)
        applied: Applied = self._pool.run(_in_transaction, _update, key, change, now)
        return applied

    def delete(self, key: str) -> None:
        self._pool.run(_delete, key)

    def purge(self, limit: int = 1000) -> int:
        return self._pool.run(_purge, self._now(), limit)

    def scan(self, batch: int = 500) -> Iterator[list[tuple[str, Record]]]:
        after = ""  # no key is empty
        while rows := self._pool.run(_page, after, batch):
            now, after = self._now(), rows[-1][0]
            yield [(key, record) for key, *row in rows if (record := _readable(row, now)) is not None]

    def close(self) -> None:
        self._pool.close()


class AsyncSqliteStore:
    """An AsyncStore, ImmediateLoad, Purgeable (`purge` blocks: for a thread).

    A verb runs on the loop's own thread, which costs a fifth of a trip through another one. Only a write that finds
    the file busy for 5 ms moves to the store's own thread, and the ones after it follow until that has caught up.
    """

    local = True

    def __init__(self, path: str, clock: Clock, timeout: float) -> None:
        self._now = clock.time
        self._pool = SqlitePool(path, min(timeout, _LOOP_PATIENCE))
        self._tries = max(1, int(timeout / _LOOP_PATIENCE))
        self._writer = GroupWriter(self._pool, timeout)
        self._patient = SqliteStore(path, clock, timeout)

    def load_now(self, key: str) -> Record | None:
        try:
            return _record(self._pool.fetch(_SELECT, (key,)), self._now())
        except BusyError:  # rare: another process recovers the file after a crash, or makes it
            return self._load_patiently(key)

    def _load_patiently(self, key: str) -> Record | None:
        for _ in range(self._tries - 2):
            try:
                return _record(self._pool.fetch(_SELECT, (key,)), self._now())
            except BusyError:
                continue
        return _record(self._pool.fetch(_SELECT, (key,)), self._now())

    async def load(self, key: str) -> Record | None:
        return self.load_now(key)

    async def create(self, key: str, record: Record) -> bool:
        check_names(record.fields)
        created: bool = await self._write(_create, key, record, self._now())
        return created

    async def update(self, key: str, change: Change) -> Applied:
        now = self._now()
        if change.base is not None and not self._writer.active:
            try:
                if self._pool.run(_update_unchanged, key, change, change.base, now):
                    return APPLIED
            except BusyError:
                pass
        check_names(change.put, change.drop, change.expect)
        applied: Applied = await self._write(_update, key, change, now)
        return applied

    async def delete(self, key: str) -> None:
        await self._write(_delete, key)

    def purge(self, limit: int = 1000) -> int:
        return self._patient.purge(limit)

    async def aclose(self) -> None:
        self._pool.close()
        self._patient.close()

    async def _write(self, work: Callable[..., Any], *args: Any) -> Any:
        if not self._writer.active:  # else it would wait here for our own thread
            try:
                return self._pool.run(_in_transaction, work, *args)
            except BusyError:
                pass
        return await self._writer.submit(work, *args)


def _record(row: Sequence[Any] | None, now: float) -> Record | None:
    """The row's record; None if there is none, or it has expired. Raises DamagedRecord."""
    if row is None:
        return None
    fields, created, touched, expires, owner, generation = row
    if expires <= now:
        return None
    try:
        return Record(_decode(fields), created, touched, expires, owner, generation, fields)
    except (msgspec.DecodeError, TypeError):
        raise DamagedRecord("SQLite store: a record is damaged") from None


def _page(cursor: sqlite3.Cursor, after: str, batch: int) -> list[tuple[Any, ...]]:
    return cursor.execute(_PAGE, (after, batch)).fetchall()


def _readable(row: Sequence[Any], now: float) -> Record | None:
    try:
        return _record(row, now)
    except (DamagedRecord, TypeError):
        return None


def _in_transaction(cursor: sqlite3.Cursor, work: Callable[..., Any], *args: Any) -> Any:
    cursor.execute("BEGIN IMMEDIATE")
    result = work(cursor, *args)
    cursor.execute("COMMIT")
    return result


def _create(cursor: sqlite3.Cursor, key: str, record: Record, now: float) -> bool:
    row = (record.created, record.touched, record.expires, record.owner or None, record.generation)
    return cursor.execute(_INSERT, (key, _encode(record.fields), *row, now)).rowcount == 1


def _update(cursor: sqlite3.Cursor, key: str, change: Change, now: float) -> Applied:
    row = cursor.execute(_SELECT, (key,)).fetchone()
    applied, record = merge(_record(row, now), change, now)
    if record is not None:
        values = (_encode(record.fields), record.touched, record.expires, record.owner, record.generation)
        cursor.execute(_UPDATE, (*values, key))
    elif applied is Applied.EMPTIED:
        cursor.execute(_DELETE, (key,))
    return applied


def _update_unchanged(cursor: sqlite3.Cursor, key: str, change: Change, base: Record, now: float) -> bool:
    """In one statement, if the row still holds what was loaded; False, and nothing written, if it does not."""
    if change.after is None:  # else the names in it are good: they came out of a store, or are encoded below
        check_names(change.put, change.drop, change.expect)
    applied, record = merge(base, change, now)
    if applied is not APPLIED or record is None:
        return False
    fields, kept = _encode(record.fields), base.packed or _encode(base.fields)
    if change.touched is None and change.expires is None and change.owner is None and not change.raise_generation:
        return cursor.execute(_UPDATE_FIELDS, (fields, key, kept, base.expires, base.generation)).rowcount == 1
    row = (fields, *_columns(record), key, kept, *_columns(base))
    return cursor.execute(_UPDATE_UNCHANGED, row).rowcount == 1


def _columns(record: Record) -> tuple[Any, ...]:
    return record.touched, record.expires, record.owner, record.generation


def _delete(cursor: sqlite3.Cursor, key: str) -> None:
    cursor.execute(_DELETE, (key,))


def _purge(cursor: sqlite3.Cursor, now: float, limit: int) -> int:
    return cursor.execute(_PURGE, (now, limit)).rowcount
