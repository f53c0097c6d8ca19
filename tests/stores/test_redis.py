"""What is special about the Redis store: its string, its scripts, its connections, and a server in trouble."""

from __future__ import annotations

import socket
import traceback
from dataclasses import replace
from itertools import chain
from pathlib import Path

import msgspec
import pytest
import redis

from support.speaker import speaker
from support.stores import VERBS, face, put, record, within
from support.tls_proxy import tls_in_front_of
from support.valkey import Valkey, running
from unsticky.errors import DamagedRecord, StoreError
from unsticky.session.store import Applied, Change, Scannable
from unsticky.testing import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.time()
TIMEOUT = 0.4
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


def test_the_string(valkey: Valkey, key: str) -> None:
    """One msgpack list under a prefix, that the server forgets when the record expires, and no sooner than before."""
    with face("sync", valkey.url, CLOCK, TIMEOUT) as store, valkey.client() as client:
        store.create(key, record(NOW, cart=b"1"))
        kept = msgspec.msgpack.decode(client.get(f"unsticky:{key}"))
        assert kept == [1, key, {"cart": b"1"}, 1700000000.0, 1700000000.0, 1700003600.0, None, 0]
        assert 3590_000 < client.pttl(f"unsticky:{key}") <= 3600_000
        store.update(key, Change(generation=0, expires=NOW + 7200))
        assert 7190_000 < client.pttl(f"unsticky:{key}") <= 7200_000
        for change in (put(cart=b"2"), Change(generation=0, expires=NOW + 60)):
            store.update(key, change)
            assert 7190_000 < client.pttl(f"unsticky:{key}") <= 7200_000


@KINDS
def test_what_the_caller_believes_to_be_there(valkey: Valkey, key: str, kind: str) -> None:
    """True, it spares a round trip; untrue, it costs one, and changes nothing of what becomes of the change."""
    first = record(NOW, a=b"1")
    asked = ("get", "set", "evalsha")

    def calls(client: redis.Redis) -> list[int]:
        stats = client.info("commandstats")
        return [stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in asked]

    with face(kind, valkey.url, CLOCK, TIMEOUT) as store, valkey.client() as client:
        store.create(key, first)
        store.update(key, put(a=b"1"))  # the script is known now
        before = calls(client)
        assert store.update(key, replace(put(a=b"2"), base=store.load(key))) is Applied.APPLIED
        assert [after - was for after, was in zip(calls(client), before, strict=True)] == [2, 1, 1]  # the script's too
        assert store.update(key, replace(put(b=b"2"), base=first)) is Applied.APPLIED
        assert store.load(key) == record(NOW, a=b"2", b=b"2")
        conflict = Change(generation=0, put={"a": b"3"}, expect={"a": b"1"}, base=first)
        assert store.update(key, conflict) is Applied.CONFLICT
        assert store.update(key, replace(conflict, expect={"a": b"2"})) is Applied.APPLIED
        ended = replace(first, expires=NOW - 1)
        assert store.update(key, Change(generation=0, drop=frozenset({"b"}), base=ended)) is Applied.APPLIED
        assert store.load(key) == record(NOW, a=b"3")
        store.delete(key)
        for base in (None, first, ended):
            assert store.update(key, replace(put(a=b"4"), base=base)) is Applied.GONE
        assert store.load(key) is None


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


def damaged(data: bytes, how: str) -> bytes:
    items = msgspec.msgpack.decode(data)
    changes = {"cut": data[:-1], "longer": data + b"x", "text": b"text", "empty": b"", "map": b"\x80"}
    if how in changes:
        return changes[how]
    if how == "another version":
        return msgspec.msgpack.encode([2, *items[1:]])
    place, value = {"a field": (2, {"a": "text"}), "a time": (5, "soon"), "generation": (7, None)}[how]
    items[place] = value
    return msgspec.msgpack.encode(items)


DAMAGES = ["cut", "longer", "text", "empty", "map", "another version", "a field", "a time", "generation"]


@KINDS
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_record(valkey: Valkey, key: str, kind: str, how: str) -> None:
    """What is no record is an error, and not an absent session; nothing is written over it."""
    with face(kind, valkey.url, CLOCK, TIMEOUT) as store, valkey.client() as client:
        store.create(key, record(NOW, a=b"1"))
        bad = damaged(client.get(f"unsticky:{key}"), how)
        client.set(f"unsticky:{key}", bad)
        verbs = (
            lambda: store.load(key),
            lambda: store.create(key, record(NOW)),
            lambda: store.update(key, put(a=b"2")),
            lambda: store.update(key, replace(put(a=b"2"), base=record(NOW, a=b"1"))),
        )
        for verb in verbs:
            with pytest.raises(DamagedRecord):
                verb()
        assert client.get(f"unsticky:{key}") == bad
        store.delete(key)
        assert store.load(key) is None


def test_scan(own_valkey: Valkey) -> None:
    """All that is live and whole, in batches; what is damaged, expired, strayed or not ours is left out."""
    kept = {f"v1:{n}": record(NOW, n=b"%d" % n) for n in range(250)}
    with face("sync", own_valkey.url, CLOCK, TIMEOUT) as store, own_valkey.client() as client:
        for key, one in kept.items():
            store.create(key, one)
        for key in ("damaged", "strayed", "expired"):
            store.create(key, replace(record(NOW), expires=NOW + 60 * (key != "expired")))
        client.append("unsticky:damaged", "x")
        client.rename("unsticky:strayed", "unsticky:elsewhere")
        client.set("unsticky:text", "text")
        client.set(b"unsticky:\xff", b"\x98\x01\xa1\xff")
        client.hset("unsticky:hash", "k", "x")
        client.mset({f"other:{n}": "x" for n in range(200)})
        assert isinstance(store.store, Scannable)
        batches = list(store.store.scan(batch=100))
        assert len(batches) > 2
        assert dict(chain.from_iterable(batches)) == kept
        own_valkey.kill()
        with pytest.raises(StoreError):
            list(store.store.scan())


@KINDS
def test_a_refused_command_shows_nothing(valkey: Valkey, kind: str) -> None:
    """Another type of value, or a right that is missing: StoreError without key, field or value, in the chain too."""
    key, value = "v1:very-private", b"also-private"
    with face(kind, valkey.url, CLOCK, TIMEOUT) as store, valkey.client() as client:
        client.rpush(f"unsticky:{key}", "text")
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


@KINDS
@pytest.mark.parametrize(
    "say",
    [b"HTTP/1.1 400 private\r\n\r\n", b"$x\r\n", b"*1\r\n" * 9, b"", b"+OK\r\n+OK\r\n+OK\r\n", b":7\r\n" * 9],
    ids=repr,
)
def test_a_server_that_speaks_nonsense(key: str, kind: str, say: bytes) -> None:
    """Garbage, too many replies, replies of another form and a closed door are StoreErrors, and never a session."""
    with speaker(lambda _: say) as port, face(kind, f"redis://127.0.0.1:{port}", CLOCK, TIMEOUT) as store:
        for verb in (*VERBS[:3], VERBS[0]):
            with pytest.raises(StoreError) as caught:
                verb(store, key)
            assert "private" not in str(caught.value)


def test_threads_reuse_connections(own_valkey: Valkey, key: str) -> None:
    """A hundred operations of one thread use one connection."""
    with face("sync", own_valkey.url, CLOCK, TIMEOUT) as store:
        before = own_valkey.connections()
        for _ in range(100):
            store.load(key)
        assert own_valkey.connections() - before == 2  # ours, and the one that asked before


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


@KINDS
def test_a_record_larger_than_what_a_socket_takes(valkey: Valkey, key: str, kind: str) -> None:
    """It is sent and read in parts, and swapped as any other."""
    large = record(NOW, a=bytes(8_000_000))
    with face(kind, valkey.url, CLOCK, 10.0) as store:
        assert store.create(key, large)
        assert store.load(key) == large
        assert store.update(key, replace(put(b=b"2"), base=large)) is Applied.APPLIED
        loaded = store.load(key)
        assert loaded is not None
        assert loaded.fields == {**large.fields, "b": b"2"}
        store.delete(key)


@KINDS
def test_a_large_record_for_a_paused_server(own_valkey: Valkey, key: str, kind: str) -> None:
    """What nobody takes off the socket is given up in time."""
    with face(kind, own_valkey.url, CLOCK, TIMEOUT) as store:
        store.load(key)
        with own_valkey.paused():
            within(TIMEOUT + 0.3, lambda: store.create(key, record(NOW, a=bytes(30_000_000))))
        assert store.load(key) is None
