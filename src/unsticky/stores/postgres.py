"""Sessions in PostgreSQL, for threads and for event loops.

`postgres_sql.py` has the table and what is said about it: one statement for a load, a create, a delete and an
ordinary update, none in a transaction of ours. `postgres_wire.py` says it through libpq, `postgres_pool.py` and
`postgres_loops.py` hold the connections.

The table is looked for once per process and store, before the first verb, and made if it is not there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..clock import Clock, SystemClock
from ..errors import StoreError
from ..session.store import Applied, Change, Record
from . import postgres_sql as sql
from .merge import check_names
from .postgres_loops import AsyncPostgresPool
from .postgres_pool import PostgresPool
from .postgres_sql import Statements, Steps, Table
from .postgres_url import PostgresTarget, postgres_target
from .postgres_values import readable
from .postgres_wire import Row

T = TypeVar("T")

_MIGRATING = 60.0  # seconds that `migrate` may take


def open_store(url: str, clock: Clock, timeout: float) -> PostgresStore:
    return PostgresStore(postgres_target(url), clock, timeout)


def open_async_store(url: str, clock: Clock, timeout: float) -> AsyncPostgresStore:
    return AsyncPostgresStore(postgres_target(url), clock, timeout)


class PostgresStore:
    """A Store, Purgeable, Scannable, Migratable. A verb takes at most `timeout` seconds, connecting included."""

    def __init__(self, target: PostgresTarget, clock: Clock, timeout: float) -> None:
        self._target, self._clock, self._timeout = target, clock, timeout
        self._table = Table(target)
        self._pool = PostgresPool(target, timeout)

    def load(self, key: str) -> Record | None:
        now = self._clock.time()
        return self._run(lambda table: sql.load(table, key, now))

    def create(self, key: str, record: Record) -> bool:
        check_names(record.fields, [record.owner or ""])
        now = self._clock.time()
        return self._run(lambda table: sql.create(table, key, record, now))

    def update(self, key: str, change: Change) -> Applied:
        check_names(change.put, change.drop, change.expect, [change.owner or ""])
        now = self._clock.time()
        return self._run(lambda table: sql.update(table, key, change, now))

    def delete(self, key: str) -> None:
        self._run(lambda table: sql.delete(table, key))

    def purge(self, limit: int = 1000) -> int:
        """In batches, each with the store's deadline. What another one is purging or writing is left to it."""
        now, deleted = self._clock.time(), 0
        while deleted < limit:
            wanted = min(limit - deleted, sql.PURGED_AT_ONCE)
            found = self._purge_batch(now, wanted)
            deleted += found
            if found < wanted:
                break
        return deleted

    def scan(self, batch: int = 500) -> Iterator[list[tuple[str, Record]]]:
        after = b""
        while rows := self._page(after, batch):
            if found := readable(rows):
                yield found
            after = rows[-1][0] or b""

    def migrate(self) -> list[str]:
        """Make the table and its schema, as a role that may. Takes at most a minute."""
        pool, deadline = PostgresPool(self._target, _MIGRATING), SystemClock.monotonic() + _MIGRATING
        try:
            made = _drive(sql.prepare(self._table.statements), pool, deadline)
        finally:
            pool.close()
        return [f"Created the table {self._table.statements.table}."] if made else []

    def close(self) -> None:
        self._pool.close()

    def _purge_batch(self, now: float, limit: int) -> int:
        return len(self._run(lambda table: sql.rows_of(table.purge(now, limit))))

    def _page(self, after: bytes, batch: int) -> list[Row]:
        now = self._clock.time()
        return self._run(lambda table: sql.rows_of(table.scan(after, now, batch)))

    def _run(self, make: Callable[[Statements], Steps[T]]) -> T:
        return _drive(self._table.verb(make), self._pool, SystemClock.monotonic() + self._timeout)


def _drive(steps: Steps[T], pool: PostgresPool, deadline: float) -> T:
    try:
        asked = next(steps)
        while True:
            try:
                rows = pool.ask(asked, deadline)
            except StoreError as error:
                asked = steps.throw(error)
            else:
                asked = steps.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


class AsyncPostgresStore:
    """An AsyncStore, Purgeable (`purge` blocks: for a thread). A verb takes at most `timeout` seconds in all."""

    def __init__(self, target: PostgresTarget, clock: Clock, timeout: float) -> None:
        self._clock, self._timeout = clock, timeout
        self._table = Table(target)
        self._pool = AsyncPostgresPool(target, timeout)
        self._blocking = PostgresStore(target, clock, timeout)

    async def load(self, key: str) -> Record | None:
        now = self._clock.time()
        return await self._run(lambda table: sql.load(table, key, now))

    async def create(self, key: str, record: Record) -> bool:
        check_names(record.fields, [record.owner or ""])
        now = self._clock.time()
        return await self._run(lambda table: sql.create(table, key, record, now))

    async def update(self, key: str, change: Change) -> Applied:
        check_names(change.put, change.drop, change.expect, [change.owner or ""])
        now = self._clock.time()
        return await self._run(lambda table: sql.update(table, key, change, now))

    async def delete(self, key: str) -> None:
        await self._run(lambda table: sql.delete(table, key))

    def purge(self, limit: int = 1000) -> int:
        return self._blocking.purge(limit)

    async def aclose(self) -> None:
        self._pool.close()
        self._blocking.close()

    async def _run(self, make: Callable[[Statements], Steps[T]]) -> T:
        deadline = asyncio.get_running_loop().time() + self._timeout
        steps = self._table.verb(make)
        try:
            asked = next(steps)
            while True:
                try:
                    rows = await self._pool.ask(asked, deadline)
                except StoreError as error:
                    asked = steps.throw(error)
                else:
                    asked = steps.send(rows)
        except StopIteration as stop:
            result: T = stop.value
            return result
