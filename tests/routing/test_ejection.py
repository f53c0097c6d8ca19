"""Ejection after consecutive failures, and return."""

from __future__ import annotations

import pytest

from support.routing import (
    DOWN,
    OK,
    Answer,
    Run,
    answers,
    by_host,
    drive,
    endpoint,
    fail,
    finish,
    get,
    make_pool,
    respond,
    state,
)
from unsticky.routing.call import Call, Failure, Outcome, Send
from unsticky.routing.ejection import eject, may_eject, over_limit, take_back
from unsticky.routing.events import Ejected, Returned
from unsticky.routing.flow import route
from unsticky.routing.options import EjectionOptions
from unsticky.routing.pool import Pool
from unsticky.scalars import Duration
from unsticky.testing import FakeClock

THRICE = EjectionOptions(consecutive_failures=3)


def post(pool: Pool, answer: Answer) -> Run:
    """A call that is made once."""
    run = drive(pool, Call("POST", retry=False), answer)
    finish(run)
    return run


def ejected(pool: Pool) -> dict[str, float]:
    return {one.endpoint.address[0]: one.ejected_for for one in pool.snapshot() if one.ejected_for}


def test_consecutive_failures_eject() -> None:
    """At the third in a row, for the base time, told as an event."""
    pool = make_pool("a", "b", ejection=THRICE, balancer="round_robin")
    bad = by_host(a=respond(500))
    for _ in range(5):
        post(pool, bad)
    assert ejected(pool) in ({}, {"a": 30.0})
    post(pool, bad)
    assert ejected(pool) == {"a": 30.0}
    assert pool.drain_events() == [Ejected(endpoint("a"), 30.0, 3)]
    assert {post(pool, bad).hosts[0] for _ in range(20)} == {"b"}


def test_a_success_in_between_starts_over() -> None:
    """Consecutive means consecutive; outcomes that say nothing neither count nor reset."""
    pool = make_pool("a", "b", ejection=THRICE)
    silent = (fail(Failure.CANCELLED), fail(Failure.LOCAL), respond(429))
    for answer in [DOWN, DOWN, OK, DOWN, DOWN, *silent, OK, DOWN, DOWN]:
        only_a(pool, answer)
    assert ejected(pool) == {}
    for answer in [*silent, DOWN]:
        only_a(pool, answer)
    assert ejected(pool) == {"a": 30.0}


def only_a(pool: Pool, answer: Answer) -> None:
    """One POST to endpoint a; those that are drawn for others are cancelled."""
    for _ in range(100):
        if post(pool, by_host(a=answer, b=fail(Failure.CANCELLED))).hosts == ["a"]:
            return
    raise AssertionError("endpoint a gets no calls")


def test_broken_bodies_eject() -> None:
    """An endpoint whose headers are always fine and whose bodies always break is ejected too."""
    pool = make_pool("a", "b", ejection=THRICE)
    for _ in range(3):
        for _ in range(100):
            run = drive(pool, Call("POST"), OK)
            assert run.outcome
            if run.hosts == ["a"]:
                run.outcome.attempt.lease.body_failed()
                break
            finish(run)
    assert ejected(pool) == {"a": 30.0}


def test_complete_bodies_reset_broken_ones() -> None:
    """Two broken, one complete, two broken: not three in a row."""
    pool = make_pool("a", ejection=THRICE)
    for broken in (True, True, False, True, True):
        run = drive(pool, Call("POST"), OK)
        assert run.outcome
        lease = run.outcome.attempt.lease
        if broken:
            lease.body_failed()
        lease.release()
    assert ejected(pool) == {}


def test_a_neutral_answer_does_not_reset_broken_bodies() -> None:
    """A complete 429 says nothing about the endpoint, its body neither."""
    pool = make_pool("a", ejection=THRICE)
    for answer in (OK, OK, respond(429), OK):
        run = drive(pool, Call("POST"), answer)
        assert run.outcome
        if run.status == 200:
            run.outcome.attempt.lease.body_failed()
        finish(run)
    assert ejected(pool) == {"a": 30.0}


def test_it_returns_and_stays_longer_the_next_time() -> None:
    """base * times, up to the maximum; one time is forgiven per interval without."""
    one, options = state("a"), EjectionOptions(base_time=Duration(30), maximum_time=Duration(100))
    now, seen = 0.0, []
    for good_time in (0, 0, 0, 0, 31, 65, 10_000):
        seconds = eject(one, options, now)
        seen.append(seconds)
        now += seconds
        take_back(one, now)
        now += good_time
    assert seen == [30, 60, 90, 100, 100, 60, 30]
    assert eject(one, options, now) == 30


def test_return_is_seen_by_the_next_pick() -> None:
    """No timer: the first call after the time finds it back."""
    clock = FakeClock()
    pool = make_pool("a", "b", clock=clock, ejection=EjectionOptions(consecutive_failures=1))
    only_a(pool, DOWN)
    clock.advance(29.9)
    assert {post(pool, OK).hosts[0] for _ in range(20)} == {"b"}
    clock.advance(0.2)
    assert {post(pool, OK).hosts[0] for _ in range(20)} == {"a", "b"}
    assert pool.drain_events() == [Ejected(endpoint("a"), 30.0, 1), Returned(endpoint("a"))]


def test_each_returns_at_its_own_time() -> None:
    """The second of two that were ejected ten seconds apart."""
    clock = FakeClock()
    pool = make_pool("a", "b", "c", "d", clock=clock, ejection=EjectionOptions(consecutive_failures=1))
    for name in "ab":
        for _ in range(100):
            post(pool, by_host(**{name: DOWN}))
        assert name in ejected(pool)
        clock.advance(10)
    assert ejected(pool) == {"a": 10.0, "b": 20.0}
    pool.drain_events()
    for name in "ab":
        clock.advance(10)
        pool.snapshot()
        assert pool.drain_events() == [Returned(endpoint(name))]
    assert {post(pool, OK).hosts[0] for _ in range(60)} == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("total", "percent", "most"),
    [(1, 50, 1), (2, 50, 1), (3, 50, 2), (4, 50, 2), (5, 50, 3), (5, 0, 1), (10, 30, 3), (3, 100, 3)],
)
def test_maximum_percent(total: int, percent: int, most: int) -> None:
    """Up to that share, rounded up; always at least one."""
    options = EjectionOptions(maximum_percent=percent, consecutive_failures=1)
    states = [state(f"h{i}") for i in range(total)]
    count = 0
    while count < total and may_eject(sum(one.ejected_until is not None for one in states), total, options):
        eject(states[count], options, 0.0)
        count += 1
    assert count == most


def test_zero_turns_it_off() -> None:
    """No failures ever eject."""
    pool = make_pool("a", "b", ejection=EjectionOptions(consecutive_failures=0))
    for _ in range(50):
        post(pool, DOWN)
    assert ejected(pool) == {}


def start(pool: Pool, method: str = "POST") -> tuple[object, Send]:
    flow = route(pool, Call(method))
    command = next(flow)
    assert isinstance(command, Send)
    return flow, command


def test_failures_of_an_earlier_era_are_dropped() -> None:
    """Ten calls were under way when the endpoint was ejected: those that fail later don't prolong or repeat it."""
    clock = FakeClock()
    pool = make_pool("a", clock=clock, ejection=THRICE)
    started = [start(pool) for _ in range(10)]
    for flow, send in started[:6]:
        with pytest.raises(StopIteration):
            flow.send(Outcome(send.attempt, 503))  # type: ignore[attr-defined]
        send.attempt.lease.release()
    assert ejected(pool) == {"a": 30.0}
    clock.advance(30)
    assert ejected(pool) == {}
    for flow, send in started[6:]:
        with pytest.raises(StopIteration):
            flow.send(Outcome(send.attempt, 503))  # type: ignore[attr-defined]
        send.attempt.lease.body_failed()
    assert ejected(pool) == {}
    assert [type(event) for event in pool.drain_events()].count(Ejected) == 1
    assert pool.snapshot()[0].in_flight == 0


def test_failures_sent_during_the_ejection_end_with_it() -> None:
    """A call that was sent in panic and fails after the return does not eject again."""
    clock = FakeClock()
    pool = make_pool("a", clock=clock, ejection=EjectionOptions(consecutive_failures=1))
    post(pool, DOWN)
    flow, send = start(pool)
    clock.advance(30)
    assert ejected(pool) == {}
    with pytest.raises(StopIteration):
        flow.send(Outcome(send.attempt, 503))  # type: ignore[attr-defined]
    send.attempt.lease.release()
    assert ejected(pool) == {}


def test_an_ejected_endpoint_is_not_ejected_again() -> None:
    """Failures in panic don't make the ejection longer."""
    assert over_limit(state("a", failures=3), THRICE)
    assert not over_limit(state("a", failures=9, ejected_until=5.0), THRICE)


def test_a_body_that_breaks_after_its_end_is_no_news() -> None:
    """The first word about a body is the last."""
    pool = make_pool("a", ejection=EjectionOptions(consecutive_failures=1))
    run = drive(pool, Call("POST"), OK)
    assert run.outcome
    run.outcome.attempt.lease.release()
    run.outcome.attempt.lease.body_failed()
    assert ejected(pool) == {}


def test_an_endpoint_that_left_and_came_back_is_new() -> None:
    """Failures of before its removal are not its own."""
    pool = make_pool("a", "b", ejection=EjectionOptions(consecutive_failures=1))
    flow, send = start(pool)
    gone = send.attempt.endpoint
    before = frozenset(pool.endpoints)
    pool.replace(before - {gone})
    pool.replace(before)
    with pytest.raises(StopIteration):
        flow.send(Outcome(send.attempt, 503))  # type: ignore[attr-defined]
    send.attempt.lease.body_failed()
    assert ejected(pool) == {}
    assert pool.drain_events() == []
    assert all(one.in_flight == 0 for one in pool.snapshot())


def test_a_success_in_panic_ends_the_ejection() -> None:
    """When all are ejected calls go on, and the first that succeeds proves its endpoint to be back."""
    pool = make_pool("a", ejection=THRICE)
    for _ in range(3):
        post(pool, DOWN)
    assert ejected(pool) == {"a": 30.0}
    assert post(pool, OK).status == 200
    assert ejected(pool) == {}


def test_a_body_that_breaks_after_the_return_counts() -> None:
    """The call whose headers ended the ejection belongs to the new era."""
    pool = make_pool("a", ejection=EjectionOptions(consecutive_failures=1))
    post(pool, DOWN)
    run = drive(pool, Call("POST"), OK)
    assert ejected(pool) == {}
    assert run.outcome
    run.outcome.attempt.lease.body_failed()
    assert ejected(pool) == {"a": 60.0}


def test_a_check_that_turns_good_ends_the_ejection() -> None:
    """One that was good all along does not: it did not see the failures."""
    pool = make_pool("a", "b", ejection=EjectionOptions(consecutive_failures=1))
    pool.report_health(endpoint("a"), True)
    only_a(pool, DOWN)
    pool.report_health(endpoint("a"), True)
    assert ejected(pool) == {"a": 30.0}
    for ok in (False, False, True, True):
        pool.report_health(endpoint("a"), ok)
    assert ejected(pool) == {}


def test_a_call_ejects_and_retries_elsewhere() -> None:
    """The very call whose failure ejects is saved by its retry."""
    pool = make_pool("a", "b", "c", ejection=EjectionOptions(consecutive_failures=1))
    run = get(pool, answers(DOWN, OK))
    assert run.status == 200
    assert run.hosts[0] != run.hosts[1]
    assert list(ejected(pool)) == [run.hosts[0]]


def test_a_pool_that_lost_two_of_three_recovers() -> None:
    """Both dead ones are ejected, and from then on no call needs a retry."""
    pool = make_pool("a", "b", "c")
    bad = by_host(a=DOWN, b=DOWN)
    for _ in range(40):
        assert get(pool, bad).status == 200
    assert sorted(ejected(pool)) == ["a", "b"]
    assert {tuple(get(pool, bad).hosts) for _ in range(40)} == {("c",)}
