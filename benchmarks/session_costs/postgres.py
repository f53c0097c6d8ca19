"""PostgreSQL: a store's verbs beside a bare statement of the same size, from psycopg's own pool, autocommitted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg_pool

from session_costs.measure import COUNTED, SESSION, Effort, Figures, Work, interleaved, numbers, shown, timed
from unsticky.clock import SystemClock
from unsticky.session import codec
from unsticky.session.store import Change, Record
from unsticky.stores import open_async_store, open_store

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from support.postgres import Postgres, running

OURS, OURS_ASYNC, PEER, PEER_ASYNC = "unsticky", "unsticky async", "pooled psycopg", "pooled psycopg async"
DATA = json.dumps(SESSION).encode()
SELECT = "SELECT data FROM peer WHERE key = %s"
UPDATE = "UPDATE peer SET data = %s WHERE key = %s"
CLOCK = SystemClock()
Call = Callable[[], Any]


def run(effort: Effort, figures: Figures) -> None:
    """Measure the verbs of both kinds of store, and the peers'."""
    with running() as server, asyncio.Runner() as runner, ExitStack() as closers:
        # The tests' server writes all statements into its log; that would be measured too, and longer texts more so.
        server.rows("ALTER ROLE postgres SET log_statement = 'none'")
        server.rows("CREATE TABLE peer (key text PRIMARY KEY, data bytea)")
        server.rows("INSERT INTO peer VALUES ('key', %s)", DATA)
        works = [*_blocking(server, closers), *_on_a_loop(server, runner, closers)]
        for key, seconds in interleaved(works, effort, "postgres").items():
            figures.microseconds["postgres", *key] = seconds * 1e6
        _count(server, figures)


def _record() -> Record:
    now = CLOCK.time()
    return Record({name: codec.encode(value, name) for name, value in SESSION.items()}, now, now, now + 86400)


def _change() -> Change:
    now = CLOCK.time()
    return Change(generation=0, put={"count": codec.encode(next(numbers), "")}, touched=now, expires=now + 86400)


def _blocking(server: Postgres, closers: ExitStack) -> Iterator[Work]:
    store = closers.enter_context(closing(open_store(server.url, clock=CLOCK, timeout=5.0)))
    store.create("key", _record())
    options = {"autocommit": True}
    pool = closers.enter_context(psycopg_pool.ConnectionPool(server.url, min_size=1, max_size=4, kwargs=options))

    def select() -> object:
        with pool.connection() as connection:
            return connection.execute(SELECT, ("key",)).fetchone()

    def update() -> object:
        with pool.connection() as connection:
            return connection.execute(UPDATE, (DATA, "key"))

    yield Work(OURS, "read", _slice(lambda: store.load("key")))
    yield Work(OURS, "write", _slice(lambda: store.update("key", _change())))
    yield Work(PEER, "read", _slice(select))
    yield Work(PEER, "write", _slice(update))


def _slice(call: Call) -> Callable[[int], float]:
    return lambda amount: timed(call, amount)


def _on_a_loop(server: Postgres, runner: asyncio.Runner, closers: ExitStack) -> Iterator[Work]:
    store = open_async_store(server.url, clock=CLOCK, timeout=5.0)
    closers.callback(lambda: runner.run(store.aclose()))  # type: ignore[arg-type]
    pool = runner.run(_opened(server.url))
    closers.callback(lambda: runner.run(pool.close()))

    async def select() -> object:
        async with pool.connection() as connection:
            return await (await connection.execute(SELECT, ("key",))).fetchone()

    async def update() -> object:
        async with pool.connection() as connection:
            return await connection.execute(UPDATE, (DATA, "key"))

    def slice_of(call: Callable[[], Awaitable[object]]) -> Callable[[int], float]:
        return lambda amount: runner.run(_timed(call, amount))

    yield Work(OURS_ASYNC, "read", slice_of(lambda: store.load("key")))
    yield Work(OURS_ASYNC, "write", slice_of(lambda: store.update("key", _change())))
    yield Work(PEER_ASYNC, "read", slice_of(select))
    yield Work(PEER_ASYNC, "write", slice_of(update))


async def _opened(url: str) -> Any:
    pool: Any = psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=4, open=False, kwargs={"autocommit": True})
    await pool.open(wait=True)
    return pool


async def _timed(call: Callable[[], Awaitable[object]], amount: int) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    for _ in range(amount):
        await call()
    return loop.time() - started


def _count(server: Postgres, figures: Figures) -> None:
    """Statements per verb, as the server's log has them for a role of their own."""
    server.rows("CREATE ROLE counted SUPERUSER LOGIN")
    server.rows("ALTER ROLE counted SET log_statement = 'all'")
    with closing(open_store(server.url_for("counted"), clock=CLOCK, timeout=5.0)) as store:
        verbs: dict[str, Call] = {
            "read": lambda: store.load("key"),
            "write": lambda: store.update("key", _change()),
            "new": lambda: store.create(f"key {next(numbers)}", _record()),
        }
        for mode, call in verbs.items():
            call()  # connected and prepared now
            before = _logged(server)
            for _ in range(COUNTED):
                call()
            after = _logged(server)
            figures.trips["postgres", OURS, mode] = shown([("statement", after - before)], COUNTED)


def _logged(server: Postgres) -> int:
    """Statements that the log has so far; the server writes a statement's line before it runs it."""
    lines = server.log().splitlines()
    return sum(" statement: " in line or " execute " in line for line in lines if "LOG:" in line)
