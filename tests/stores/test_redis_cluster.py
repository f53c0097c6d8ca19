"""The Redis store in a cluster of real servers: slots that move under load, primaries that die."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from support.redis_load import CLOCK, both, load, lost
from support.stores import Face, face, record
from support.valkeys import ClusterServer, add_replica, cluster_url, clustered, errors, move_slot
from support.waiting import eventually
from unsticky.errors import StoreError
from unsticky.session.store import Applied, Change
from unsticky.stores import open_async_store
from unsticky.stores.redis_cluster import slot

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ClusterServer]]:
    with clustered(tmp_path_factory.mktemp("cluster")) as three:
        yield three


def name(key: str) -> bytes:
    return f"unsticky:{key}".encode()


def holder(servers: list[ClusterServer], key: str) -> int:
    """Which of three servers has the key, as they were set up."""
    return (slot(name(key)) > 5460) + (slot(name(key)) > 10922)


def keys_of_all(servers: list[ClusterServer]) -> list[str]:
    """One key for each server, at random."""
    found: dict[int, str] = {}
    while len(found) < len(servers):
        key = f"v1:{uuid4().hex}"
        found.setdefault(holder(servers, key), key)
    return [found[n] for n in range(len(servers))]


def test_the_server_computes_the_same_slots(servers: list[ClusterServer]) -> None:
    """For keys with braces of all sorts."""
    rng = random.Random(7)
    for _ in range(200):
        key = bytes(rng.choice(b"{}ab\xff") for _ in range(rng.randrange(9)))
        assert servers[0].ask("CLUSTER", "KEYSLOT", key) == slot(key), key


@KINDS
def test_every_key_finds_its_server(servers: list[ClusterServer], kind: str) -> None:
    """All verbs, over all servers, from one seed."""
    with face(kind, cluster_url(servers[2:]), CLOCK, 2.0) as store:
        for place, key in enumerate(keys_of_all(servers)):
            assert store.create(key, record(CLOCK.time(), a=b"1"))
            assert servers[place].ask("EXISTS", name(key))
            assert store.update(key, Change(generation=0, put={"b": b"2"})) is Applied.APPLIED
            loaded = store.load(key)
            assert loaded is not None
            assert loaded.fields == {"a": b"1", "b": b"2"}
            store.delete(key)
            assert store.load(key) is None


def test_one_connection_for_each_server(servers: list[ClusterServer]) -> None:
    """Three hundred loads at once travel over three connections, in few writes."""
    before = [one.info("stats")["total_connections_received"] for one in servers]

    async def main() -> None:
        store = open_async_store(cluster_url(servers), clock=CLOCK, timeout=5.0)
        for _ in range(3):
            assert set(await asyncio.gather(*(store.load(f"v1:{n}") for n in range(300)))) == {None}
        await store.aclose()

    asyncio.run(main())
    after = [one.info("stats")["total_connections_received"] for one in servers]
    assert [new - old for old, new in zip(before, after, strict=True)] == [2, 2, 2]  # ours, and the one that asks


def test_scan_sees_all_servers(servers: list[ClusterServer]) -> None:
    """Every record of every primary, once."""
    keys = {f"scan:{n}" for n in range(60)}
    with face("sync", cluster_url(servers), CLOCK, 2.0) as store:
        for key in keys:
            store.create(key, record(CLOCK.time()))
        found = [key for key, _ in chain.from_iterable(store.store.scan()) if key.startswith("scan:")]
        assert len(found) == 60
        assert set(found) == keys
        for key in keys:
            store.delete(key)


def test_a_slot_that_moves_under_load(servers: list[ClusterServer]) -> None:
    """ASK and MOVED are followed by writers from threads and from a loop: no error, nothing lost, nothing risen."""
    with load(cluster_url(servers), 2.0, threads=2, tasks=4) as writers:
        writers.goes_on()
        for key in ("t0", "a0"):
            here = holder(servers, key)
            source, target = servers[here], servers[(here + 1) % 3]
            asked, moved = errors(source, "ASK"), errors(source, "MOVED")
            for step in move_slot(slot(name(key)), source, target):
                writers.goes_on(5)
                assert step != "halfway" or errors(source, "ASK") > asked
            writers.goes_on(5)
            assert errors(source, "MOVED") > moved
    assert [log.errors for log in writers.logs] == [[]] * 6
    assert lost(writers, cluster_url(servers)) == []


def test_scan_while_a_slot_moves(servers: list[ClusterServer]) -> None:
    """A key that the scan was told of, and that is elsewhere by now, is read there."""
    key = "v1:moving"
    here = holder(servers, key)
    with face("sync", cluster_url(servers), CLOCK, 2.0) as store:
        assert store.create(key, record(CLOCK.time()))
        steps = move_slot(slot(name(key)), servers[here], servers[(here + 1) % 3])
        assert next(steps) == "begun"
        found = [key for key, _ in chain.from_iterable(store.store.scan())]
        assert key in found
        assert list(steps)[-1] == "moved"
        assert key in [key for key, _ in chain.from_iterable(store.store.scan())]
        store.delete(key)


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_primary_that_fails(tmp_path: Path, how: str) -> None:
    """Its replica takes over, the writers find it; those of other servers notice nothing."""
    with clustered(tmp_path) as servers, ExitStack() as stack:
        replica = add_replica(tmp_path, servers)
        stack.callback(replica.kill)
        with load(cluster_url(servers), 0.5, threads=4, tasks=8) as writers:
            writers.goes_on()
            if how == "killed":
                servers[0].kill()
            else:
                stack.enter_context(servers[0].paused())
            writers.goes_on()
        struck = {log.key for log in writers.logs if log.errors}
        assert struck
        for log in writers.logs:
            assert log.key in struck or holder(servers, log.key) != 0
        assert replica.info("replication")["role"] == "master"


def test_a_primary_without_a_replica_killed(tmp_path: Path) -> None:
    """What it has is a StoreError in time; the rest goes on; started again, so does the rest, on the same objects."""
    with clustered(tmp_path) as servers, both(cluster_url(servers), 0.3) as stores:
        keys = {name: keys_of_all(servers) for name in stores}
        for kind, store in stores.items():
            for key in keys[kind]:
                store.create(key, record(CLOCK.time()))
        servers[0].kill()
        for kind, store in [*stores.items(), *stores.items()]:
            started = time.monotonic()
            with pytest.raises(StoreError):
                store.load(keys[kind][0])
            assert time.monotonic() - started < 0.5
            assert store.load(keys[kind][1]) is not None
            assert store.load(keys[kind][2]) is not None
        servers[0].start()
        for kind, store in stores.items():
            assert eventually(lambda kind=kind, store=store: _created(store, keys[kind][0]))  # type: ignore[misc]


def _created(store: Face, key: str) -> bool:
    try:
        return store.create(key, record(CLOCK.time()))
    except StoreError:
        return False


def test_each_command_touches_its_one_key(servers: list[ClusterServer]) -> None:
    """What is sent declares one key, and what scripts do to any key they do to this one."""
    server = servers[0]
    key = keys_of_all(servers)[0]
    now = CLOCK.time()
    with server.client() as client, server.client() as other, client.monitor() as monitor:
        heard = monitor.listen()
        client.script_flush()
        for options in ("", "?wait_replicas=1"):
            with face("sync", cluster_url(servers, options), CLOCK, 0.1) as store:
                _all_branches(store, key, now)
        other.echo("the end")
        seen = list(_until_the_end(heard))
        assert {words[0].upper() for words in seen} >= {"GET", "EVAL", "EVALSHA", "DEL", "SET"}
        for words in seen:
            if words[0] == "EVAL":  # its text has spaces
                assert f" 1 unsticky:{key} " in " ".join(words) + " "
                continue
            assert other.command_getkeys(*words) == [f"unsticky:{key}"], words[0]


def _all_branches(store: Face, key: str, now: float) -> None:
    """No replica is there to acknowledge what is applied."""
    changes = (
        Change(generation=0, put={"c": b"3"}, drop=frozenset({"a"}), expect={"b": b"2", "d": None}, owner="o"),
        Change(generation=0, expect={"b": b"other"}),
        Change(generation=0, touched=now + 1, expires=now + 9999, owner="", raise_generation=True),
        Change(generation=9),
        Change(generation=1, drop=frozenset({"b", "c"}), delete_if_only="_"),
    )
    store.load(key)
    for verb in (
        lambda: store.create(key, record(now, a=b"1", b=b"2")),
        lambda: store.create(key, record(now)),
        *(partial(store.update, key, change) for change in changes),
        lambda: store.delete(key),
        lambda: store.delete(key),
    ):
        with suppress(StoreError):
            verb()


def _until_the_end(heard: Any) -> Iterator[list[str]]:
    """Commands that have a key, until the marker."""
    for one in heard:
        words = one["command"].split(" ")
        if words[0].upper() == "ECHO":
            return
        if words[0].upper() not in ("CLUSTER", "INFO", "PING", "CLIENT", "HELLO", "COMMAND", "SCRIPT", "WAIT"):
            yield words


def test_the_map_is_asked_for_once(servers: list[ClusterServer]) -> None:
    """A map that is known is not asked for again, whatever is done with it."""
    with face("sync", cluster_url(servers), CLOCK, 2.0) as store:
        counts = []
        for _ in range(3):
            for key in keys_of_all(servers):
                store.load(key)
            counts.append(sum(_slots_asked(one) for one in servers))
        assert all(one == other for one, other in pairwise(counts))


def _slots_asked(server: ClusterServer) -> int:
    return int(server.info("commandstats").get("cmdstat_cluster|slots", {}).get("calls", 0))
