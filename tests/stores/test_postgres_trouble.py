"""The PostgreSQL store and a server in trouble: deadlines, restarts, refusals, and what errors show."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from support.postgres import Postgres
from support.stores import VERBS, Face, face, put, record, within
from support.waiting import eventually
from unsticky.errors import StoreError
from unsticky.session.store import Applied, Change
from unsticky.stores import open_store
from unsticky.stores.postgres import PostgresStore
from unsticky.testing import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.time()
TIMEOUT = 0.4
SLACK = 0.25  # seconds: the machine is shared
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@KINDS
def test_nobody_listens(key: str, kind: str) -> None:
    """A refused connection is a StoreError at once, for every verb."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with face(kind, f"postgresql://127.0.0.1:{port}", CLOCK, TIMEOUT) as store:
        for verb in VERBS:
            within(TIMEOUT, lambda verb=verb: verb(store, key))  # type: ignore[misc]


@KINDS
def test_a_paused_server(own_postgres: Postgres, key: str, kind: str) -> None:
    """Every verb fails by its deadline, on a fresh connection and on a used one; afterwards the same object works."""
    with face(kind, own_postgres.url, CLOCK, TIMEOUT) as used, face(kind, own_postgres.url, CLOCK, TIMEOUT) as fresh:
        used.create(key, record(NOW, a=b"1"))
        with own_postgres.paused():
            for verb in VERBS[:3]:
                within(TIMEOUT + SLACK, lambda verb=verb: verb(used, key))  # type: ignore[misc]
            within(TIMEOUT + SLACK, lambda: fresh.load(key))
        for store in (used, fresh):
            assert eventually(lambda store=store: _loads(store, key))
            assert store.update(key, put(b=b"2")) is Applied.APPLIED


def _loads(store: Face, key: str) -> bool:
    """The server has to work off first what it was asked while it was paused."""
    try:
        return store.load(key) is not None
    except StoreError:
        return False


@KINDS
def test_a_value_that_the_server_does_not_take(own_postgres: Postgres, key: str, kind: str) -> None:
    """Sending has the deadline too: a megabyte does not fit into the socket's buffers."""
    with face(kind, own_postgres.url, CLOCK, TIMEOUT) as store:
        store.create(key, record(NOW, a=b"1"))
        with own_postgres.paused():
            within(TIMEOUT + SLACK, lambda: store.update(key, put(a=bytes(20_000_000))))


@KINDS
def test_a_killed_server(own_postgres: Postgres, key: str, kind: str) -> None:
    """Killed, every verb fails at once; started again, every verb works at once on the same object."""
    with face(kind, own_postgres.url, CLOCK, TIMEOUT) as store:
        store.create(key, record(NOW, a=b"1"))
        own_postgres.kill()
        for verb in VERBS:
            within(TIMEOUT, lambda verb=verb: verb(store, key))  # type: ignore[misc]
        own_postgres.start()
        assert store.load(key) == record(NOW, a=b"1")
        assert store.update(key, put(a=b"2")) is Applied.APPLIED


@KINDS
@pytest.mark.parametrize("verb", range(4), ids=["load", "create", "update", "delete"])
def test_a_restart_between_two_verbs_is_not_noticed(own_postgres: Postgres, key: str, kind: str, verb: int) -> None:
    """An idle connection that the server has closed costs no error, for writes neither: nothing was sent on it."""
    with face(kind, own_postgres.url, CLOCK, TIMEOUT) as store:
        store.load(key)
        own_postgres.restart()
        VERBS[verb](store, key)


@KINDS
def test_sessions_that_an_administrator_ends(own_postgres: Postgres, key: str, kind: str) -> None:
    """pg_terminate_backend between two writes, twenty times: each write counts, and counts once."""
    with face(kind, own_postgres.url, CLOCK, TIMEOUT) as store:
        store.create(key, record(NOW))
        for n in range(20):
            change = Change(generation=n, put={"n": b"%d" % n}, raise_generation=True)
            assert store.update(key, change) is Applied.APPLIED
            assert own_postgres.terminate_clients() == 1
        loaded = store.load(key)
        assert loaded is not None
        assert loaded.generation == 20


@KINDS
@pytest.mark.parametrize("verb", [0, 2], ids=["load", "update"])
def test_a_session_that_ends_while_it_is_asked(own_postgres: Postgres, key: str, kind: str, verb: int) -> None:
    """A load is asked once more and answers; a write is not, and is not applied behind our back either."""
    with face(kind, own_postgres.url, CLOCK, 5.0) as store, ThreadPoolExecutor(1) as thread:
        store.create(key, record(NOW, b=b"1"))
        with psycopg.connect(own_postgres.url) as other:
            other.execute("LOCK TABLE unsticky_sessions")
            asked = thread.submit(VERBS[verb], store, key)
            eventually(own_postgres.waiting)
            own_postgres.terminate_clients()
        if verb == 0:
            assert asked.result(10) == record(NOW, b=b"1")
        else:
            with pytest.raises(StoreError, match="connection was lost"):
                asked.result(10)
        assert store.load(key) == record(NOW, b=b"1")


@KINDS
def test_a_server_that_only_reads(own_postgres: Postgres, key: str, kind: str) -> None:
    """The write fails, and its connection is not kept: after a failover another server is asked."""
    with face(kind, own_postgres.url, CLOCK, TIMEOUT) as store:
        store.create(key, record(NOW))
        own_postgres.rows("ALTER ROLE postgres SET default_transaction_read_only = on")
        own_postgres.terminate_clients()
        try:
            with pytest.raises(StoreError, match="25006"):
                store.update(key, put(a=b"1"))
        finally:
            with own_postgres.client() as client:
                client.execute("SET default_transaction_read_only = off")
                client.execute("ALTER ROLE postgres RESET default_transaction_read_only")
        assert store.update(key, put(a=b"1")) is Applied.APPLIED


@KINDS
def test_several_hosts(own_postgres: Postgres, key: str, kind: str) -> None:
    """One that refuses and one that never answers come first: the third is found in time, and remembered."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refusing = closed.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{refusing},127.0.0.1:{silent.getsockname()[1]},localhost:{own_postgres.port}"
        with face(kind, f"postgresql://postgres@{hosts}/postgres", CLOCK, 2.0) as store:
            assert store.create(key, record(NOW))
            own_postgres.terminate_clients()
            started = time.monotonic()
            assert store.load(key) is not None
            assert time.monotonic() - started < 0.5


@KINDS
def test_a_password(own_postgres: Postgres, key: str, kind: str) -> None:
    """The right one works; a wrong or missing one is a StoreError that shows neither."""
    own_postgres.rows("DROP ROLE IF EXISTS locked")
    own_postgres.rows("CREATE ROLE locked LOGIN SUPERUSER PASSWORD 'right/secret'")
    with face(kind, own_postgres.url_for("locked", "right%2Fsecret"), CLOCK, 2.0) as store:
        assert store.create(key, record(NOW))
    for url in (own_postgres.url_for("locked", "wrong-secret"), own_postgres.url_for("locked")):
        with face(kind, url, CLOCK, 2.0) as store:
            with pytest.raises(StoreError, match="password") as caught:
                store.load(key)
            assert "secret" not in "".join(traceback.format_exception(caught.value))


@KINDS
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:secret@no-such-host.invalid/db", "no-such-host.invalid"),
        ("postgresql://u:secret@127.0.0.1/db?sslmode=secret", "not understood|sslmode"),
        ("postgresql://u:secret@127.0.0.1:1/db?sslpassword=topsecret", "refused"),
        ("postgresql://u:secret@127.0.0.1:1/db?service=none&options=secret", "."),
    ],
)
def test_what_errors_of_connecting_show(key: str, kind: str, url: str, message: str) -> None:
    """Where it was, and no secret."""
    with face(kind, url, CLOCK, 2.0) as store:
        with pytest.raises(StoreError, match=message) as caught:
            store.load(key)
        shown = "".join(traceback.format_exception_only(caught.value))
        assert "cret" not in shown.replace('"secret"', "") or "sslmode" in url
        assert caught.value.__cause__ is None


@KINDS
def test_what_refusals_show(own_postgres: Postgres, kind: str) -> None:
    """A server's error that repeats key and values is told as its code alone, in the chain too."""
    with face(kind, own_postgres.url, CLOCK, TIMEOUT) as store:
        store.load("v1:private")
        own_postgres.rows("ALTER TABLE unsticky_sessions ADD CHECK (NOT fields ? 'private')")
        with pytest.raises(StoreError, match="23514 CheckViolation") as caught:
            store.create("v1:private", record(NOW, private=b"private"))
        assert "private" not in "".join(traceback.format_exception_only(caught.value))
        assert caught.value.__cause__ is None
        assert store.load("v1:private") is None


@KINDS
def test_a_server_that_speaks_nonsense(key: str, kind: str) -> None:
    """Another server on that port is a StoreError, by the deadline at the latest."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:

        def talk() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 private\r\n\r\n" * 10)

        thread.submit(talk)
        url = f"postgresql://127.0.0.1:{server.getsockname()[1]}"
        with face(kind, url, CLOCK, TIMEOUT) as store, pytest.raises(StoreError) as caught:
            store.load(key)
        assert "private" not in str(caught.value)


def test_the_pool_has_an_end(own_postgres: Postgres, key: str) -> None:
    """Threads beyond `pool_size` wait for their turn, and no longer than their deadline."""
    store = open_store(f"{own_postgres.url}?pool_size=2", clock=CLOCK, timeout=TIMEOUT)
    store.create(key, record(NOW))
    with psycopg.connect(own_postgres.url) as other, ThreadPoolExecutor(6) as threads:
        other.execute("LOCK TABLE unsticky_sessions")
        started = time.monotonic()
        asked = [threads.submit(store.load, key) for _ in range(6)]
        assert eventually(own_postgres.waiting) <= 2
        assert all(isinstance(one.exception(5), StoreError) for one in asked)
        assert time.monotonic() - started < TIMEOUT + SLACK
    assert store.load(key) is not None
    store.close()


def test_threads_reuse_connections(own_postgres: Postgres, key: str) -> None:
    """A hundred operations of one thread use one connection."""
    store = open_store(own_postgres.url, clock=CLOCK, timeout=TIMEOUT)
    assert isinstance(store, PostgresStore)
    store.load(key)
    before = store._pool._idle[0].pgconn.backend_pid
    for _ in range(100):
        store.load(key)
    assert [one.pgconn.backend_pid for one in store._pool._idle] == [before]
    store.close()
    assert eventually(lambda: own_postgres.connections() == 0)


FORK = """
import os, sys
from unsticky.clock import SystemClock
from unsticky.stores import open_store
store = open_store(sys.argv[1], clock=SystemClock(), timeout=5.0)
store.load("v1:a")
mine = store._pool._idle[0].pgconn.backend_pid
child = os.fork()
if not child:
    store.load("v1:a")
    theirs = store._pool._idle[0].pgconn.backend_pid
    store.close()
    del store
    sys.exit(0 if theirs != mine else 3)  # an ordinary end, with all that is cleaned up then
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
store.load("v1:a")
assert store._pool._idle[0].pgconn.backend_pid == mine
store.close()
"""


def test_a_child_leaves_its_parents_connections_alone(postgres: Postgres) -> None:
    """It opens its own, and its end does not end the parent's session."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", FORK, postgres.url], timeout=60, check=False)
    assert done.returncode == 0
