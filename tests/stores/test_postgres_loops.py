"""The PostgreSQL store on event loops: cancelled callers, few connections for many tasks, loops that come and go."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from typing import Any

import psycopg
import pytest

from support.postgres import Postgres
from support.stores import put, record
from support.waiting import eventually
from unsticky.errors import StoreError
from unsticky.session.store import Applied
from unsticky.stores import open_async_store
from unsticky.stores.postgres import AsyncPostgresStore
from unsticky.testing import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.time()


def opened(server: Postgres, timeout: float = 10.0, options: str = "") -> AsyncPostgresStore:
    store = open_async_store(server.url + options, clock=CLOCK, timeout=timeout)
    assert isinstance(store, AsyncPostgresStore)
    return store


def accounted(store: AsyncPostgresStore) -> bool:
    """No conversation runs, and every connection is either idle or may still be made."""
    pool = store._pool._here()
    return not pool._drives and not pool._waiters and pool._free + len(pool._idle) == store._pool._size


def test_a_storm_of_cancelled_callers(own_postgres: Postgres) -> None:
    """Three thousand operations cancelled at random: each other one gets its own session, no connection is lost."""
    rng = random.Random(7)

    async def main() -> None:
        store = opened(own_postgres, options="?pool_size=4")
        keys = [f"v1:{n}" for n in range(50)]
        for key in keys:
            await store.create(key, record(NOW, name=key.encode()))

        async def check(key: str) -> None:
            loaded = await store.load(key)
            assert loaded is not None
            assert loaded.fields["name"] == key.encode()

        async def touch(key: str) -> None:
            assert await store.update(key, put(last=key.encode())) is Applied.APPLIED

        async def cancelled_soon(key: str) -> bool:
            task = asyncio.create_task(rng.choice((check, touch))(key))
            if moment := rng.randrange(4):
                await asyncio.sleep(rng.random() * 0.005 * moment)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
            return task.cancelled()

        stormed = 0
        for _ in range(20):
            jobs = [cancelled_soon(rng.choice(keys)) for _ in range(150)] + [check(rng.choice(keys)) for _ in range(50)]
            rng.shuffle(jobs)
            stormed += sum(one is True for one in await asyncio.gather(*jobs))
        assert stormed > 500
        await asyncio.gather(*(check(key) for key in keys))
        assert accounted(store)
        assert own_postgres.connections() <= 4
        await store.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_cancelled_caller_costs_no_connection(own_postgres: Postgres, key: str) -> None:
    """What it asked goes on unobserved, and its connection is given back, the same one."""

    async def main() -> None:
        store = opened(own_postgres, options="?pool_size=1")
        await store.create(key, record(NOW))
        pool = store._pool._here()
        before = pool._idle[0].pgconn.backend_pid
        for _ in range(20):
            task = asyncio.create_task(store.load(key))
            await asyncio.sleep(0)
            assert len(pool._drives) == 1
            task.cancel()
            await asyncio.wait([task])
            assert await store.load(key) == record(NOW)
        assert [one.pgconn.backend_pid for one in pool._idle] == [before]
        await store.aclose()

    asyncio.run(main())


def test_callers_cancelled_while_connecting(own_postgres: Postgres, key: str) -> None:
    """At any step of it: those who are left get their connections, and the pool knows of each."""

    async def main() -> None:
        for moment in range(8):
            store = opened(own_postgres, 5.0, "?pool_size=3")
            hasty = [asyncio.create_task(store.load(key)) for _ in range(10)]
            patient = [asyncio.create_task(store.load(key)) for _ in range(3)]
            for _ in range(moment):
                await asyncio.sleep(0.001)
            for task in hasty:
                task.cancel()
            assert await asyncio.gather(*patient) == [None] * 3
            while not accounted(store):  # noqa: ASYNC110 - there is no event for that
                await asyncio.sleep(0.001)
            await store.aclose()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_callers_cancelled_in_the_resolver(own_postgres: Postgres, key: str) -> None:
    """A name is looked up in a thread; who gives up meanwhile leaves its place to the others."""

    async def main() -> None:
        url = own_postgres.url.replace("127.0.0.1", "localhost") + "?pool_size=1"
        store = open_async_store(url, clock=CLOCK, timeout=5.0)
        assert isinstance(store, AsyncPostgresStore)
        for _ in range(3):
            task = asyncio.create_task(store.load(key))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert await store.load(key) is None
        assert accounted(store)
        await store.aclose()

    asyncio.run(main())


def test_many_tasks_share_few_connections(own_postgres: Postgres) -> None:
    """Three hundred at once on three connections, in the order in which they came, large values among small ones."""

    async def main() -> None:
        store = opened(own_postgres, 30.0, "?pool_size=3")
        values = [bytes([n % 256]) * (1 if n % 10 else 300_000) for n in range(300)]
        assert all(await asyncio.gather(*(store.create(f"v1:{n}", record(NOW, a=v)) for n, v in enumerate(values))))
        loaded = await asyncio.gather(*(store.load(f"v1:{n}") for n in range(300)))
        assert [one.fields["a"] if one else None for one in loaded] == values
        assert own_postgres.connections() == 3
        assert accounted(store)
        await store.aclose()

    asyncio.run(main())


def test_tasks_wait_for_a_connection_no_longer_than_their_deadline(own_postgres: Postgres, key: str) -> None:
    """While one connection is stuck, those who queue for it fail in time, and the queue is empty afterwards."""

    async def main() -> None:
        store = opened(own_postgres, 1.0, "?pool_size=1")
        await store.create(key, record(NOW))
        with psycopg.connect(own_postgres.url) as other:
            other.execute("LOCK TABLE unsticky_sessions")
            started = time.monotonic()
            results = await asyncio.gather(*(store.load(key) for _ in range(20)), return_exceptions=True)
            assert time.monotonic() - started < 1.6
        assert {type(one).__name__ for one in results} <= {"RefusedError", "LateError"}
        assert accounted(store)
        assert await store.load(key) == record(NOW)
        await store.aclose()

    asyncio.run(main())


def test_a_server_killed_under_load(own_postgres: Postgres) -> None:
    """All that wait are told at once; the server back, the next operations work."""

    async def main() -> None:
        store = opened(own_postgres, 5.0)
        await store.load("v1:0")
        with own_postgres.paused():
            waiting = [asyncio.create_task(store.load(f"v1:{n}")) for n in range(50)]
            writing = [asyncio.create_task(store.create(f"v1:{n}", record(NOW))) for n in range(50)]
            await asyncio.sleep(0.05)
            own_postgres.kill()
        started = time.monotonic()
        results = await asyncio.gather(*waiting, *writing, return_exceptions=True)
        assert all(isinstance(one, StoreError) for one in results)
        assert time.monotonic() - started < 1
        assert accounted(store)
        own_postgres.start()
        assert await store.create("v1:new", record(NOW))
        await store.aclose()

    asyncio.run(main())


def test_a_slow_loop_is_no_slow_server(postgres: Postgres, key: str) -> None:
    """An event loop that was busy for longer than the timeout reads the reply that waits before it gives up."""

    async def main() -> None:
        store = opened(postgres, 0.2)
        await store.create(key, record(NOW))
        load = asyncio.create_task(store.load(key))
        await asyncio.sleep(0)
        time.sleep(0.4)  # noqa: ASYNC251 - the point of this test
        assert await load == record(NOW)
        await store.aclose()

    asyncio.run(main())


def test_loops_in_threads_and_one_after_the_other(own_postgres: Postgres, key: str) -> None:
    """One object serves loops that run at the same time, and ones that follow each other; the last cleans up."""
    store = opened(own_postgres, 10.0, "?pool_size=3")
    failures: list[BaseException] = []
    asyncio.run(store.create(key, record(NOW)))

    async def main(name: int) -> None:
        done = await asyncio.gather(*(store.update(key, put(**{f"{name} {n}": b"x"})) for n in range(20)))
        assert done == [Applied.APPLIED] * 20

    def run(name: int) -> None:
        try:
            asyncio.run(main(name))
            asyncio.run(main(name + 100))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []

    async def last() -> int:
        loaded = await store.load(key)
        assert eventually(lambda: own_postgres.connections() == 1)
        await store.aclose()
        assert loaded is not None
        return len(loaded.fields)

    assert asyncio.run(last()) == 4 * 40
    assert eventually(lambda: own_postgres.connections() == 0)


def test_a_loop_closed_without_a_word(own_postgres: Postgres, key: str, caplog: pytest.LogCaptureFixture) -> None:
    """A loop closed around idle and busy connections costs no warning; they go when the next loop comes."""
    store = opened(own_postgres, 5.0)
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(store.load(key))
        with own_postgres.paused():
            task = loop.create_task(store.load(key))
            loop.run_until_complete(asyncio.sleep(0))
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.close()
        del loop, task
        gc.collect()

    async def last() -> None:
        await store.load(key)
        gc.collect()
        await store.aclose()

    asyncio.run(last())
    gc.collect()
    assert caplog.records == []
    assert eventually(lambda: own_postgres.connections() == 0)


def test_closing_from_another_loop(own_postgres: Postgres, key: str) -> None:
    """`aclose` reaches the connections of loops in other threads."""
    store = opened(own_postgres, 5.0)
    asked, closed = threading.Event(), threading.Event()

    async def ask() -> Any:
        await store.load(key)
        asked.set()
        await asyncio.to_thread(closed.wait, 10)
        return await asyncio.to_thread(eventually, lambda: own_postgres.connections() == 0)

    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(asyncio.run(ask())))
    thread.start()
    assert asked.wait(10)
    asyncio.run(store.aclose())
    closed.set()
    thread.join(20)
    assert seen == [True]


def test_closing_while_it_is_asked(own_postgres: Postgres, key: str) -> None:
    """Those who wait get their answers; their connections are not kept."""

    async def main() -> None:
        store = opened(own_postgres, 5.0)
        await store.create(key, record(NOW))
        loads = [asyncio.create_task(store.load(key)) for _ in range(30)]
        await asyncio.sleep(0)
        await store.aclose()
        assert await asyncio.gather(*loads) == [record(NOW)] * 30
        await store.aclose()
        await asyncio.to_thread(eventually, lambda: own_postgres.connections() == 0)

    asyncio.run(main())


def test_a_caller_cancelled_in_the_tick_in_which_it_was_served(own_postgres: Postgres, key: str) -> None:
    """The connection that a queue or a handshake has just handed over is not lost with the caller."""

    async def main() -> None:
        store, loop = opened(own_postgres, options="?pool_size=1"), asyncio.get_running_loop()
        await store.load(key)
        pool = store._pool._here()
        for moment in ("_pass_on", "_connected"):
            original, tasks = getattr(pool, moment), list[asyncio.Task[Any]]()

            def served(*arguments: Any, original: Any = original, tasks: list[asyncio.Task[Any]] = tasks) -> None:
                loop.call_soon(tasks[-1].cancel)  # before the caller hears of it
                original(*arguments)

            if moment == "_connected":
                pool._drop_idle()
            setattr(pool, moment, served)
            tasks += [asyncio.create_task(store.load(key)) for _ in range(2 if moment == "_pass_on" else 1)]
            await asyncio.wait(tasks)
            setattr(pool, moment, original)
            assert tasks[-1].cancelled()
            assert accounted(store)
            assert await store.load(key) is None
        await store.aclose()

    asyncio.run(main())
