"""Large tables are built aside, in the worker's thread: callers go on meanwhile, and use the new one after the swap."""

from __future__ import annotations

import time
from collections.abc import Generator
from random import Random
from threading import Lock

import pytest

from support.routing import endpoint
from support.upstream import upstream
from support.waiting import eventually
from unsticky.pools import Pools
from unsticky.routing.call import Endpoint
from unsticky.routing.endpoint import endpoint_from
from unsticky.routing.hashed import Build, Building, HashPicker
from unsticky.routing.options import EndpointOptions, HashOptions, PoolOptions
from unsticky.routing.pool import Pool
from unsticky.tables import aside
from unsticky.testing import FakeClock
from unsticky.worker import worker


@pytest.fixture(autouse=True)
def worker_ends() -> Generator[None]:
    yield
    worker.close()


def many(count: int, begin: int = 0) -> list[Endpoint]:
    return [endpoint(f"h{i}", weight=i % 7 + 1) for i in range(begin, begin + count)]


def pool_of(balancer: str, endpoints: list[Endpoint]) -> Pool:
    lock = Lock()
    options = PoolOptions(endpoints=(), balancer=balancer, hash=HashOptions(table_size=65537))  # type: ignore[arg-type]
    return Pool("catalog", options, FakeClock(), Random(1), endpoints, lock=lock, aside=aside(lock))


def pick(pool: Pool, key: int) -> Endpoint:
    with pool.lock:
        lease = pool.lease(key, [], 0.0)
    lease.release()
    return lease.state.endpoint


def picker(pool: Pool) -> HashPicker:
    assert pool._choices._hashed
    return pool._choices._hashed.of(0)


@pytest.mark.parametrize("balancer", ["ring_hash", "maglev"])
def test_the_old_table_serves_until_the_new_one_is_there(balancer: str) -> None:
    """Who is gone is passed over at once, who is new joins at the swap, and then homes are those of a fresh pool."""
    pool = pool_of(balancer, many(3000))
    keys = [Random(n).getrandbits(64) for n in range(400)]
    before = {key: pick(pool, key) for key in keys}
    old = picker(pool)._table
    changed = many(2990, begin=20)  # ten new ones, twenty gone
    with pool.lock:
        pool.replace(changed)
        assert picker(pool)._table is old  # `replace` itself builds nothing
    during = {key: pick(pool, key) for key in keys}
    if picker(pool)._table is old:  # else this machine was quicker than we
        assert not set(during.values()) - set(changed)
        assert all(now == before[key] for key, now in during.items() if before[key] in changed)
    eventually(lambda: picker(pool)._table is not old)
    fresh = pool_of(balancer, changed)
    assert {key: pick(pool, key) for key in keys} == {key: pick(fresh, key) for key in keys}


def test_callers_do_not_wait_for_a_build() -> None:
    """While a table of ten thousand endpoints is built, no pick takes long, and `replace` builds nothing itself."""
    pool = pool_of("maglev", many(10_000))
    old = picker(pool)._table
    with pool.lock:
        pool.replace(many(9_999, begin=1))
    waits = []
    pick(pool, 1)  # the first after a change sorts the endpoints out
    deadline = time.monotonic() + 30
    while picker(pool)._table is old and time.monotonic() < deadline:
        begin = time.perf_counter()
        pick(pool, Random(len(waits)).getrandbits(64))
        waits.append(time.perf_counter() - begin)
    assert picker(pool)._table is not old
    waits.sort()
    assert len(waits) > 100
    assert waits[len(waits) // 2] < 0.001
    assert waits[int(len(waits) * 0.99)] < 0.05


def test_of_several_changes_the_last_one_counts() -> None:
    """A build that is overtaken ends early and installs nothing."""
    pool = pool_of("maglev", many(2000))
    for begin in (5, 10, 15):
        with pool.lock:
            pool.replace(many(2000, begin=begin))
    fresh = pool_of("maglev", many(2000, begin=15))
    expected = picker(fresh)._table
    eventually(lambda: vars_of(picker(pool)) == vars_of(picker(fresh)))
    assert expected is not None


def vars_of(hashed: HashPicker) -> list[Endpoint]:
    """The owners of the table's slots."""
    return [state.endpoint for state in hashed._table.slots]  # type: ignore[union-attr]


def test_a_pool_that_begins_empty_has_homes_at_once() -> None:
    """Small rings are made right away; a large first table is waited for by nobody: keys have a stand-in."""
    small = pool_of("ring_hash", [])
    with small.lock:
        small.replace(many(5))
    assert not picker(small).empty
    large = pool_of("maglev", [])
    with large.lock:
        large.replace(many(5))
    assert {pick(large, 7) for _ in range(5)} <= set(many(5))
    eventually(lambda: not picker(large).empty)


def test_an_unchanged_level_is_not_built_again() -> None:
    """An endpoint of another level came: the first level's table stays, and so it does when weights are the same."""
    pool = pool_of("maglev", many(5))
    old = picker(pool)._table
    with pool.lock:
        pool.replace([*many(5), endpoint("other", priority=1)])
    assert pool._choices._hashed
    eventually(lambda: pool._choices._hashed and not pool._choices._hashed.of(1).empty)
    assert picker(pool)._table is old
    with pool.lock:
        pool.replace([*many(4), endpoint("h4", weight=50), endpoint("other", priority=1)])
    eventually(lambda: picker(pool)._table is not old)


def test_pools_build_aside(caplog: pytest.LogCaptureFixture) -> None:
    """Over real servers: calls go on while the set changes, and a new endpoint gets its keys after the swap."""
    with upstream() as one, upstream() as two, upstream() as three:
        options = {"endpoints": [one.url, two.url], "balancer": "maglev", "hash": {"on": ["path"]}}
        with Pools.from_settings({"pools": {"catalog": options}}) as pools, pools.client() as client:
            pool = pools._pools["catalog"]

            def ports() -> set[int]:
                return {client.get(f"http://catalog/{n}").json()["port"] for n in range(40)}

            assert ports() == {one.port, two.port}
            old = picker(pool)._table
            with pool.lock:
                pool.replace(endpoint_from(EndpointOptions(url=each.url)) for each in (two, three))
                assert picker(pool)._table is old
            assert ports() <= {two.port, three.port}
            eventually(lambda: picker(pool)._table is not old)
            assert ports() == {two.port, three.port}
    assert not caplog.records


def test_a_build_that_fails_is_told_and_the_old_table_stays(caplog: pytest.LogCaptureFixture) -> None:
    """The next change tries again."""
    pool = pool_of("ring_hash", many(3))
    hashed = picker(pool)
    old = hashed._table

    def broken() -> Building:
        yield
        raise ZeroDivisionError("no sense")

    aside(pool.lock)([Build(hashed, hashed._wanted, broken())])
    eventually(lambda: "could not be built" in caplog.text)
    assert hashed._table is old
    assert pick(pool, 7) in many(3)
