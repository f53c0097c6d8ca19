"""Leases, whole sets, and what others see of a pool."""

from __future__ import annotations

import gc
import threading
from random import Random

from support.routing import DOWN, OK, by_host, drive, endpoint, finish, get, in_flight, make_pool
from unsticky.routing.call import Call, Endpoint, Send
from unsticky.routing.endpoint import EndpointState, EndpointStatus
from unsticky.routing.events import FailedOver
from unsticky.routing.flow import route
from unsticky.routing.options import EjectionOptions, EndpointOptions, PoolOptions
from unsticky.routing.pool import KEPT_EVENTS, Pool
from unsticky.testing import FakeClock


def test_endpoints_come_from_options_or_from_outside() -> None:
    """What discovery found wins over the options."""
    options = PoolOptions(endpoints=(EndpointOptions(url="http://b"), EndpointOptions(url="http://a:8", priority=1)))
    own = Pool("catalog", options, FakeClock(), Random(1))
    assert [one.address for one in own.endpoints] == ["b:80", "a:8"]
    found = Pool("catalog", options, FakeClock(), Random(1), [endpoint("c")])
    assert found.endpoints == (endpoint("c"),)
    assert Pool("catalog", options, FakeClock(), Random(1), []).endpoints == ()


def test_in_flight_until_the_body_is_closed() -> None:
    """The headers don't give the place back; closing does, once."""
    pool = make_pool("a")
    run = drive(pool, Call("GET"), OK)
    assert in_flight(pool) == {"a:80": 1}
    for _ in range(3):
        finish(run)
        assert in_flight(pool) == {"a:80": 0}
    assert run.outcome
    run.outcome.attempt.lease.body_failed()
    assert in_flight(pool) == {"a:80": 0}


def test_two_threads_may_release_at_the_same_moment() -> None:
    """Both passed the check before either noted it: the place is still given back once."""
    pool = make_pool("a")
    runs = [drive(pool, Call("GET"), OK) for _ in range(2)]
    assert runs[0].outcome
    lease = runs[0].outcome.attempt.lease
    lease.release()
    lease.released = False
    lease.release()
    assert in_flight(pool) == {"a:80": 1}


def test_release_inside_the_lock_does_not_block() -> None:
    """A garbage collector may run a release while the lock is held."""
    pool = make_pool("a")
    pool.lock = threading.Lock()
    run = drive(pool, Call("GET"), OK)

    class Body:
        def __del__(self) -> None:
            finish(run)

    body = Body()
    with pool.lock:
        del body
        gc.collect()
    assert in_flight(pool) == {"a:80": 0}


def test_survivors_keep_their_state() -> None:
    """By URL: calls under way, ejection, health; a new weight is taken over."""
    pool = make_pool("a", "b", ejection=EjectionOptions(consecutive_failures=1))
    run = drive(pool, Call("POST"), OK)
    pool.report_health(endpoint("b"), False)
    drive(pool, Call("POST", retry=False), by_host(a=DOWN))
    assert pool.snapshot()[0].ejected_for
    before = {one.endpoint.address: one for one in pool.snapshot()}
    pool.replace(frozenset({endpoint("a", weight=7), endpoint("c"), endpoint("b")}))
    after = {one.endpoint.address: one for one in pool.snapshot()}
    assert after["a:80"].endpoint.weight == 7
    assert after["c:80"] == EndpointStatus(endpoint("c"), 0, None, 0.0)
    for address in ("a:80", "b:80"):
        one, other = before[address], after[address]
        assert (one.in_flight, one.healthy, one.ejected_for) == (other.in_flight, other.healthy, other.ejected_for)
    finish(run)
    assert sum(in_flight(pool).values()) == 0


def test_one_url_twice_is_one_endpoint() -> None:
    """The better priority, then the greater weight counts."""
    twice = [endpoint("a", priority=1), endpoint("a", weight=2), endpoint("a"), endpoint("b")]
    assert make_pool(*twice).endpoints == (endpoint("a", weight=2), endpoint("b"))


def test_an_unchanged_set_changes_nothing() -> None:
    """Discovery says the same again and again: rings and sequences stay."""
    pool = make_pool("a", "b", "c", balancer="ring_hash")
    get(pool)
    assert pool._choices._hashed
    picker, group = pool._choices._hashed.of(0), pool._ranking.order[0].states
    ring = picker._table
    assert ring is not None
    pool.replace(frozenset(reversed(pool.endpoints)))
    get(pool)
    assert pool._choices._hashed.of(0) is picker
    assert picker._table is ring
    assert pool._ranking.order[0].states is group


def test_picks_see_the_same_group_until_something_changes() -> None:
    """The ready list is kept between picks: no work per pick that grows with the pool."""
    pool = make_pool(*(f"h{i}" for i in range(50)))
    get(pool)
    group = pool._ranking.order[0].states
    for _ in range(10):
        get(pool)
    assert pool._ranking.order[0].states is group
    pool.report_health(endpoint("h7"), False)
    get(pool)
    assert len(pool._ranking.order[0].states) == 49


def test_a_level_that_is_removed_fails_over() -> None:
    """Also when discovery does it."""
    pool = make_pool("a", endpoint("b", priority=2))
    get(pool)
    pool.replace(frozenset({endpoint("b", priority=2)}))
    assert get(pool).hosts == ["b"]
    assert pool.drain_events() == [FailedOver(0, 2)]
    assert pool.drain_events() == []


def test_events_nobody_drains_are_bounded() -> None:
    """The oldest are lost, not the memory."""
    pool = make_pool("a")
    for i in range(4 * KEPT_EVENTS):
        pool.report_health(endpoint("a"), i % 4 < 2)
    assert len(pool.drain_events()) == KEPT_EVENTS


def test_leases_of_a_removed_endpoint_are_nobodys() -> None:
    """Its calls end in peace, and the endpoint that comes back under its URL starts at zero."""
    pool = make_pool("a")
    flow = route(pool, Call("GET"))
    send = next(flow)
    assert isinstance(send, Send)
    one: tuple[Endpoint, ...] = pool.endpoints
    pool.replace(frozenset())
    assert pool.snapshot() == ()
    pool.replace(one)
    flow.close()
    assert in_flight(pool) == {"a:80": 0}
    assert isinstance(send.attempt.lease.state, EndpointState)
    assert send.attempt.lease.state.in_flight == 0
