"""The Redis store on event loops: shared connections, cancelled callers, loops that come and go."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.stores import put, record
from support.tls_proxy import tls_in_front_of
from support.valkey import Valkey
from unsticky.errors import StoreError
from unsticky.session.store import Applied
from unsticky.stores import open_async_store
from unsticky.testing import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.time()


def test_cancelled_callers_shift_no_reply(own_valkey: Valkey) -> None:
    """Two thousand operations cancelled at random moments: every other one gets its own session, on one connection."""
    rng = random.Random(5)

    async def main() -> None:
        store = open_async_store(own_valkey.url, clock=CLOCK, timeout=10.0)
        keys = [f"v1:{n}" for n in range(50)]
        for key in keys:
            await store.create(key, record(NOW, name=key.encode()))
        before = own_valkey.connections()

        async def check(key: str) -> None:
            loaded = await store.load(key)
            assert loaded is not None
            assert loaded.fields["name"] == key.encode()

        async def touch(key: str) -> None:
            assert await store.update(key, put(last=key.encode())) is Applied.APPLIED

        async def cancelled_soon(key: str) -> bool:
            task = asyncio.create_task(rng.choice((check, touch))(key))
            if moment := rng.randrange(4):
                await asyncio.sleep(rng.random() * 0.002 * moment)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
            return task.cancelled()

        stormed = 0
        for _ in range(20):
            jobs = [cancelled_soon(rng.choice(keys)) for _ in range(100)] + [check(rng.choice(keys)) for _ in range(50)]
            rng.shuffle(jobs)
            stormed += sum(one is True for one in await asyncio.gather(*jobs))
        assert stormed > 500
        await asyncio.gather(*(check(key) for key in keys))
        assert own_valkey.connections() - before == 1  # the one that asked before
        await store.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_callers_cancelled_while_connecting(own_valkey: Valkey, key: str) -> None:
    """Those who give up before the connection stands do not take it from the others."""

    async def main() -> None:
        store = open_async_store(own_valkey.url, clock=CLOCK, timeout=5.0)
        hasty = [asyncio.create_task(store.load(key)) for _ in range(10)]
        patient = asyncio.create_task(store.create(key, record(NOW)))
        await asyncio.sleep(0)
        for task in hasty:
            task.cancel()
        assert await patient
        await store.aclose()

    asyncio.run(main())


def test_a_server_killed_under_load(own_valkey: Valkey) -> None:
    """All that wait are told at once; the server back, the next operations work."""

    async def main() -> None:
        store = open_async_store(own_valkey.url, clock=CLOCK, timeout=5.0)
        with own_valkey.paused():
            waiting = [asyncio.create_task(store.load(f"v1:{n}")) for n in range(100)]
            writing = [asyncio.create_task(store.create(f"v1:{n}", record(NOW))) for n in range(100)]
            await asyncio.sleep(0.05)
            own_valkey.kill()
        started = time.monotonic()
        results = await asyncio.gather(*waiting, *writing, return_exceptions=True)
        assert all(isinstance(one, StoreError) for one in results)
        assert time.monotonic() - started < 1
        own_valkey.start()
        assert await store.create("v1:new", record(NOW))
        await store.aclose()

    asyncio.run(main())


def test_concurrent_callers_share_one_connection(own_valkey: Valkey) -> None:
    """Two hundred operations at once open one connection, and large ones do not mix with small ones."""

    async def main() -> None:
        store = open_async_store(own_valkey.url, clock=CLOCK, timeout=10.0)
        before = own_valkey.connections()
        values = [bytes([n % 256]) * (1 if n % 10 else 300_000) for n in range(200)]
        created = await asyncio.gather(*(store.create(f"v1:{n}", record(NOW, a=one)) for n, one in enumerate(values)))
        assert all(created)
        loaded = await asyncio.gather(*(store.load(f"v1:{n}") for n in range(200)))
        assert [one.fields["a"] if one else None for one in loaded] == values
        assert own_valkey.connections() - before == 2  # ours, and the one that asked before
        await store.aclose()

    asyncio.run(main())


def test_a_slow_loop_is_no_slow_server(valkey: Valkey, key: str) -> None:
    """An event loop that was busy for longer than the timeout reads the reply that waits before it gives up."""

    async def main() -> None:
        store = open_async_store(valkey.url, clock=CLOCK, timeout=0.1)
        await store.create(key, record(NOW))
        loads = [asyncio.create_task(store.load(key)) for _ in range(10)]
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 - the point of this test
        assert None not in await asyncio.gather(*loads)
        await store.aclose()

    asyncio.run(main())


def test_loops_in_threads_and_one_after_the_other(own_valkey: Valkey, key: str) -> None:
    """One object serves loops that run at the same time, and ones that follow each other; none leaves a connection."""
    store = open_async_store(own_valkey.url, clock=CLOCK, timeout=5.0)
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
    with own_valkey.client() as client:
        assert len(msgspec.msgpack.decode(client.get(f"unsticky:{key}"))[2]) == 4 * 40
        assert len(client.client_list()) == 1


def test_a_loop_closed_without_a_word(own_valkey: Valkey, key: str, caplog: pytest.LogCaptureFixture) -> None:
    """A loop closed around an open connection costs no warning, and the connection goes when the next loop comes."""
    store = open_async_store(own_valkey.url, clock=CLOCK, timeout=5.0)
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(store.load(key))
        loop.close()
        del loop
        gc.collect()

    async def last() -> None:
        await store.load(key)
        gc.collect()
        await store.aclose()

    asyncio.run(last())
    gc.collect()
    assert caplog.records == []
    with own_valkey.client() as client:
        assert len(client.client_list()) == 1


def test_closing_from_another_loop(own_valkey: Valkey, key: str) -> None:
    """`aclose` reaches the connections of loops in other threads."""
    store = open_async_store(own_valkey.url, clock=CLOCK, timeout=5.0)
    asked, closed = threading.Event(), threading.Event()

    async def ask() -> Any:
        await store.load(key)
        asked.set()
        await asyncio.to_thread(closed.wait, 10)
        await asyncio.sleep(0.01)
        with own_valkey.client() as client:
            return len(client.client_list())

    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(asyncio.run(ask())))
    thread.start()
    assert asked.wait(10)
    asyncio.run(store.aclose())
    closed.set()
    thread.join(10)
    assert seen == [1]


def test_tls_on_a_loop_closed_without_a_word(own_valkey: Valkey, key: str, tmp_path: Path) -> None:
    """The same as without TLS: no warning, no connection left."""
    with tls_in_front_of(own_valkey.port, tmp_path) as (port, trusted):
        url = f"valkeys://localhost:{port}?ssl_ca_certs={trusted}"
        store = open_async_store(url, clock=CLOCK, timeout=2.0)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(store.load(key))
        loop.close()
        asyncio.run(store.load(key))
        del loop
        gc.collect()
