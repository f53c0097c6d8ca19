"""What is special about the PostgreSQL store: its table, and what it shows and forgets."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest

from support.postgres import Postgres, opened
from support.processes import run_together
from support.stores import face, put, record
from unsticky.errors import DamagedRecord, StoreError
from unsticky.session.store import Applied
from unsticky.testing import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.time()
TIMEOUT = 5.0
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@KINDS
@pytest.mark.parametrize(
    "damage",
    [
        "fields = '[]'",
        "fields = '{\"a\": 1}'",
        'fields = \'{"a": "no base64"}\'',
        'fields = \'{"%%ff": "MQ=="}\'',
        "owner = '%%ff'",
        "owner = 'é'",
    ],
)
def test_a_damaged_record(postgres: Postgres, key: str, kind: str, damage: str) -> None:
    """It is a DamagedRecord that shows nothing, and left out of a scan; deleting it is possible."""
    with face(kind, postgres.url, CLOCK, TIMEOUT) as store, face("sync", postgres.url, CLOCK, TIMEOUT) as scanner:
        store.create(key, record(NOW, a=b"1"))
        postgres.rows(f"UPDATE unsticky_sessions SET {damage} WHERE key = %s", key)
        with pytest.raises(DamagedRecord) as caught:
            store.load(key)
        assert str(caught.value) == "PostgreSQL store: a record is damaged"
        assert key not in {one for batch in scanner.store.scan() for one, _ in batch}
        store.delete(key)
        assert store.load(key) is None


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_without_unicode(postgres: Postgres, key: str, encoding: str) -> None:
    """Names, keys and owners of any text are kept in a database of any encoding."""
    name = f"d{uuid4().hex}"
    postgres.rows(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
    kept = replace(record(NOW, **{"日本\0é%": b"\0\xff"}), owner="日本\0")
    with face("sync", postgres.url_for("postgres", database=name), CLOCK, TIMEOUT) as store:
        assert store.create(f"{key}日本\0", kept)
        assert store.load(f"{key}日本\0") == kept
        assert list(store.store.scan()) == [[(f"{key}日本\0", kept)]]


# The table


def test_the_table_is_made_at_first_use(postgres: Postgres, schema: str, key: str) -> None:
    """In the schema that the URL names, which is made too; dropped, it is made again by the next verb."""
    store = opened(f"{postgres.url}?schema={schema}&table=carts")
    assert store.load(key) is None
    assert postgres.rows(f"SELECT obj_description('{schema}.carts'::regclass)") == [("unsticky sessions, schema 1",)]
    assert store.create(key, record(NOW, a=b"1"))
    assert postgres.rows(f"SELECT key, fields FROM {schema}.carts") == [(key, {"a": "MQ=="})]
    for drop in (f"DROP TABLE {schema}.carts", f"DROP SCHEMA {schema} CASCADE"):
        postgres.rows(drop)
        assert store.update(key, put(a=b"1")) is Applied.GONE
        assert store.create(key, record(NOW))
    store.close()


def test_migrate(postgres: Postgres, schema: str) -> None:
    """It says what was done, and does it once."""
    store = opened(f"{postgres.url}?schema={schema}", timeout=0.001)
    assert store.migrate() == [f'Created the table "{schema}"."unsticky_sessions".']
    assert store.migrate() == []
    store.close()


def test_many_make_the_table_at_once(postgres: Postgres, schema: str) -> None:
    """Four processes, and ten threads with stores of their own: nobody fails, one creates the session."""
    url = f"{postgres.url}?schema={schema}"
    assert sorted(run_together(*[("first_use", url, "v1:one")] * 4)) == [False, False, False, True]
    for n in range(5):
        start = threading.Barrier(10)

        def create(n: int = n, start: threading.Barrier = start) -> bool:
            with face("sync", f"{url}{n}", CLOCK, 30.0) as store:
                start.wait(10)
                return store.create("v1:one", record(NOW))

        with ThreadPoolExecutor(10) as threads:
            done = [threads.submit(create) for _ in range(10)]
        assert sum(one.result() for one in done) == 1


@KINDS
def test_a_table_of_another_version(postgres: Postgres, schema: str, key: str, kind: str) -> None:
    """A newer one and one that says nothing are refused clearly, and nothing is done to them."""
    table = f"{schema}.unsticky_sessions"
    url = f"{postgres.url}?schema={schema}"
    postgres.rows(f"CREATE SCHEMA {schema}")
    postgres.rows(f"CREATE TABLE {table} (key text)")
    for comment, message in (("mine", "says no version"), ("unsticky sessions, schema 2", "made by a newer unsticky")):
        postgres.rows(f"COMMENT ON TABLE {table} IS '{comment}'")
        with face(kind, url, CLOCK, TIMEOUT) as store:
            for _ in range(2):
                with pytest.raises(StoreError, match=message):
                    store.create(key, record(NOW))
        with face("sync", url, CLOCK, TIMEOUT) as store, pytest.raises(StoreError, match=message):
            store.store.migrate()
    assert postgres.rows(f"SELECT count(*) FROM {table}") == [(0,)]


@KINDS
def test_a_role_that_may_not_create(postgres: Postgres, schema: str, key: str, kind: str) -> None:
    """Without the table it is told what to do; once somebody made it, four rights are enough for everything."""
    role, url = f"r{uuid4().hex}", f"{postgres.url}?schema={schema}"
    postgres.rows(f"CREATE ROLE {role} LOGIN")
    postgres.rows(f"CREATE SCHEMA {schema}")
    postgres.rows(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    theirs = postgres.url_for(role) + f"?schema={schema}"
    with face(kind, theirs, CLOCK, TIMEOUT) as store:
        with pytest.raises(StoreError, match=r"may not create it: let one that may run `unsticky sessions migrate`"):
            store.load(key)
        with face("sync", url, CLOCK, TIMEOUT) as administrator:
            administrator.store.migrate()
        with pytest.raises(StoreError, match="42501"):
            store.load(key)
        postgres.rows(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.unsticky_sessions TO {role}")
        assert store.create(key, replace(record(NOW, a=b"1"), expires=NOW + 1))
        assert store.update(key, put(b=b"2")) is Applied.APPLIED
        assert store.load(key) is not None
        assert store.store.purge() == 0
        store.delete(key)


# Purging and scanning


def test_two_purge_at_once(postgres: Postgres, schema: str) -> None:
    """Two replicas share the work; rows that somebody holds are left, and nobody waits for them."""
    url = f"{postgres.url}?schema={schema}"
    with face("sync", url, CLOCK, TIMEOUT) as store, face("sync", url, CLOCK, TIMEOUT) as other:
        store.create("v1:live", record(NOW))
        postgres.rows(
            f"""INSERT INTO {schema}.unsticky_sessions (key, fields, created, touched, expires, generation)
            SELECT 'v1:' || n, '{{}}', 0, 0, {NOW} - n, 0 FROM generate_series(0, 1999) AS n"""
        )
        with psycopg.connect(postgres.url) as holder, ThreadPoolExecutor(2) as threads:
            holder.execute(f"SELECT FROM {schema}.unsticky_sessions WHERE key IN ('v1:1', 'v1:1999') FOR UPDATE")  # type: ignore[arg-type]
            running = [threads.submit(one.store.purge, 5000) for one in (store, other)]
            assert sum(one.result(20) for one in running) == 1998
        assert store.store.purge() == 2
        assert store.load("v1:live") is not None


def test_scan_in_batches(postgres: Postgres, schema: str) -> None:
    """Every live record once, in as many batches as it takes."""
    with face("sync", f"{postgres.url}?schema={schema}", CLOCK, TIMEOUT) as store:
        expected = {f"v1:{n}é": record(NOW, n=b"%d" % n) for n in range(23)}
        for key, one in expected.items():
            store.create(key, one)
        store.create("v1:expired", replace(record(NOW), expires=NOW))
        batches = list(store.store.scan(5))
        assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
        assert {key: one for batch in batches for key, one in batch} == expected
