"""Connections to Memcached, and a server in trouble."""

from __future__ import annotations

import asyncio
import gc
import socket
import traceback

import pytest

from support.memcached import NONSENSE, Memcached
from support.speaker import speaker
from support.stores import VERBS, face, put, record, within
from unsticky.errors import StoreError
from unsticky.session.store import Applied
from unsticky.stores import open_async_store
from unsticky.stores.memcached import AsyncMemcachedStore, MemcachedStore, item_key
from unsticky.stores.memcached_url import memcached_hosts
from unsticky.stores.record_bytes import to_bytes
from unsticky.testing import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.time()
TIMEOUT = 0.4
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@KINDS
@pytest.mark.parametrize("say", [*NONSENSE, b"", b"CLIENT_ERROR private\r\n", b"TOUCHED\r\n"], ids=repr)
def test_a_server_that_speaks_nonsense(key: str, kind: str, say: bytes) -> None:
    """Garbage, too many replies and a closed door are StoreErrors, never a session, and are not shown."""
    with speaker(lambda _: say) as port, face(kind, f"memcached://127.0.0.1:{port}", CLOCK, TIMEOUT) as store:
        for verb in (*VERBS[:3], VERBS[0]):
            with pytest.raises(StoreError) as caught:
                verb(store, key)
            shown = "".join(traceback.format_exception(caught.value))
            assert "private" not in shown
            assert key not in str(caught.value)


@KINDS
def test_a_reply_to_another_verb(key: str, kind: str) -> None:
    """A word of the protocol in the wrong place is a StoreError: STORED finds no session, DELETED stores none."""
    for say, verbs in ((b"STORED\r\n", (0, 2, 3)), (b"DELETED\r\n", (0, 1, 2)), (b"END\r\n", (1, 3))):
        with (
            speaker(lambda _, say=say: say) as port,  # type: ignore[misc]
            face(kind, f"memcached://127.0.0.1:{port}", CLOCK, TIMEOUT) as store,
        ):
            for verb in verbs:
                with pytest.raises(StoreError, match="refused"):
                    VERBS[verb](store, key)


@KINDS
def test_the_deadline_is_for_the_whole_verb(key: str, kind: str) -> None:
    """A server that sends a byte every now and then, always in time, does not hold a verb beyond its deadline."""
    endless = b"VALUE " + item_key(key) + b" 0 9999 1\r\n" + bytes(9999)
    with (
        speaker(lambda _: endless, pause=0.02) as port,
        face(kind, f"memcached://127.0.0.1:{port}", CLOCK, TIMEOUT) as store,
    ):
        for verb in VERBS[::2]:
            within(TIMEOUT + 0.3, lambda verb=verb: verb(store, key))  # type: ignore[misc]


@KINDS
def test_a_write_that_is_always_overtaken_ends(key: str, kind: str) -> None:
    """Where others win every round, update and create give up at their deadline."""
    packed = to_bytes(key, record(NOW, a=b"1"))
    found = b"VALUE %b 0 %d 7\r\n%b\r\nEND\r\n" % (item_key(key), len(packed), packed)

    def overtaken(data: bytes) -> bytes:
        return found if data.startswith(b"gets") else b"EXISTS\r\n"

    def comes_and_goes(data: bytes) -> bytes:
        return b"END\r\n" if data.startswith(b"gets") else b"NOT_STORED\r\n"

    for answer, verb in ((overtaken, VERBS[2]), (comes_and_goes, VERBS[1])):
        with speaker(answer) as port, face(kind, f"memcached://127.0.0.1:{port}", CLOCK, TIMEOUT) as store:
            within(TIMEOUT + 0.3, lambda verb=verb: verb(store, key))  # type: ignore[misc]


@KINDS
def test_nobody_listens(key: str, kind: str) -> None:
    """A refused connection is a StoreError at once that names the host, for every verb."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with face(kind, f"memcached://127.0.0.1:{port}", CLOCK, TIMEOUT) as store:
        for verb in VERBS:
            within(TIMEOUT, lambda verb=verb: verb(store, key))  # type: ignore[misc]
        with pytest.raises(StoreError, match=f"can't connect to 127.0.0.1:{port}: "):
            store.load(key)


@KINDS
def test_a_host_without_an_address(key: str, kind: str) -> None:
    """A name that does not resolve is a StoreError."""
    nowhere = pytest.raises(StoreError, match=r"can't connect to nowhere\.invalid:11211")
    with face(kind, "memcached://nowhere.invalid", CLOCK, 5.0) as store, nowhere:
        store.load(key)


@KINDS
def test_a_name_with_several_addresses(memcached: Memcached, key: str, kind: str) -> None:
    """localhost may be ::1 too, where nobody listens: the next address is tried."""
    with face(kind, f"memcached://localhost:{memcached.port}", CLOCK, TIMEOUT) as store:
        assert store.create(key, record(NOW))


@KINDS
def test_a_paused_server(own_memcached: Memcached, key: str, kind: str) -> None:
    """Every verb fails by its deadline, on a fresh connection and on a used one; afterwards the same object works."""
    url = own_memcached.url
    with face(kind, url, CLOCK, TIMEOUT) as used, face(kind, url, CLOCK, TIMEOUT) as fresh:
        used.create(key, record(NOW, a=b"1"))
        with own_memcached.paused():
            for verb in VERBS[:3]:
                within(TIMEOUT + 0.3, lambda verb=verb: verb(used, key))  # type: ignore[misc]
            within(TIMEOUT + 0.3, lambda: fresh.load(key))
        for store in (used, fresh):
            assert store.load(key) is not None
            assert store.update(key, put(b=b"2")) is Applied.APPLIED


@KINDS
def test_a_killed_server(own_memcached: Memcached, key: str, kind: str) -> None:
    """Killed, every verb fails at once; started again, every verb works at once, and the sessions are gone."""
    with face(kind, own_memcached.url, CLOCK, TIMEOUT) as store:
        store.create(key, record(NOW, a=b"1"))
        own_memcached.kill()
        for verb in VERBS:
            within(TIMEOUT, lambda verb=verb: verb(store, key))  # type: ignore[misc]
        own_memcached.start()
        assert store.update(key, put(a=b"2")) is Applied.GONE
        assert store.load(key) is None
        assert store.create(key, record(NOW, a=b"1"))


@KINDS
@pytest.mark.parametrize("verb", range(4), ids=["load", "create", "update", "delete"])
def test_a_restart_between_two_verbs_is_not_noticed(own_memcached: Memcached, key: str, kind: str, verb: int) -> None:
    """An idle connection that the server has closed costs no error, for writes neither: nothing was sent on it."""
    with face(kind, own_memcached.url, CLOCK, TIMEOUT) as store:
        store.load(key)
        own_memcached.kill()
        own_memcached.start()
        VERBS[verb](store, key)


@KINDS
@pytest.mark.parametrize(
    ("verb", "asked"), [(0, 2), (1, 1), (2, 2), (3, 2)], ids=["load", "create", "update", "delete"]
)
def test_only_what_changes_nothing_twice_is_repeated(key: str, kind: str, verb: int, asked: int) -> None:
    """The door is closed after a command was sent on a used connection: all but create ask once more, on a new one."""
    heard: list[bytes] = []

    def answer(data: bytes) -> bytes:
        heard.append(data)
        return b"END\r\n" if len(heard) == 1 else b""

    with speaker(answer) as port, face(kind, f"memcached://127.0.0.1:{port}", CLOCK, TIMEOUT) as store:
        assert store.load(key) is None
        within(TIMEOUT, lambda: VERBS[verb](store, key))
        assert len(heard) == 1 + asked


def test_threads_reuse_connections(own_memcached: Memcached, key: str) -> None:
    """A hundred operations of one thread use one connection."""
    with face("sync", own_memcached.url, CLOCK, TIMEOUT) as store:
        before = own_memcached.connections()
        for _ in range(100):
            store.load(key)
        assert own_memcached.connections() - before == 1


def test_a_late_reply_reaches_nobody(own_memcached: Memcached, key: str) -> None:
    """A thread that gave up takes its connection with it: the answer that comes at last is not the next one's."""
    with face("sync", own_memcached.url, CLOCK, TIMEOUT) as store:
        store.create(key, record(NOW, a=b"1"))
        store.create(f"{key}2", record(NOW, a=b"2"))
        with own_memcached.paused():
            within(TIMEOUT + 0.3, lambda: store.load(key))
        assert store.load(f"{key}2") == record(NOW, a=b"2")


def test_a_cancelled_caller_shifts_no_reply(own_memcached: Memcached, key: str) -> None:
    """Thirty tasks ask a server that stands still and are cancelled; when it goes on, each later task gets its own."""

    async def main() -> list[object]:
        store = open_async_store(own_memcached.url, clock=CLOCK, timeout=20.0)
        for n in range(30):
            await store.create(f"{key}{n}", record(NOW, a=b"%d" % n))
        with own_memcached.paused():
            tasks = [asyncio.ensure_future(store.load(f"{key}{n}")) for n in range(30)]
            await asyncio.wait(tasks, timeout=0.1)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        loaded = await asyncio.gather(*(store.load(f"{key}{n}") for n in reversed(range(30))))
        await store.aclose()
        return list(loaded)

    assert asyncio.run(main()) == [record(NOW, a=b"%d" % n) for n in reversed(range(30))]


def test_event_loops_one_after_another(own_memcached: Memcached, key: str) -> None:
    """An idle connection belongs to no loop: twenty short loops share one, and no ended loop is kept."""
    store = AsyncMemcachedStore(memcached_hosts(own_memcached.url), CLOCK, 5.0)
    before = own_memcached.connections()
    for _ in range(20):
        assert asyncio.run(store.load(key)) is None
    assert own_memcached.connections() - before == 1
    (server,) = store._servers.values()
    assert len(server._turns) == 1
    idle = list(server._idle)
    asyncio.run(store.aclose())
    assert [one.fileno() for one in idle] == [-1]


def test_a_store_that_is_dropped_closes_its_connections(own_memcached: Memcached, key: str) -> None:
    """Without close, too."""
    store = MemcachedStore(memcached_hosts(own_memcached.url), CLOCK, TIMEOUT)
    store.load(key)
    (server,) = store._servers.values()
    idle = list(server._idle)
    assert [one.fileno() >= 0 for one in idle] == [True]
    del store, server
    gc.collect()
    assert [one.fileno() for one in idle] == [-1]
