"""`wait_replicas`: what is acknowledged is on a replica, and what is not says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from support.redis_load import CLOCK, both
from support.stores import put, record
from support.valkeys import Server, replicated
from unsticky.errors import StoreError
from unsticky.session.store import Applied
from unsticky.stores import open_async_store

TIMEOUT = 0.4


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    with replicated(tmp_path_factory.mktemp("pair")) as servers:
        yield servers


def url(primary: Server, replicas: int = 1) -> str:
    return f"valkey://{primary.address}?wait_replicas={replicas}"


def test_an_acknowledged_write_is_on_the_replica(pair: tuple[Server, Server], key: str) -> None:
    """Each verb, as soon as it returns."""
    primary, replica = pair
    with both(url(primary), TIMEOUT) as stores:
        for name, store in stores.items():
            assert store.create(key + name, record(CLOCK.time()))
            assert replica.ask("EXISTS", f"unsticky:{key}{name}")
            assert store.update(key + name, put(a=b"1")) is Applied.APPLIED
            assert replica.fields(f"{key}{name}") == {"a": b"1"}
            store.delete(key + name)
            assert not replica.ask("EXISTS", f"unsticky:{key}{name}")


def test_a_replica_that_hangs(pair: tuple[Server, Server], key: str) -> None:
    """Every write fails in time, says that it may be applied, and is; reading goes on as before."""
    primary, replica = pair
    with both(url(primary), TIMEOUT) as stores:
        for name, store in stores.items():
            store.create(key + name, record(CLOCK.time()))
        with replica.paused():
            for name, store in stores.items():
                for verb in (
                    lambda store=store, name=name: store.create(f"{key}{name}2", record(CLOCK.time())),
                    lambda store=store, name=name: store.update(key + name, put(a=b"1")),
                    lambda store=store, name=name: store.delete(f"{key}{name}2"),
                    # What is deleted already may still be on the replica: this must wait for it as well.
                    lambda store=store, name=name: store.delete(f"{key}{name}2"),
                ):
                    started = time.monotonic()
                    with pytest.raises(StoreError, match=r"not acknowledged: 0 of 1 replicas have it \(it may be"):
                        verb()
                    assert time.monotonic() - started < TIMEOUT + 0.1
                started = time.monotonic()
                loaded = store.load(key + name)
                assert loaded is not None
                assert loaded.fields == {"a": b"1"}
                assert time.monotonic() - started < 0.2


def test_more_replicas_than_there_are(pair: tuple[Server, Server], key: str) -> None:
    """They never acknowledge."""
    primary, _ = pair
    with both(url(primary, 2), 1.0) as stores:
        for store in stores.values():
            with pytest.raises(StoreError, match="1 of 2 replicas"):
                store.create(f"{key}{id(store)}", record(CLOCK.time()))


def test_readers_do_not_wait_for_writers(pair: tuple[Server, Server], key: str) -> None:
    """On an event loop a load is answered while writes wait for a replica that hangs."""
    primary, replica = pair

    async def main() -> None:
        store = open_async_store(url(primary), clock=CLOCK, timeout=1.0)
        keys = [f"{key}-{number}" for number in range(10)]  # those of one record take turns
        for one in (key, *keys):
            await store.create(one, record(CLOCK.time()))
        with replica.paused():
            writing = [asyncio.create_task(store.update(one, put(a=b"1"))) for one in keys]
            await asyncio.sleep(0.05)
            started = time.monotonic()
            assert await store.load(key) is not None
            assert time.monotonic() - started < 0.3
            writing[0].cancel()  # it shares the WAIT with the others
            results = await asyncio.gather(*writing, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert all("not acknowledged" in str(one) for one in results[1:])
        await store.aclose()

    asyncio.run(main())


def test_writers_of_one_tick_share_a_wait(pair: tuple[Server, Server], key: str) -> None:
    """Two hundred writes at once: one WAIT, not two hundred, one after the other."""
    primary, _ = pair

    async def main() -> None:
        store = open_async_store(url(primary), clock=CLOCK, timeout=5.0)
        await asyncio.gather(*(store.create(f"{key}{n}", record(CLOCK.time())) for n in range(200)))
        before = _waits(primary)
        done = await asyncio.gather(*(store.update(f"{key}{n}", put(a=b"x")) for n in range(200)))
        assert done == [Applied.APPLIED] * 200
        # Once more for those that had to send their script whole.
        assert _waits(primary) - before <= 2
        await store.aclose()

    asyncio.run(main())


def _waits(server: Server) -> int:
    return int(server.info("commandstats").get("cmdstat_wait", {}).get("calls", 0))
