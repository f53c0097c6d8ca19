"""Several processes, each with threads or tasks, on one session: nothing is lost."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from support.processes import run_together
from support.stores import record
from unsticky.clock import SystemClock
from unsticky.session.store import Record
from unsticky.stores import open_store


@pytest.fixture(params=["sqlite", "valkey", "postgres", "memcached"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    return str(request.getfixturevalue(request.param).url)


@pytest.fixture
def key(url: str) -> str:
    """A session that exists."""
    key = f"v1:{uuid4().hex}"
    store = open_store(url, clock=SystemClock(), timeout=5.0)
    assert store.create(key, record(SystemClock.time(), n=b"0"))
    store.close()
    return key


def loaded(url: str, key: str) -> Record:
    store = open_store(url, clock=SystemClock(), timeout=5.0)
    found = store.load(key)
    store.close()
    assert found is not None
    return found


def test_processes_with_threads_lose_no_field(url: str, key: str) -> None:
    """Two processes of four threads put two hundred different fields into one session."""
    results = run_together(("hammer", url, key, "p", 4, 25), ("hammer", url, key, "q", 4, 25))
    assert results == [100, 100]
    assert len(loaded(url, key).fields) == 201


def test_threads_and_event_loops_lose_no_field(url: str, key: str) -> None:
    """A WSGI process and two ASGI processes write one session at the same time."""
    results = run_together(
        ("hammer", url, key, "wsgi", 4, 25),
        ("hammer_async", url, key, "asgi 1", 10, 20),
        ("hammer_async", url, key, "asgi 2", 10, 20),
    )
    assert results == [100, 200, 200]
    assert len(loaded(url, key).fields) == 501


def test_a_counter_over_processes_loses_no_count(url: str, key: str) -> None:
    """Two processes of three threads count to three hundred with compare and set."""
    run_together(("count", url, key, 3, 50), ("count", url, key, 3, 50))
    assert loaded(url, key).fields["n"] == b"300"


def test_first_use_by_several_processes(url: str) -> None:
    """Four processes open the store for the first time with the same new key: one creates it, none fails."""
    key = f"v1:{uuid4().hex}"
    results = run_together(*[("first_use", url, key)] * 4)
    assert sorted(results) == [False, False, False, True]


def test_a_store_survives_forks(url: str, key: str) -> None:
    """Forked children go on with a store that their parent has used, and that it closes while they write."""
    assert run_together(("fork", url, key)) == [[0, 0]]
    fields = loaded(url, key).fields
    assert len(fields) == 1 + 40 + 2 * 21


def test_an_async_store_survives_a_fork(url: str, key: str) -> None:
    """Parent and child go on, each on an event loop of its own."""
    assert run_together(("fork_loop", url, key)) == [0]
    assert set(loaded(url, key).fields) == {"n", "parent before", "child", "parent after"}
