"""Every store keeps the contract: those of ours are checked as a user checks his own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import pytest

from unsticky.clock import Clock
from unsticky.session.store import AsyncStore, ImmediateLoad, Migratable, Purgeable, Scannable, Store
from unsticky.stores import open_async_store, open_store
from unsticky.testing import Check, FakeClock, store_contract

# For each kind of server: what it can't hold.
LIMITS: dict[str, dict[str, int]] = {
    "memory": {},
    "sqlite": {},
    "valkey": {},
    "postgres": {},
    "memcached": {"largest_value": 1_000_000},  # an item has a megabyte at most, its overhead included
}
CHECKS = [
    pytest.param(name, check, id=f"{name}-{check}") for name in LIMITS for check in store_contract(**LIMITS[name])
]
TIMEOUT = 30.0  # seconds: the checks with threads keep a small machine busy

Open = Callable[[Clock], Store | AsyncStore]


@pytest.fixture
def url(request: pytest.FixtureRequest, name: str, tmp_path: Path) -> str:
    if name == "memory":
        return f"memory://{uuid4().hex}"
    if name == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    return str(request.getfixturevalue(name).url)


def sync(url: str, clock: Clock) -> Store:
    return open_store(url, clock=clock, timeout=TIMEOUT)


def asynchronous(url: str, clock: Clock) -> AsyncStore:
    return open_async_store(url, clock=clock, timeout=TIMEOUT)


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_threads(url: str, check: Check) -> None:
    """The Store of each kind."""
    check(lambda clock: sync(url, clock))


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_event_loops(url: str, check: Check) -> None:
    """The AsyncStore of each kind."""
    check(lambda clock: asynchronous(url, clock))


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_a_mixture(url: str, check: Check) -> None:
    """Replicas of both sorts on the same data: a WSGI and an ASGI app share their sessions."""
    sorts = cycle((asynchronous, sync))
    check(lambda clock: next(sorts)(url, clock))


@pytest.mark.parametrize(
    ("name", "abilities"),
    [
        ("memory", (Purgeable, Scannable)),
        ("sqlite", (Purgeable, Scannable)),
        ("postgres", (Purgeable, Scannable, Migratable)),
        ("valkey", (Scannable,)),
    ],
)
def test_abilities(url: str, abilities: tuple[type, ...]) -> None:
    """Those that a kind should have are there, so that the contract checks them."""
    opened = sync(url, FakeClock())
    assert [isinstance(opened, ability) for ability in abilities] == [True] * len(abilities)
    opened.close()


@pytest.mark.parametrize("name", ["memory", "sqlite"])
def test_immediate_loads(url: str) -> None:
    """The AsyncStores in this process can be asked on the loop's thread, and purged in another one."""
    opened = asynchronous(url, FakeClock())
    assert isinstance(opened, ImmediateLoad)
    assert isinstance(opened, Purgeable)
