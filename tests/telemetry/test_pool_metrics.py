"""The metrics of pools, as a collector receives them from the real SDK."""

from __future__ import annotations

import gc
import os
from typing import Any
from uuid import uuid4

import pytest

from support.otlp import Telemetry
from support.ports import free_port
from support.routing import DOWN, OK, answers, drive, endpoint, get, make_pool, respond
from support.upstream import upstream
from unsticky import Pools
from unsticky.routing.call import Call
from unsticky.routing.options import RetryOptions
from unsticky.routing.pool import Pool
from unsticky.telemetry.pool_metrics import MOST_ENDPOINTS, PoolMetrics, reported


@pytest.fixture
def name() -> str:
    """Of a pool: counts of a process stay, so that each test needs its own."""
    return f"pool-{uuid4().hex}"


def named(name: str, *endpoints: Any, **options: Any) -> Pool:
    pool = make_pool(*endpoints, retry=RetryOptions(backoff=0), **options)
    pool.name = name
    return pool


def points(otlp: Telemetry, metric: str, pool: str) -> dict[Any, float]:
    """The values of one pool's series, by what else their attributes say; None for a series with nothing else."""
    found = {}
    for point in otlp.points(f"unsticky.pool.{metric}"):
        if point.attributes.pop("unsticky.pool") == pool:
            found[next(iter(point.attributes.values()), None)] = point.value
    return found


def test_what_calls_count(otlp: Telemetry, name: str) -> None:
    """Calls, picks by endpoint, failed attempts and retries by reason, and what is in flight."""
    dead = f"127.0.0.1:{free_port()}"
    with upstream() as one:
        endpoints = [f"http://{dead}", {"url": one.url, "priority": 1}]
        settings = {"pools": {name: {"endpoints": endpoints, "retry": {"backoff": 0}}}}
        with Pools.from_settings(settings) as pools, pools.client() as client:
            client.get(f"http://{name}/")
            with client.stream("GET", f"http://{name}/"):
                assert points(otlp, "in_flight", name) == {None: 1}
            assert points(otlp, "calls", name) == {None: 2}
            assert points(otlp, "picks", name) == {dead: 2, one.address: 2}
            assert points(otlp, "attempts.failed", name) == {"connect": 2}
            assert points(otlp, "retries", name) == {"connect": 2}
            assert points(otlp, "retries.denied", name) == {None: 0}
            assert points(otlp, "retries.left", name) == {None: 98}
            assert points(otlp, "in_flight", name) == {None: 0}


def test_endpoints_by_state(otlp: Telemetry, name: str) -> None:
    """Each is in one."""
    pool = named(name, "a", "b", "c", endpoint("d", draining=True))
    reported.watch([pool])
    pool.report_health(pool.endpoints[1], False)
    assert points(otlp, "endpoints", name) == {"eligible": 2, "unhealthy": 1, "ejected": 0, "draining": 1}


def test_pools_that_are_gone_are_silent(otlp: Telemetry, name: str) -> None:
    """A dropped pool stops reporting; so does a closed one, until its next call, and no count is lost in between."""
    pool = named(name, "a")
    reported.watch([pool])
    get(pool)
    assert points(otlp, "calls", name) == {None: 1}
    reported.leave([pool])
    assert points(otlp, "calls", name) == points(otlp, "endpoints", name) == {}
    get(pool)
    reported.watch([pool])
    reported.watch([pool])
    assert points(otlp, "calls", name) == {None: 2}
    del pool
    gc.collect()
    assert points(otlp, "calls", name) == points(otlp, "endpoints", name) == {}


def test_two_pools_of_one_name(otlp: Telemetry, name: str) -> None:
    """They count together, and when one of them goes the sum stays: a counter that falls would read as a restart."""
    first, second = named(name, "a"), named(name, "a", "b")
    reported.watch([first, second])
    get(first, answers(respond(503), OK))
    get(second)
    assert points(otlp, "calls", name) == {None: 2}
    assert points(otlp, "endpoints", name)["eligible"] == 3
    del first
    gc.collect()
    assert points(otlp, "calls", name) == {None: 2}
    assert sum(points(otlp, "picks", name).values()) == 3
    assert points(otlp, "endpoints", name)["eligible"] == 2


def test_large_pools_have_a_bounded_number_of_series(otlp: Telemetry, name: str) -> None:
    """Endpoints beyond the first hundred, and those that left, count together."""
    pool = named(name, *(f"host-{number:03}" for number in range(150)), balancer="round_robin")
    reported.watch([pool])
    for _ in range(150):
        get(pool)
    picks = points(otlp, "picks", name)
    assert len(picks) == MOST_ENDPOINTS + 1
    assert picks[None] == 50
    pool.replace([endpoint("host-000")])
    assert points(otlp, "picks", name) == {"host-000:80": 1, None: 149}


def test_a_garbage_collector_may_come_anywhere(name: str) -> None:
    """Also while the lock is held: a dropped pool waits for it no more than it must."""
    metrics, pool = PoolMetrics(), named(name, "a")
    metrics.watch([pool])
    drive(pool, Call("GET"), DOWN)
    with metrics._lock:
        del pool
        gc.collect()
    assert metrics.pools() == {}
    metrics.watch([other := named(name, "a")])
    (_, _, tally), *_ = metrics.sums()
    assert (tally.calls, len(other.endpoints)) == (1, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_begins_anew(name: str) -> None:
    """The parent's pools are not the child's, and their locks may be held for ever."""
    pool = named(name, "a")
    reported.watch([pool])
    child = os.fork()
    if child == 0:
        os._exit(len(reported.pools()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
