"""The Redis store behind Sentinel: real servers, real sentinels, real failovers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.redis_load import both, load, lost
from support.stores import Face, face, record
from support.valkeys import NAME, Server, sentinel_url, watched
from support.waiting import eventually
from unsticky.clock import SystemClock
from unsticky.errors import StoreError
from unsticky.session.store import Applied, Change

CLOCK = SystemClock()
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
Watched = tuple[Server, Server, list[Server]]


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A primary, a replica and one sentinel, for tests that harm none of them for long."""
    with watched(tmp_path_factory.mktemp("valkeys"), 1) as servers:
        yield servers


def test_a_primary_killed_under_load(tmp_path: Path) -> None:
    """Writers with `wait_replicas=1` lose nothing that was acknowledged; all recover without a restart."""
    with watched(tmp_path, 3) as (primary, replica, sentinels), ExitStack() as stack:
        sentinels[0].kill()  # the one that is asked first
        url = sentinel_url(sentinels)
        sure = stack.enter_context(load(url + "?wait_replicas=1", 0.25))
        plain = stack.enter_context(load(url, 0.25))
        sure.goes_on()
        plain.goes_on()
        primary.kill()
        killed = time.monotonic()
        plain.goes_on()
        assert time.monotonic() - killed < 10
        for one in sentinels[1:]:  # another failover now, to a replica that has no data yet, would lose all: in docs
            one.ask("SENTINEL", "SET", NAME, "down-after-milliseconds", 60_000)
        primary.start("--replicaof", f"127.0.0.1 {replica.port}")  # only now a replica can acknowledge again
        sure.goes_on()
        stack.close()
        assert lost(sure, url) == []
        assert any("not acknowledged" in text for log in sure.logs for _, text in log.errors)
        assert max(log.slowest for log in sure.logs + plain.logs) < 4 * 0.25 + 0.75


def test_a_planned_failover(tmp_path: Path) -> None:
    """The old primary goes on as if nothing had happened for ten seconds; the stores leave it after one."""
    with watched(tmp_path, 1) as (primary, replica, sentinels), both(sentinel_url(sentinels), 0.5) as stores:
        for name, store in stores.items():
            assert store.create(name, record(CLOCK.time(), a=b"1"))
        sentinels[0].ask("SENTINEL", "FAILOVER", NAME)
        sentinel = sentinels[0]
        eventually(lambda: sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1] == b"%d" % replica.port)
        change = Change(generation=0, put={"b": b"2"})
        for name, store in stores.items():

            def written(name: str = name, store: Face = store) -> bool:
                store.update(name, change)
                return "b" in replica.fields(name)

            eventually(written, 3)
            loaded = store.load(name)
            assert loaded is not None
            assert loaded.fields == {"a": b"1", "b": b"2"}
        assert primary.info("replication")["role"] == "master"


def test_readonly_is_repeated_on_the_primary(tmp_path: Path) -> None:
    """A store that believes in what became a replica: its write is refused there, and applied elsewhere, no error."""
    with watched(tmp_path, 1) as (primary, replica, sentinels), both(sentinel_url(sentinels), 5.0) as stores:
        for name, store in stores.items():
            assert store.create(name, record(CLOCK.time()))
        sentinels[0].kill()  # nobody closes our connections, as a sentinel would
        replica.ask("REPLICAOF", "NO", "ONE")
        primary.ask("REPLICAOF", "127.0.0.1", replica.port)
        (sentinels[0].folder / "server.conf").write_text(f"sentinel monitor {NAME} 127.0.0.1 {replica.port} 1\n")
        sentinels[0].start()
        for name, store in stores.items():
            assert store.update(name, Change(generation=0, put={"b": b"2"})) is Applied.APPLIED
            assert replica.fields(name)["b"] == b"2"


def test_who_is_no_primary_is_not_used(tmp_path: Path) -> None:
    """The sentinels name a server that says it is a replica: StoreError, within the deadline."""
    with watched(tmp_path, 1) as (primary, replica, sentinels), both(sentinel_url(sentinels), 0.3) as stores:
        sentinels[0].ask("SENTINEL", "SET", NAME, "down-after-milliseconds", 60_000)
        primary.ask("REPLICAOF", "127.0.0.1", replica.port)
        for name, store in stores.items():
            started = time.monotonic()
            with pytest.raises(StoreError, match="is no primary"):
                store.load(name)
            assert time.monotonic() - started < 0.5


@KINDS
def test_a_sentinel_that_hangs(trio: Watched, tmp_path: Path, key: str, kind: str) -> None:
    """It costs a part of the deadline, not all of it; afterwards the one that answers is asked first."""
    _, _, sentinels = trio
    hung = Server(tmp_path)
    try:
        with hung.paused(), face(kind, sentinel_url([hung, *sentinels]), CLOCK, 0.5) as store:
            assert store.create(key, record(CLOCK.time()))
    finally:
        hung.kill()


@KINDS
def test_a_primary_that_hangs(trio: Watched, key: str, kind: str) -> None:
    """Verbs end by their deadline, on open connections and new ones; then the same object works."""
    primary, _, sentinels = trio
    sentinels[0].ask("SENTINEL", "SET", NAME, "down-after-milliseconds", 60_000)
    url = sentinel_url(sentinels)
    with face(kind, url, CLOCK, 0.3) as used, face(kind, url, CLOCK, 0.3) as fresh:
        used.create(key, record(CLOCK.time()))
        with primary.paused():
            for store in (used, used, fresh):
                started = time.monotonic()
                with pytest.raises(StoreError):
                    store.load(key)
                assert time.monotonic() - started < 0.5
        for store in (used, fresh):
            assert store.load(key) is not None


@KINDS
def test_a_name_that_nobody_knows(trio: Watched, key: str, kind: str) -> None:
    """StoreError, in time, that says so."""
    _, _, sentinels = trio
    url = sentinel_url(sentinels).replace(NAME, "nobody")
    with face(kind, url, CLOCK, 0.2) as store, pytest.raises(StoreError, match="know no primary of this name"):
        store.load(key)


@KINDS
def test_credentials(tmp_path: Path, key: str, kind: str) -> None:
    """The servers' and the sentinels' own are told apart; a wrong one is a StoreError that does not show it."""
    with ExitStack() as stack:
        server = Server(tmp_path)
        stack.callback(server.kill)
        server.ask("CONFIG", "SET", "requirepass", "right")
        text = f"sentinel monitor {NAME} 127.0.0.1 {server.port} 1\nsentinel auth-pass {NAME} right\n"
        sentinel = Server(tmp_path, "--sentinel", configuration=text)
        stack.callback(sentinel.kill)
        sentinel.ask("ACL", "SETUSER", "app", "on", ">sesame", "+sentinel|get-master-addr-by-name")
        sentinel.ask("ACL", "SETUSER", "default", "off")
        address = f"127.0.0.1:{sentinel.port}/{NAME}"
        good = f"redis+sentinel://:right@{address}?sentinel_username=app&sentinel_password=sesame"
        with face(kind, good, CLOCK, 2.0) as store:
            assert store.create(key, record(CLOCK.time()))
        for bad in (good.replace("right", "hidden"), good.replace("sesame", "hidden"), good.partition("?")[0]):
            with face(kind, bad, CLOCK, 0.2) as store, pytest.raises(StoreError) as caught:
                store.load(key)
            assert "hidden" not in str(caught.value)
