"""What the PostgreSQL store says to its server, and what waits for what."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from support.postgres import Postgres, opened, setting
from support.stores import Face, face, put, record
from support.waiting import eventually
from unsticky.errors import StoreError
from unsticky.session.store import Applied, Change
from unsticky.stores import postgres_sql
from unsticky.stores.postgres_url import PostgresTarget
from unsticky.testing import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.time()
TIMEOUT = 5.0
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


# Statements


@KINDS
def test_one_statement_per_verb(own_postgres: Postgres, key: str, kind: str) -> None:
    """The server hears one statement for each verb, with an expectation or without, and no BEGIN or COMMIT."""
    update = Change(
        generation=0,
        put={"b": b"2"},
        drop=frozenset({"c"}),
        expect={"a": b"1", "none": None},
        touched=NOW + 1,
        expires=NOW + 7200,
        owner="o",
        raise_generation=True,
    )
    verbs: list[tuple[str, Callable[[Face], Any]]] = [
        ("INSERT", lambda store: store.create(key, record(NOW, a=b"1"))),
        ("INSERT", lambda store: not store.create(key, record(NOW))),
        ("SELECT", lambda store: store.load(key)),
        ("UPDATE", lambda store: store.update(key, put(c=b"1")) is Applied.APPLIED),
        ("UPDATE", lambda store: store.update(key, Change(0, touched=NOW)) is Applied.APPLIED),
        ("UPDATE", lambda store: store.update(key, update) is Applied.APPLIED),
        ("UPDATE", lambda store: store.update(key, update) is Applied.GONE or True),
        ("UPDATE", lambda store: store.update(f"{key}x", put(a=b"1")) is Applied.GONE),
        ("DELETE", lambda store: store.delete(key) is None),
    ]
    with face(kind, own_postgres.url, CLOCK, TIMEOUT) as store:
        store.load(key)
        for n, (expected, verb) in enumerate(verbs):
            with own_postgres.statements() as said:
                assert verb(store)
            if n != 6:  # a GONE that may be a CONFLICT asks once more
                assert [one.split()[1] for one in said] == [expected]
        store.create(key, record(NOW, a=b"1"))
        with own_postgres.statements() as said:
            only = Change(generation=0, drop=frozenset({"a"}), delete_if_only="~")
            assert store.update(key, only) is Applied.EMPTIED
        assert [one.split()[1] for one in said] == ["DELETE"]


@KINDS
def test_statements_are_prepared_at_their_second_use(own_postgres: Postgres, key: str, kind: str) -> None:
    """A connection that lives for one statement prepares nothing; behind a transaction pooler none does."""
    for options, expected in (("", ["unnamed", "prepared", "prepared"]), ("?pooler=transaction", ["unnamed"] * 3)):
        with face(kind, own_postgres.url + options, CLOCK, TIMEOUT) as store:
            store.delete(key)
            with own_postgres.statements() as said:
                for _ in range(3):
                    store.load(key)
            assert said == [f"{one} SELECT" for one in expected]


def test_prepared_statements_may_vanish(postgres: Postgres, key: str) -> None:
    """DISCARD ALL, as poolers send it, is not noticed; nor are statements that somebody prepared before."""
    store = opened(postgres.url)
    store.create(key, record(NOW, a=b"1"))
    for _ in range(3):
        for _ in range(3):
            assert store.load(key) == record(NOW, a=b"1")
        store._pool._idle[-1].pgconn.exec_(b"DISCARD ALL")
    for _ in range(3):
        store._pool._idle[-1].used.clear()
        store._pool._idle[-1].used[store._table.statements.load(key).statement.name] = False
        assert store.load(key) == record(NOW, a=b"1")
        assert store.load(key) == record(NOW, a=b"1")
    store.close()


def test_a_strayed_reply_is_refused() -> None:
    """A row of another session is never accepted, and neither are two."""
    statements = postgres_sql.Statements(PostgresTarget())
    other = (b"v1:other", b'\1{"a":"MQ=="}', *[bytes(8)] * 3, None, bytes(8))
    for rows in ([other], [(b"v1:mine", *other[1:])] * 2):
        for verb in (
            postgres_sql.load(statements, "v1:mine", -1.0),
            postgres_sql.update(statements, "v1:mine", put(a=b"1"), 0.0),
            postgres_sql.create(statements, "v1:mine", record(NOW), 0.0),
        ):
            next(verb)
            with pytest.raises(StoreError, match="another session"):
                verb.send(list(rows))


# What waits for what


@contextmanager
def overtaken(server: Postgres, store: Face, key: str, change: Change, statement: str) -> Any:
    """`change` waits for a transaction with `statement`, which commits then. Yields what becomes of the change."""
    with ThreadPoolExecutor(1) as thread, psycopg.connect(server.url) as other:
        other.execute(statement.format(f"key = '{key}'"))  # type: ignore[call-overload]
        waiting: Future[Applied] = thread.submit(store.update, key, change)
        eventually(server.waiting)
        other.commit()
        yield waiting


OVERTAKEN: list[tuple[str, Change, Applied, dict[str, bytes] | None]] = [
    (
        """UPDATE unsticky_sessions SET fields = fields || '{{"b": "Mg=="}}' WHERE {0}""",
        put(c=b"3"),
        Applied.APPLIED,
        {"a": b"1", "b": b"2", "c": b"3"},
    ),
    ("DELETE FROM unsticky_sessions WHERE {0}", put(c=b"3"), Applied.GONE, None),
    ("UPDATE unsticky_sessions SET generation = 1 WHERE {0}", put(c=b"3"), Applied.GONE, {"a": b"1"}),
    (
        """UPDATE unsticky_sessions SET fields = fields || '{{"a": "Mg=="}}' WHERE {0}""",
        Change(generation=0, put={"a": b"3"}, expect={"a": b"1"}),
        Applied.CONFLICT,
        {"a": b"2"},
    ),
    (
        """UPDATE unsticky_sessions SET fields = fields || '{{"b": "Mg=="}}' WHERE {0}""",
        Change(generation=0, drop=frozenset({"a"}), delete_if_only="~"),
        Applied.APPLIED,
        {"b": b"2"},
    ),
    (
        """UPDATE unsticky_sessions SET fields = '{{"~": ""}}' WHERE {0}""",
        Change(generation=0, drop=frozenset({"x"}), delete_if_only="~"),
        Applied.EMPTIED,
        None,
    ),
]


@KINDS
@pytest.mark.parametrize(("statement", "change", "expected", "left"), OVERTAKEN, ids=range(len(OVERTAKEN)))
def test_a_change_that_waited_sees_the_row_as_it_is_then(
    own_postgres: Postgres,
    key: str,
    kind: str,
    statement: str,
    change: Change,
    expected: Applied,
    left: dict[str, bytes] | None,
) -> None:
    """Conditions and values are those of the moment after the wait, though the statement began before."""
    with face(kind, own_postgres.url, CLOCK, TIMEOUT) as store:
        store.create(key, record(NOW, a=b"1"))
        with overtaken(own_postgres, store, key, change, statement) as waiting:
            assert waiting.result(10) is expected
        loaded = store.load(key)
        assert (None if loaded is None else loaded.fields) == left


@KINDS
def test_a_lock_that_is_held_for_too_long(own_postgres: Postgres, key: str, kind: str) -> None:
    """The verb ends in time, nothing is written later, and the connection is still good: the server gave up."""
    with face(kind, own_postgres.url, CLOCK, 2.0) as store:
        store.create(key, record(NOW, a=b"1"))
        with psycopg.connect(own_postgres.url) as other:
            other.execute("SELECT FROM unsticky_sessions WHERE key = %s FOR UPDATE", (key,))
            before = own_postgres.rows("SELECT pid FROM pg_stat_activity WHERE application_name = 'unsticky'")
            with pytest.raises(StoreError, match="57014 QueryCanceled"):
                store.update(key, put(a=b"2"))
        assert store.load(key) == record(NOW, a=b"1")
        after = own_postgres.rows("SELECT pid FROM pg_stat_activity WHERE application_name = 'unsticky'")
        assert after == before


def test_a_server_that_isolates_more(own_postgres: Postgres, key: str) -> None:
    """Whatever the server's default is, changes of one session at the same time merge."""
    own_postgres.rows("ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'")
    try:
        with face("sync", own_postgres.url, CLOCK, TIMEOUT) as store, ThreadPoolExecutor(8) as threads:
            store.create(key, record(NOW))
            done = [threads.submit(store.update, key, put(**{f"f{n}": b"x"})) for n in range(100)]
            assert {one.result() for one in done} == {Applied.APPLIED}
            loaded = store.load(key)
            assert loaded is not None
            assert len(loaded.fields) == 100
    finally:
        own_postgres.rows("ALTER DATABASE postgres RESET default_transaction_isolation")


def test_settings_of_the_session(postgres: Postgres, key: str) -> None:
    """The server's own synchronous_commit, unless the URL says otherwise; the URL's options win over ours."""
    for options, expected in (
        ("", ("on", "225ms", "read committed")),
        ("?synchronous_commit=off", ("off", "225ms", "read committed")),
        ("?options=-c%20statement_timeout%3D100", ("on", "100ms", "read committed")),
        ("?pooler=transaction", ("on", "0", "read committed")),
    ):
        store = opened(postgres.url + options, timeout=0.25)
        store.load(key)
        names = ("synchronous_commit", "statement_timeout", "transaction_isolation")
        assert tuple(setting(store, name) for name in names) == expected
        store.close()
