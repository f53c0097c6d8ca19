"""What is special about the Redis store: its hash, its scripts, its connections, and a server in trouble."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from support.stores import Face, face, record
from support.tls_proxy import tls_in_front_of
from support.valkey import Valkey, running
from unsticky.errors import StoreError
from unsticky.session.store import Applied, Change
from unsticky.stores import open_async_store
from unsticky.testing import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.time()
TIMEOUT = 0.4
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
VERBS: list[Callable[[Face, str], object]] = [
    lambda store, key: store.load(key),
    lambda store, key: store.create(key, record(NOW)),
    lambda store, key: store.update(key, put(a=b"1")),
    lambda store, key: store.delete(key),
]


@pytest.fixture
def key() -> str:
    return f"v1:{uuid4().hex}"


def put(**fields: bytes) -> Change:
    return Change(generation=0, put=fields)


def within(seconds: float, verb: Callable[[], object]) -> None:
    """`verb` raises StoreError before `seconds` have passed."""
    started = time.monotonic()
    with pytest.raises(StoreError):
        verb()
    assert time.monotonic() - started < seconds


def connections(server: Valkey) -> int:
    """How many clients have connected since the server started, but for this one."""
    with server.client() as client:
        return int(client.info("stats")["total_connections_received"]) - 1


def test_the_hash(valkey: Valkey, key: str) -> None:
    """One hash under a prefix, readable for people with redis-cli, that the server forgets when the record expires."""
    with face("sync", valkey.url, CLOCK, TIMEOUT) as store, valkey.client() as client:
        store.create(key, record(NOW, cart=b"1"))
        kept = client.hgetall(f"unsticky:{key}")
        assert kept == {
            b"c": b"1700000000.0",
            b"t": b"1700000000.0",
            b"e": b"1700003600.0",
            b"g": b"0",
            b"k": key.encode(),
            b":cart": b"1",
        }
        assert 3590_000 < client.pttl(f"unsticky:{key}") <= 3600_000
        store.update(key, Change(generation=0, expires=NOW + 7200))
        assert 7190_000 < client.pttl(f"unsticky:{key}") <= 7200_000


@KINDS
def test_scripts_may_be_flushed(valkey: Valkey, key: str, kind: str) -> None:
    """SCRIPT FLUSH between any two verbs is not noticed."""
    with face(kind, valkey.url, CLOCK, TIMEOUT) as store, valkey.client() as client:
        for _ in range(2):
            client.script_flush()
            assert store.create(key, record(NOW, a=b"1"))
            client.script_flush()
            assert store.update(key, put(a=b"2")) is Applied.APPLIED
            assert store.load(key) == record(NOW, a=b"2")
            store.delete(key)


@KINDS
def test_a_strayed_reply_is_refused(valkey: Valkey, key: str, kind: str) -> None:
    """The record of another session is never accepted, wherever it came from."""
    with face(kind, valkey.url, CLOCK, TIMEOUT) as store, valkey.client() as client:
        store.create(key, record(NOW, a=b"1"))
        client.rename(f"unsticky:{key}", f"unsticky:{key}2")
        with pytest.raises(StoreError, match="another session"):
            store.load(f"{key}2")


@KINDS
@pytest.mark.parametrize("name", ["c", "t", "e", "g", "k"])
def test_a_damaged_record(valkey: Valkey, key: str, kind: str, name: str) -> None:
    """A hash without one of our own fields is a StoreError, not an absent session."""
    with face(kind, valkey.url, CLOCK, TIMEOUT) as store, valkey.client() as client:
        store.create(key, record(NOW, a=b"1"))
        client.hdel(f"unsticky:{key}", name)
        with pytest.raises(StoreError, match="damaged"):
            store.load(key)


@KINDS
def test_a_refused_command_shows_nothing(valkey: Valkey, kind: str) -> None:
    """Another type of value, or a right that is missing: StoreError without key, field or value, in the chain too."""
    key, value = "v1:very-private", b"also-private"
    with face(kind, valkey.url, CLOCK, TIMEOUT) as store, valkey.client() as client:
        client.set(f"unsticky:{key}", "text")
        for verb in (lambda: store.load(key), lambda: store.update(key, put(a=value))):
            with pytest.raises(StoreError) as caught:
                verb()
            assert "private" not in "".join(traceback.format_exception_only(caught.value))
            assert caught.value.__cause__ is None
        client.delete(f"unsticky:{key}")
        assert store.create(key, record(NOW))
        store.delete(key)


@KINDS
def test_a_server_without_memory(own_valkey: Valkey, key: str, kind: str) -> None:
    """Writes that need memory are refused whole; reading and deleting go on."""
    kept = record(NOW, a=b"1", b=b"2")
    with face(kind, own_valkey.url, CLOCK, TIMEOUT) as store, own_valkey.client() as client:
        store.create(key, kept)
        client.config_set("maxmemory", "1")
        change = Change(generation=0, put={"a": b"x"}, drop=frozenset({"b"}), raise_generation=True, owner="o")
        for verb in (lambda: store.update(key, change), lambda: store.create(f"{key}2", kept)):
            with pytest.raises(StoreError, match=r"\(OOM\)"):
                verb()
        assert store.load(key) == kept
        assert store.load(f"{key}2") is None
        store.delete(key)
        assert store.load(key) is None


@KINDS
def test_a_password(key: str, kind: str) -> None:
    """The right one works; a wrong or missing one is a StoreError that shows neither."""
    with running() as server:
        with server.client() as client:
            client.config_set("requirepass", "right/secret")
        address = f"127.0.0.1:{server.port}/0"
        with face(kind, f"redis://:right%2Fsecret@{address}", CLOCK, TIMEOUT) as store:
            assert store.create(key, record(NOW))
        for url in (
            f"redis://:wrong-secret@{address}",
            f"redis://somebody:wrong-secret@{address}",
            f"redis://{address}",
        ):
            with face(kind, url, CLOCK, TIMEOUT) as store:
                with pytest.raises(StoreError) as caught:
                    store.load(key)
                assert "secret" not in "".join(traceback.format_exception(caught.value, limit=0))


@KINDS
def test_databases_and_names(valkey: Valkey, key: str, kind: str) -> None:
    """The URL's database is selected, and the client's name is set."""
    url = valkey.url.removesuffix("/0") + "/3?client_name=shop"
    with face(kind, url, CLOCK, TIMEOUT) as store, valkey.client(db=3) as client:
        store.create(key, record(NOW))
        assert client.exists(f"unsticky:{key}")
        assert "shop" in {one["name"] for one in client.client_list()}


@KINDS
def test_nobody_listens(key: str, kind: str) -> None:
    """A refused connection is a StoreError at once, for every verb."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with face(kind, f"redis://127.0.0.1:{port}", CLOCK, TIMEOUT) as store:
        for verb in VERBS:
            within(TIMEOUT, lambda verb=verb: verb(store, key))  # type: ignore[misc]


@KINDS
def test_a_paused_server(own_valkey: Valkey, key: str, kind: str) -> None:
    """Every verb fails by its deadline, on a fresh connection and on a used one; afterwards the same object works."""
    with face(kind, own_valkey.url, CLOCK, TIMEOUT) as used, face(kind, own_valkey.url, CLOCK, TIMEOUT) as fresh:
        used.create(key, record(NOW, a=b"1"))
        with own_valkey.paused():
            for verb in VERBS[:3]:
                within(TIMEOUT + 0.2, lambda verb=verb: verb(used, key))  # type: ignore[misc]
            within(TIMEOUT + 0.2, lambda: fresh.load(key))
        for store in (used, fresh):
            assert store.load(key) is not None
            assert store.update(key, put(b=b"2")) is Applied.APPLIED


@KINDS
def test_a_killed_server(own_valkey: Valkey, key: str, kind: str) -> None:
    """Killed, every verb fails at once; started again, every verb works at once on the same object."""
    with face(kind, own_valkey.url, CLOCK, TIMEOUT) as store:
        store.create(key, record(NOW, a=b"1"))
        own_valkey.kill()
        for verb in VERBS:
            within(TIMEOUT, lambda verb=verb: verb(store, key))  # type: ignore[misc]
        own_valkey.start()
        assert store.load(key) is None
        assert store.create(key, record(NOW, a=b"1"))


@KINDS
@pytest.mark.parametrize("verb", range(4), ids=["load", "create", "update", "delete"])
def test_a_restart_between_two_verbs_is_not_noticed(own_valkey: Valkey, key: str, kind: str, verb: int) -> None:
    """An idle connection that the server has closed costs no error, for writes neither: nothing was sent on it."""
    with face(kind, own_valkey.url, CLOCK, TIMEOUT) as store:
        store.load(key)
        own_valkey.kill()
        own_valkey.start()
        VERBS[verb](store, key)


@KINDS
def test_clients_that_the_server_drops(own_valkey: Valkey, key: str, kind: str) -> None:
    """CLIENT KILL between two writes, fifty times: each write counts, and counts once."""
    with face(kind, own_valkey.url, CLOCK, TIMEOUT) as store, own_valkey.client() as client:
        store.create(key, record(NOW))
        for n in range(50):
            change = Change(generation=n, put={"n": b"%d" % n}, raise_generation=True)
            assert store.update(key, change) is Applied.APPLIED
            client.client_kill_filter(_type="normal", skipme=True)
        loaded = store.load(key)
        assert loaded is not None
        assert loaded.generation == 50


@contextmanager
def speaker(say: bytes) -> Iterator[int]:
    """A server that answers whatever it is sent with `say`, and hangs up if that is empty."""
    server = socket.create_server(("127.0.0.1", 0))

    def talk(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            while say and peer.recv(65536):
                peer.sendall(say)

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


@KINDS
@pytest.mark.parametrize(
    "say",
    [b"HTTP/1.1 400 private\r\n\r\n", b"$x\r\n", b"*2\r\n*1\r\n", b"", b"+OK\r\n+OK\r\n+OK\r\n", b":7\r\n" * 9],
    ids=repr,
)
def test_a_server_that_speaks_nonsense(key: str, kind: str, say: bytes) -> None:
    """Garbage, too many replies, replies of another form and a closed door are StoreErrors, and never a session."""
    with speaker(say) as port, face(kind, f"redis://127.0.0.1:{port}", CLOCK, TIMEOUT) as store:
        for verb in (*VERBS[:3], VERBS[0]):
            with pytest.raises(StoreError) as caught:
                verb(store, key)
            assert "private" not in str(caught.value)


def test_cancelled_callers_shift_no_reply(own_valkey: Valkey) -> None:
    """Two thousand operations cancelled at random moments: every other one gets its own session, on one connection."""
    rng = random.Random(5)

    async def main() -> None:
        store = open_async_store(own_valkey.url, clock=CLOCK, timeout=10.0)
        keys = [f"v1:{n}" for n in range(50)]
        for key in keys:
            await store.create(key, record(NOW, name=key.encode()))
        before = connections(own_valkey)

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
        assert connections(own_valkey) - before == 1  # the one that asked before
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
        before = connections(own_valkey)
        values = [bytes([n % 256]) * (1 if n % 10 else 300_000) for n in range(200)]
        created = await asyncio.gather(*(store.create(f"v1:{n}", record(NOW, a=one)) for n, one in enumerate(values)))
        assert all(created)
        loaded = await asyncio.gather(*(store.load(f"v1:{n}") for n in range(200)))
        assert [one.fields["a"] if one else None for one in loaded] == values
        assert connections(own_valkey) - before == 2  # ours, and the one that asked before
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
        assert len(client.hkeys(f"unsticky:{key}")) == 5 + 4 * 40
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


def test_threads_reuse_connections(own_valkey: Valkey, key: str) -> None:
    """A hundred operations of one thread use one connection."""
    with face("sync", own_valkey.url, CLOCK, TIMEOUT) as store:
        before = connections(own_valkey)
        for _ in range(100):
            store.load(key)
        assert connections(own_valkey) - before == 2  # ours, and the one that asked before


@KINDS
def test_tls(own_valkey: Valkey, key: str, kind: str, tmp_path: Path) -> None:
    """Over TLS all is the same; a certificate that is not trusted, or is for another host, is a StoreError."""
    with tls_in_front_of(own_valkey.port, tmp_path) as (port, trusted):
        url = f"valkeys://localhost:{port}?ssl_ca_certs={trusted}"
        with face(kind, url, CLOCK, 2.0) as store:
            assert store.create(key, record(NOW, a=bytes(300_000)))
            for n in range(20):
                assert store.update(key, put(n=b"%d" % n)) is Applied.APPLIED
            loaded = store.load(key)
            assert loaded is not None
            assert loaded.fields == {"a": bytes(300_000), "n": b"19"}
            with own_valkey.client() as client:
                client.client_kill_filter(_type="normal", skipme=True)
            assert store.load(key) == loaded
        for wrong in (f"rediss://localhost:{port}", url.replace("localhost", "127.0.0.1")):
            with face(kind, wrong, CLOCK, 2.0) as store, pytest.raises(StoreError):
                store.load(key)
        unchecked = f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none"
        with face(kind, unchecked, CLOCK, 2.0) as store:
            assert store.load(key) == loaded


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
