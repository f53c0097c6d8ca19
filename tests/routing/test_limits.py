"""Concurrency limits: who finds a place, and who fails at once."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import DOWN, OK, Run, answers, drive, endpoint, finish, get, in_flight, make_pool, state
from unsticky.errors import AttemptsFailed, PoolOverflow
from unsticky.routing.call import Call
from unsticky.routing.endpoint import EndpointState
from unsticky.routing.events import Overflowed
from unsticky.routing.explain import explain
from unsticky.routing.limits import Places
from unsticky.routing.options import EjectionOptions, LimitOptions
from unsticky.routing.pool import Pool

BALANCERS = ["round_robin", "weighted_round_robin", "random", "least_request", "ring_hash"]


def start(pool: Pool, key: int | None = None) -> Run:
    """A call whose body stays open."""
    return drive(pool, Call("GET", key=key), OK)


def test_a_pool_has_so_many_places() -> None:
    """The third of two fails at once and is told; a place that is given back is free."""
    pool = make_pool("a", "b", limits=LimitOptions(maximum_in_flight=2))
    runs = [start(pool), start(pool)]
    third = start(pool)
    assert isinstance(third.error, PoolOverflow)
    assert str(third.error) == "pool 'catalog': 2 calls are in flight, limits.maximum_in_flight is reached"
    assert third.error.pool == "catalog"
    assert third.attempts == third.waits == []
    assert pool.drain_events() == [Overflowed("maximum_in_flight")]
    finish(runs[0])
    assert start(pool).status == 200
    assert isinstance(start(pool).error, PoolOverflow)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_a_full_endpoint_is_passed_over(balancer: str) -> None:
    """Ten endpoints with three places each take thirty calls, whatever the balancer; the thirty-first fails."""
    names = [f"h{i}" for i in range(10)]
    limits = LimitOptions(maximum_in_flight_per_endpoint=3)
    pool = make_pool(*names, balancer=balancer, limits=limits)
    runs = [start(pool, key=7) for _ in range(30)]
    assert set(in_flight(pool).values()) == {3}
    assert isinstance(start(pool).error, PoolOverflow)
    finish(runs[4])
    again = start(pool)
    assert again.hosts == runs[4].hosts
    for run in [*runs, again]:
        finish(run)
    assert set(in_flight(pool).values()) == {0}


def test_full_ones_are_no_reason_for_unfit_ones() -> None:
    """An unhealthy and an ejected endpoint get nothing because the healthy one is full; the next level does."""
    limits, once = LimitOptions(maximum_in_flight_per_endpoint=1), EjectionOptions(consecutive_failures=1)
    pool = make_pool("a", "b", "c", limits=limits, ejection=once)
    pool.report_health(endpoint("b"), False)
    while not any(one.ejected_for for one in pool.snapshot()):
        get(pool, answers(DOWN, OK, OK), retry=False)
    assert start(pool).status == 200
    assert isinstance(start(pool).error, PoolOverflow)
    levels = make_pool("a", endpoint("b", priority=1), limits=limits)
    assert [start(levels).hosts for _ in range(2)] == [["a"], ["b"]]
    assert isinstance(start(levels).error, PoolOverflow)


def test_the_last_resort_has_places_too() -> None:
    """With all endpoints unhealthy they are used as far as they have places."""
    pool = make_pool("a", "b", limits=LimitOptions(maximum_in_flight_per_endpoint=1))
    for one in pool.endpoints:
        pool.report_health(one, False)
    assert sorted(start(pool).hosts[0] for _ in range(2)) == ["a", "b"]
    assert isinstance(start(pool).error, PoolOverflow)


def test_a_retry_that_finds_no_place() -> None:
    """Says what was tried before."""
    limits = LimitOptions(maximum_in_flight_per_endpoint=1)
    pool = make_pool("a", "b", limits=limits)
    first = start(pool)
    other = "ab".replace(first.hosts[0], "")

    def takes_its_place(attempt: object) -> object:
        pool.drain(f"{other}:80")
        return DOWN(attempt)  # type: ignore[arg-type]

    run = drive(pool, Call("GET"), takes_its_place)  # type: ignore[arg-type]
    assert isinstance(run.error, AttemptsFailed)
    assert run.hosts == [other]
    assert "maximum_in_flight_per_endpoint is reached, and the attempts before failed" in str(run.error)


def test_what_was_not_sent_earns_no_retries() -> None:
    """A storm of refused calls does not fill the retry budget."""
    pool = make_pool("a", limits=LimitOptions(maximum_in_flight=1))
    before = pool.budget.balance(pool.clock.monotonic())
    start(pool)
    for _ in range(1000):
        start(pool)
    assert pool.budget.balance(pool.clock.monotonic()) == before


def test_full_ones_are_shown() -> None:
    """In the status, and where it is explained who gets calls."""
    pool = make_pool("a", "b", limits=LimitOptions(maximum_in_flight_per_endpoint=1))
    busy = start(pool).hosts[0]
    assert {one.endpoint.address[0]: one.reason for one in pool.snapshot()}[busy] == "full"
    assert {one.address[0]: one.eligible for one in explain(pool)} == {name: name != busy for name in "ab"}


def test_the_last_free_one_of_many_is_found() -> None:
    """Also when it is one of a thousand."""
    pool = make_pool(*(f"h{i}" for i in range(1000)), limits=LimitOptions(maximum_in_flight_per_endpoint=1))
    hosts = Counter(start(pool).hosts[0] for _ in range(1000))
    assert set(hosts.values()) == {1}
    assert len(hosts) == 1000


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "give", "rank"]), st.integers(0, 5), st.integers(0, 63)), max_size=80
)


@given(STEPS, st.none() | st.integers(1, 3), st.none() | st.integers(1, 8), st.integers(0, 99))
def test_places_are_counted_right(
    steps: list[tuple[str, int, int]], each: int | None, most: int | None, seed: int
) -> None:
    """After any steps the counts are those that counting anew gives, and whoever is found has a place."""
    options = LimitOptions(maximum_in_flight=most, maximum_in_flight_per_endpoint=each)
    places, states, random = Places(options), [state(f"h{i}") for i in range(6)], Random(seed)
    groups: list[list[EndpointState]] = []
    for step, index, mask in steps:
        one = states[index]
        if step == "take" and not (each and one.in_flight >= each):
            places.take(one)
        elif step == "give" and one.in_flight:
            places.give_back(one)
        elif step == "rank":
            fit = [state for i, state in enumerate(states) if mask >> i & 1]
            groups = [group for group in (fit[:index], fit[index:]) if group]
            places.rank(groups)
        assert places.in_flight == sum(state.in_flight for state in states)
        assert places.full == {state for state in states if each and state.in_flight >= each}
        free = [state for group in groups for state in group if state not in places.full]
        if each and groups:
            assert places.free == len(free)
            tried = states[: index % 4]
            found = places.another(None, tried, random)
            assert found in ([state for state in free if state not in tried] or free or [None])
            if best := [state for state in groups[0] if state in free and state not in tried]:
                assert found in best
        assert (places.exhausted == "maximum_in_flight") is bool(most and places.in_flight >= most)
