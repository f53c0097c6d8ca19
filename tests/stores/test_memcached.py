"""What is special about the Memcached store: its item, its numbers for expiry, what is forgotten and what refused."""

from __future__ import annotations

import asyncio
import math
from base64 import urlsafe_b64encode
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from uuid import uuid4

import msgspec
import pytest

from support.memcached import Memcached, running
from support.stores import face, put, record
from unsticky.clock import SystemClock
from unsticky.errors import DamagedRecord, StoreError
from unsticky.session.store import Applied, Change
from unsticky.stores import open_async_store, open_store
from unsticky.stores.memcached import exptime, item_key, server_of
from unsticky.stores.memcached_url import memcached_hosts
from unsticky.testing import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.time()
TIMEOUT = 2.0
DAY = 86400
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


def seconds_left(server: Memcached, key: str) -> int:
    """What the server says; -1 is for ever."""
    with server.client() as client:
        reply: bytes = client.raw_command(b"mg " + item_key(key) + b" t")
    return int(reply.removeprefix(b"HD t"))


def test_the_item(memcached: Memcached, key: str) -> None:
    """One item per session under a prefix: a list that begins with its version and its key."""
    with face("sync", memcached.url, CLOCK, TIMEOUT) as store, memcached.client() as client:
        store.create(key, replace(record(NOW, cart=b"1"), owner="u"))
        kept = msgspec.msgpack.decode(client.get(f"unsticky:{key}"))
        assert kept == [1, key, {"cart": b"1"}, NOW, NOW, NOW + 3600, "u", 0]
        assert 3599 <= seconds_left(memcached, key) <= 3601
        store.update(key, Change(generation=0, expires=NOW + 7200))
        assert 7199 <= seconds_left(memcached, key) <= 7201


@pytest.mark.parametrize("days", [0.0001, 29, 29.99999, 30, 30.00001, 31, 400])
def test_the_server_keeps_an_item_as_long_as_the_record_lives(memcached: Memcached, key: str, days: float) -> None:
    """On both sides of thirty days, where Memcached starts to take the number for a time of day."""
    with face("sync", memcached.url, CLOCK, TIMEOUT) as store:
        store.create(key, replace(record(NOW), expires=NOW + days * DAY))
        assert days * DAY - 1 <= seconds_left(memcached, key) <= days * DAY + 4
        assert store.load(key) is not None


@pytest.mark.parametrize("expires", [1e13, math.inf, 2.0**31 + 1e9])
def test_what_ends_after_2038_is_kept_for_ever(memcached: Memcached, key: str, expires: float) -> None:
    """The server reads 31 bits; a larger number would end at once."""
    with face("sync", memcached.url, CLOCK, TIMEOUT) as store:
        store.create(key, replace(record(NOW), expires=expires))
        assert seconds_left(memcached, key) == -1


@pytest.mark.parametrize(
    ("left", "wanted"), [(-5.0, 2), (0.0, 2), (0.2, 2), (59.0, 60), (30 * DAY - 2.0, 30 * DAY - 1)]
)
def test_a_short_life_is_relative(left: float, wanted: int) -> None:
    """A second more than is left, never 0 or less, which would mean for ever or now; never over thirty days."""
    assert exptime(left) == wanted


def test_a_long_life_is_a_time_of_day() -> None:
    """Up to the last second that fits."""
    now = SystemClock.time()
    assert 0 <= exptime(31 * DAY) - (now + 31 * DAY) <= 5
    assert exptime(2**31 - now - 60) <= 2**31 - 1
    assert exptime(2**31 - now + 60) == 0


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "\n", "\0", "\x7f", "x" * 242, "v1:" + "é" * 200])
def test_a_key_that_memcached_can_not_hold_is_hashed(key: str) -> None:
    """And one that it can is readable."""
    if key:
        hashed = b"unsticky#" + urlsafe_b64encode(sha256(key.encode()).digest())
        assert item_key(key) == hashed
        assert len(hashed) < 250
    assert item_key("v1:" + "A-_" * 14) == b"unsticky:v1:" + b"A-_" * 14
    assert len(item_key("x" * 241)) == 250


@KINDS
def test_a_strayed_record_is_refused(memcached: Memcached, key: str, kind: str) -> None:
    """The record of another session is never accepted, wherever it came from."""
    with face(kind, memcached.url, CLOCK, TIMEOUT) as store, memcached.client() as client:
        store.create(key, record(NOW, a=b"1"))
        client.set(f"unsticky:{key}2", client.get(f"unsticky:{key}"))
        for verb in (store.load, lambda other: store.update(other, put(a=b"2"))):
            with pytest.raises(StoreError, match="another session"):
                verb(f"{key}2")  # type: ignore[operator]


@KINDS
@pytest.mark.parametrize(
    "value", [b"private", b"\x90", b"\x91\x01", msgspec.msgpack.encode([2, "k", {}, 1.0, 1.0, 9e9, None, 0]), b"\xc1"]
)
def test_a_damaged_record(memcached: Memcached, key: str, kind: str, value: bytes) -> None:
    """What we can't have written is a DamagedRecord, not an absent session, and is not shown; it can be deleted."""
    with face(kind, memcached.url, CLOCK, TIMEOUT) as store, memcached.client() as client:
        client.set(f"unsticky:{key}", value)
        for verb in (
            lambda: store.load(key),
            lambda: store.update(key, put(a=b"1")),
            lambda: store.create(key, record(NOW)),
        ):
            with pytest.raises(DamagedRecord) as caught:
                verb()
            assert "private" not in str(caught.value)
        store.delete(key)
        assert store.create(key, record(NOW))


@KINDS
def test_a_record_over_a_megabyte(memcached: Memcached, key: str, kind: str) -> None:
    """The error names the limit, what was there stays as it was, and the store goes on."""
    kept = record(NOW, a=bytes(600_000))
    with face(kind, memcached.url, CLOCK, TIMEOUT) as store:
        assert store.create(key, kept)
        for verb in (
            lambda: store.update(key, put(b=bytes(600_000))),
            lambda: store.create(f"{key}2", record(NOW, a=bytes(5_000_000))),
        ):
            with pytest.raises(StoreError, match=r"a record of .*,... bytes is over .* 1 MB unless .* -I"):
                verb()
        assert store.load(key) == kept
        assert store.load(f"{key}2") is None
        assert store.update(key, put(a=b"small")) is Applied.APPLIED


@KINDS
def test_a_server_with_a_larger_limit(key: str, kind: str) -> None:
    """Started with -I, it takes what others refuse."""
    with running("-I", "8m") as server, face(kind, server.url, CLOCK, TIMEOUT) as store:
        kept = record(NOW, a=bytes(5_000_000))
        assert store.create(key, kept)
        assert store.update(key, put(b=b"1")) is Applied.APPLIED
        assert store.load(key) == record(NOW, a=bytes(5_000_000), b=b"1")


@KINDS
def test_a_server_without_memory(key: str, kind: str) -> None:
    """Started with -M it refuses instead of forgetting: StoreError, and all that was acknowledged is there."""
    with running("-M", "-m", "4") as server, face(kind, server.url, CLOCK, TIMEOUT) as store:
        acknowledged: list[str] = []

        def fill() -> None:
            for n in range(1000):
                assert store.create(f"{key}{n}", record(NOW, a=bytes(100_000)))
                acknowledged.append(f"{key}{n}")

        with pytest.raises(StoreError, match="out of memory"):
            fill()
        assert acknowledged
        for one in acknowledged:
            assert store.load(one) == record(NOW, a=bytes(100_000))


@KINDS
def test_what_was_evicted_is_absent(key: str, kind: str) -> None:
    """A full server forgets old sessions: they are absent and GONE, no error and nothing half there."""
    with running("-m", "4") as server, face(kind, server.url, CLOCK, TIMEOUT) as store:
        written = 0
        while server.stat("evictions") < 50:  # only what nobody reads is evicted, so nothing is read meanwhile
            for _ in range(100):
                assert store.create(f"{key}{written}", record(NOW, a=bytes(10_000)))
                written += 1
        gone = [n for n in range(written) if store.load(f"{key}{n}") is None]
        assert gone
        assert store.update(f"{key}{gone[0]}", put(a=b"1")) is Applied.GONE
        assert store.load(f"{key}{gone[0]}") is None
        assert store.create(f"{key}{gone[0]}", record(NOW))


@KINDS
def test_what_was_flushed_is_absent(own_memcached: Memcached, key: str, kind: str) -> None:
    """After flush_all every session is absent, and late writes bring none back."""
    with face(kind, own_memcached.url, CLOCK, TIMEOUT) as store, own_memcached.client() as client:
        store.create(key, record(NOW, a=b"1"))
        client.flush_all()
        assert store.load(key) is None
        assert store.update(key, put(a=b"1")) is Applied.GONE
        assert store.create(key, record(NOW, a=b"2"))


@KINDS
def test_a_server_without_cas(key: str, kind: str) -> None:
    """Started with -C it would accept every write, and lose updates: the store refuses to go on."""
    with running("-C") as server, face(kind, server.url, CLOCK, TIMEOUT) as store:
        store.create(key, record(NOW, a=b"1"))
        with pytest.raises(StoreError, match=r"without CAS \(-C\)"):
            store.update(key, put(a=b"2"))
        assert store.load(key) == record(NOW, a=b"1")


@KINDS
def test_an_emptied_session_leaves_nothing(memcached: Memcached, key: str, kind: str) -> None:
    """It is deleted by a cas that expires at once; a server that kept the empty item would have it taken for absent."""
    with face(kind, memcached.url, CLOCK, TIMEOUT) as store, memcached.client() as client:
        store.create(key, record(NOW, a=b"1"))
        assert store.update(key, Change(0, drop=frozenset({"a"}), delete_if_only="~")) is Applied.EMPTIED
        assert client.get(f"unsticky:{key}") is None
        client.set(f"unsticky:{key}", b"")
        assert store.load(key) is None
        assert store.update(key, put(a=b"1")) is Applied.GONE
        assert store.create(key, record(NOW, a=b"2"))
        assert store.load(key) == record(NOW, a=b"2")


def test_it_may_evict() -> None:
    """Both stores say so: lists of an owner's sessions are not trusted to them."""
    for opened in (open_store, open_async_store):
        assert opened("memcached://", clock=CLOCK, timeout=1.0).may_evict is True  # type: ignore[union-attr]


def test_where_a_key_is_stays_the_same() -> None:
    """In every release: replicas of two versions must look in the same place during a deploy."""
    hosts = {host: str(host) for host in memcached_hosts("memcached://a,b:11212,[::1]")}
    assert "".join(server_of(hosts, f"v1:{n}")[0] for n in range(12)) == "[[b[[bbaa[[b"


def test_a_new_server_takes_its_share_from_all() -> None:
    """A key stays where it was, or goes to the new server."""
    three = {host: host for host in memcached_hosts("memcached://a,b,c")}
    four = {host: host for host in memcached_hosts("memcached://d,c,b,a")}
    keys = [f"v1:{n}" for n in range(2000)]
    moved = [(server_of(three, key), server_of(four, key)) for key in keys]
    moved = [(old, new) for old, new in moved if old != new]
    assert {new.host for _, new in moved} == {"d"}
    assert 400 < len(moved) < 600
    assert min(Counter(old for old, _ in moved).values()) > 100


@KINDS
def test_several_servers_share_the_keys(kind: str) -> None:
    """Each key is on one server, the same for every order of the hosts, and about as many on each."""
    keys = [f"v1:{uuid4().hex}" for _ in range(300)]
    with running() as one, running() as two, running() as three:
        hosts = [f"127.0.0.1:{server.port}" for server in (one, two, three)]
        with (
            face(kind, f"memcached://{','.join(hosts)}", CLOCK, TIMEOUT) as store,
            face(kind, f"memcached://{','.join(reversed(hosts))}", CLOCK, TIMEOUT) as other,
        ):
            for key in keys:
                assert store.create(key, record(NOW, a=key.encode()))
            for key in keys:
                assert other.load(key) == record(NOW, a=key.encode())
            counts = [server.stat("curr_items") for server in (one, two, three)]
            assert sum(counts) == 300
            assert min(counts) > 60


@KINDS
def test_no_other_server_takes_the_place_of_a_dead_one(kind: str) -> None:
    """Its keys are StoreErrors, the others' go on; when it is back, nobody finds what it missed elsewhere."""
    keys = [f"v1:{uuid4().hex}" for _ in range(40)]
    with running() as one, running() as two:
        url = f"memcached://127.0.0.1:{one.port},127.0.0.1:{two.port}"
        with face(kind, url, CLOCK, TIMEOUT) as store, face("sync", two.url, CLOCK, TIMEOUT) as second:
            for key in keys:
                store.create(key, record(NOW, a=b"1"))
            on_two = {key for key in keys if second.load(key) is not None}
            assert 0 < len(on_two) < 40
            one.kill()
            for key in keys:
                if key in on_two:
                    assert store.update(key, put(a=b"2")) is Applied.APPLIED
                    continue
                for verb in (store.load, store.delete):
                    with pytest.raises(StoreError, match=r"can't connect|lost"):
                        verb(key)  # type: ignore[operator]
            assert two.stat("curr_items") == len(on_two)
            one.start()
            assert [key for key in keys if store.load(key) is None] == [key for key in keys if key not in on_two]


def test_many_tasks_use_few_connections(own_memcached: Memcached, key: str) -> None:
    """Three hundred verbs at once, on one event loop, use sixteen connections at most."""

    async def main() -> list[object]:
        store = open_async_store(own_memcached.url, clock=CLOCK, timeout=20.0)
        made = await asyncio.gather(*(store.create(f"{key}{n}", record(NOW, a=b"%d" % n)) for n in range(300)))
        assert made == [True] * 300
        loaded = await asyncio.gather(*(store.load(f"{key}{n}") for n in range(300)))
        await store.aclose()
        return loaded

    before = own_memcached.connections()
    assert asyncio.run(main()) == [record(NOW, a=b"%d" % n) for n in range(300)]
    assert own_memcached.connections() - before <= 16
