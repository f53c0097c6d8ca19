"""Getting at a Redis server: rights, TLS, deadlines while it is slow, forks, and what its settings say."""

from __future__ import annotations

import logging
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.redis_load import both
from support.stores import face, record
from support.tls_proxy import tls_in_front_of
from support.valkey import Valkey, running
from support.valkeys import Server, clustered, replicated, sentinel_url, watched
from unsticky.clock import SystemClock
from unsticky.errors import StoreError
from unsticky.session.store import Applied, Change

CLOCK = SystemClock()
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])

# The rights that the documentation names.
VERBS = "~unsticky:* +get +set +del +eval +evalsha"
SCAN, DATABASE, NAME, REPLICAS = "+scan", "+select", "+client|setname", "+wait"
SENTINEL, CLUSTER = "+role", "+cluster|slots +asking"


def use_all(url: str, timeout: float = 2.0) -> None:
    """Every verb and every branch of the scripts, by stores of both kinds."""
    with both(url, timeout) as stores:
        for key, store in stores.items():
            now = CLOCK.time()
            assert store.load(key) is None
            assert store.create(key, record(now - 99999, a=b"0"))
            assert store.create(key, record(now, a=b"1", b=b"2"))
            change = Change(
                generation=0,
                put={"c": b"3"},
                drop=frozenset({"a"}),
                expect={"b": b"2", "d": None},
                touched=now + 1,
                expires=now + 9999,
                owner="o",
                raise_generation=True,
            )
            assert store.update(key, change) is Applied.APPLIED
            gone = Change(generation=1, owner="", drop=frozenset({"b"}))
            assert store.update(key, gone) is Applied.APPLIED
            last = Change(generation=1, drop=frozenset({"c"}), delete_if_only="_")
            assert store.update(key, last) is Applied.EMPTIED
            store.delete(key)


def grant(server: Valkey | Server, *rights: str) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">s/cret", *" ".join(rights).split())


def test_a_user_with_few_rights(own_valkey: Valkey) -> None:
    """The documented rights are enough; INFO, which is not among them, is not missed."""
    grant(own_valkey, VERBS, SCAN, DATABASE, NAME)
    url = f"redis://app:s%2Fcret@127.0.0.1:{own_valkey.port}/3?client_name=shop"
    use_all(url)
    with face("sync", url, CLOCK, 2.0) as store:
        store.create("k", record(CLOCK.time()))
        assert [key for batch in store.store.scan() for key, _ in batch] == ["k"]


def test_no_right_is_superfluous(own_valkey: Valkey) -> None:
    """Without any one of them something is refused: StoreError, with no more than the code."""
    for right in VERBS.split()[1:]:
        with own_valkey.client() as client:
            client.execute_command("ACL", "DELUSER", "app")
            client.flushall()
            client.script_flush()
        grant(own_valkey, VERBS, f"-{right[1:]}")
        with pytest.raises(StoreError, match=r"refused the command \((NOPERM|ERR)\)"):
            use_all(f"redis://app:s%2Fcret@127.0.0.1:{own_valkey.port}")


def test_rights_over_tls(own_valkey: Valkey, tmp_path: Path) -> None:
    """Both at once; a wrong password is a StoreError that does not show it."""
    grant(own_valkey, VERBS)
    with tls_in_front_of(own_valkey.port, tmp_path) as (port, trusted):
        url = f"rediss://app:s%2Fcret@localhost:{port}?ssl_ca_certs={trusted}"
        use_all(url)
        use_all(url.replace("localhost", "127.0.0.1") + "&ssl_check_hostname=no")
        with both(url.replace("s%2Fcret", "hidden"), 2.0) as stores:
            for store in stores.values():
                with pytest.raises(StoreError, match="refused our name or password") as caught:
                    store.load("k")
                assert "hidden" not in str(caught.value)


def test_rights_behind_sentinel_and_with_replicas(tmp_path: Path) -> None:
    """ROLE and WAIT come on top."""
    with watched(tmp_path, 1, down_after=60_000) as (primary, _, sentinels):
        grant(primary, VERBS, REPLICAS, SENTINEL)
        use_all(sentinel_url(sentinels, "?wait_replicas=1&username=app&password=s/cret"))


def test_rights_in_a_cluster(tmp_path: Path) -> None:
    """CLUSTER SLOTS and ASKING come on top."""
    with clustered(tmp_path) as servers:
        for server in servers:
            grant(server, VERBS, CLUSTER)
        use_all(f"redis+cluster://app:s%2Fcret@{servers[0].address}")


@KINDS
@pytest.mark.parametrize(("policy", "warned"), [("allkeys-lru", True), ("volatile-ttl", True), ("noeviction", False)])
def test_a_server_that_evicts(
    own_valkey: Valkey, kind: str, policy: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, however many connections come; none if nothing is evicted."""
    caplog.set_level(logging.WARNING)
    with own_valkey.client() as client:
        client.config_set("maxmemory-policy", policy)
        with face(kind, own_valkey.url, CLOCK, 2.0) as store:
            for _ in range(3):
                store.load("k")
                client.client_kill_filter(_type="normal", skipme=True)
    assert len(caplog.records) == warned
    assert all(policy in one.getMessage() and one.name == "unsticky.stores" for one in caplog.records)


@contextmanager
def slow_lane(port: int, seconds: float) -> Iterator[int]:
    """A server in front of `port` that holds each piece of data for so long, in both directions."""
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def carry(peer: socket.socket) -> None:
        with peer, socket.create_connection(("127.0.0.1", port)) as behind, suppress(OSError):
            other = {peer: behind, behind: peer}
            while not stop.is_set():
                for one in select.select([peer, behind], [], [], 0.02)[0]:
                    data = one.recv(65536)
                    if not data or stop.wait(seconds):
                        return
                    other[one].sendall(data)

    def serve() -> None:
        with suppress(OSError):
            while True:
                peer = server.accept()[0]
                threads.append(threading.Thread(target=carry, args=(peer,)))
                threads[-1].start()

    threads = [threading.Thread(target=serve)]
    threads[0].start()
    try:
        yield server.getsockname()[1]
    finally:
        stop.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for thread in threads:
            thread.join(5)


@KINDS
def test_slow_in_every_step(own_valkey: Valkey, kind: str) -> None:
    """Greeting and command each in time, together not: the deadline is one for all. Then, connected, it is in time."""
    with own_valkey.client() as client:
        client.config_set("requirepass", "x")
    with slow_lane(own_valkey.port, 0.15) as port:
        with face(kind, f"redis://:x@127.0.0.1:{port}/1", CLOCK, 0.4) as store:
            started = time.monotonic()
            with pytest.raises(StoreError, match=r"in time|too long"):
                store.load("k")
            assert time.monotonic() - started < 0.5
        with face(kind, f"redis://:x@127.0.0.1:{port}/1", CLOCK, 1.5) as store:
            assert store.load("k") is None
            started = time.monotonic()
            assert store.load("k") is None
            assert time.monotonic() - started < 0.5


@KINDS
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_port_that_says_nothing(kind: str, scheme: str) -> None:
    """It accepts, and that is all: no greeting, no handshake. StoreError in time, and nothing is left open."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"{scheme}://:x@127.0.0.1:{server.getsockname()[1]}"
        with face(kind, url, CLOCK, 0.2) as store:
            started = time.monotonic()
            with pytest.raises(StoreError, match=r"in time|too long"):
                store.load("k")
            assert time.monotonic() - started < 0.4


@KINDS
def test_a_reply_that_drips(kind: str) -> None:
    """A byte now and then does not extend the deadline."""
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        peer, _ = server.accept()
        with peer, suppress(OSError):
            peer.recv(65536)
            while not stop.wait(0.05):
                peer.sendall(b"*")

    thread = threading.Thread(target=drip)
    thread.start()
    with face(kind, f"redis://127.0.0.1:{server.getsockname()[1]}", CLOCK, 0.3) as store:
        started = time.monotonic()
        with pytest.raises(StoreError):
            store.load("k")
        assert time.monotonic() - started < 0.5
    stop.set()
    thread.join(5)
    server.close()


@KINDS
def test_files_that_are_missing(kind: str, tmp_path: Path) -> None:
    """A certificate that is not there is a StoreError at the first verb."""
    url = f"rediss://127.0.0.1:1?ssl_ca_certs={tmp_path}/none.pem"
    with face(kind, url, CLOCK, 0.5) as store, pytest.raises(StoreError, match="TLS options can't be used"):
        store.load("k")


@KINDS
@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70, "a..b"])
def test_a_name_that_is_none(kind: str, host: str) -> None:
    """StoreError, in time."""
    with face(kind, f"redis://{host}", CLOCK, 2.0) as store, pytest.raises(StoreError):
        store.load("k")


def test_more_than_a_socket_holds(own_valkey: Valkey, tmp_path: Path) -> None:
    """A value that is sent and read in many pieces, plain and over TLS."""
    value = bytes(range(256)) * 50_000
    with tls_in_front_of(own_valkey.port, tmp_path) as (port, trusted):
        for url in (own_valkey.url, f"valkeys://localhost:{port}?ssl_ca_certs={trusted}"):
            with both(url, 20.0) as stores:
                for store in stores.values():
                    assert store.create("large", record(CLOCK.time(), a=value))
                    loaded = store.load("large")
                    assert loaded is not None
                    assert loaded.fields == {"a": value}
                    store.delete("large")


FORK = """
import asyncio, os, sys
from unsticky.clock import SystemClock
from unsticky.session.store import Change, Record
from unsticky.stores import open_async_store, open_store

url = sys.argv[1]
clock = SystemClock()
store, other = (kind(url, clock=clock, timeout=5.0) for kind in (open_store, open_async_store))
now = clock.time()
store.create("k", Record({}, now, now, now + 60))
loop = asyncio.new_event_loop()
loop.run_until_complete(other.load("k"))

def write(name):
    for n in range(100):
        store.update("k", Change(0, put={f"{name}-{n}": b"x"}))
        assert store.load("k").fields[f"{name}-{n}"] == b"x"

async def write_async(name):
    async def one(n):
        await other.update("k", Change(0, put={f"{name}-async-{n}": b"x"}))
    await asyncio.gather(*map(one, range(100)))

child = os.fork()
if child == 0:
    write("child")
    asyncio.run(write_async("child"))
    store.close()
    sys.stdout.flush()
    os._exit(0)
write("parent")
loop.run_until_complete(write_async("parent"))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
write("later")
loop.run_until_complete(other.aclose())
loop.close()
assert len(store.load("k").fields) == 500
store.close()
"""


def test_a_fork(own_valkey: Valkey) -> None:
    """Parent and child go on with the same objects, each over connections of its own, at the same time."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, own_valkey.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_that_close_and_use(own_valkey: Valkey) -> None:
    """A store that is closed again and again while threads use it gives each its own session."""
    failures: list[BaseException] = []
    stop = threading.Event()

    def work(name: str) -> None:
        try:
            with_name = {"name": name.encode()}
            store.create(name, record(CLOCK.time(), **with_name))
            while not stop.is_set():
                loaded = store.load(name)
                assert loaded is not None
                assert loaded.fields == with_name
        except BaseException as error:
            failures.append(error)

    with face("sync", own_valkey.url, CLOCK, 5.0) as store:
        threads = [threading.Thread(target=work, args=(f"v1:{n}",)) for n in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(300):
            store.close()
        stop.set()
        for thread in threads:
            thread.join(10)
    assert failures == []


def test_a_replica_by_its_own_url(tmp_path: Path) -> None:
    """Without sentinels nobody knows the primary: a write to a replica is a StoreError, not a success."""
    with replicated(tmp_path) as (_, replica), both(f"redis://{replica.address}", 1.0) as stores:
        for store in stores.values():
            with pytest.raises(StoreError, match=r"\(READONLY\)"):
                store.create("k", record(CLOCK.time()))


def test_a_server_of_a_cluster_by_its_own_url() -> None:
    """The error says what the URL has to be."""
    with running(**{"cluster-enabled": "yes"}) as server, both(server.url, 1.0) as stores:
        for store in stores.values():
            with pytest.raises(StoreError, match=r"CLUSTERDOWN|part of a cluster"):
                store.load("k")
