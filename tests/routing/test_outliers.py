"""Outlier detection by rates, and by kinds of failures (Envoy outlier detection, gRFC A50)."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import DOWN, OK, Answer, by_host, drive, fail, finish, get, make_pool, respond, state
from unsticky.routing.call import Call, Failure
from unsticky.routing.classify import Fault
from unsticky.routing.ejection import by_failure_percentage, by_success_rate, may_eject, success_rate_threshold
from unsticky.routing.endpoint import EndpointState
from unsticky.routing.events import Ejected, Returned
from unsticky.routing.options import EjectionOptions
from unsticky.routing.outliers import Outliers
from unsticky.routing.pool import Pool
from unsticky.scalars import Duration
from unsticky.testing import FakeClock

BY_RATE = EjectionOptions(consecutive_failures=0)


def observed(text: str) -> list[EndpointState]:
    """ "90/100 50/100": good answers of calls, per endpoint."""
    pairs = [word.split("/") for word in text.split()]
    return [state(f"h{i}", observed=int(calls), succeeded=int(good)) for i, (good, calls) in enumerate(pairs)]


def places(found: list[EndpointState]) -> str:
    return "".join(one.endpoint.address[1] for one in found)


def test_envoys_example() -> None:
    """Of 50, 100, 100, 100, 100: mean 90, deviation 20, threshold 52."""
    assert success_rate_threshold([50, 100, 100, 100, 100], 1.9) == pytest.approx(52)


@pytest.mark.parametrize(
    ("calls", "outliers"),
    [
        ("50/100 100/100 100/100 100/100 100/100", "0"),
        ("50/99 100/100 100/100 100/100 100/100", ""),  # only four have enough calls
        ("50/100 100/100 100/100 100/100", ""),  # only four
        ("0/100 0/100 0/100 0/100 0/100", ""),  # all alike: that is no outlier
        ("0/100 0/100 100/100 100/100 100/100", ""),  # two of five are within 1.9 deviations
        ("100/100 100/100 100/100 100/100 89/100", "4"),
        ("100/100 100/100 100/100 100/100 90/100", ""),  # good enough
        ("500/1000 100/100 100/100 100/100 100/100 0/10", "0"),
    ],
)
def test_success_rates(calls: str, outliers: str) -> None:
    """Below the mean by 1.9 deviations, of at least five endpoints with a hundred calls."""
    assert places(by_success_rate(observed(calls), BY_RATE)) == outliers


def test_envoys_rule_tolerates_nothing() -> None:
    """One failure of a hundred is an outlier among five that have none."""
    options = EjectionOptions(success_rate_tolerated=100)
    assert places(by_success_rate(observed("100/100 100/100 100/100 100/100 99/100"), options)) == "4"


@pytest.mark.parametrize(
    ("calls", "outliers"),
    [
        ("7/50 50/50 50/50 50/50 50/50", "0"),  # 86 %
        ("15/100 50/50 50/50 50/50 50/50", ""),  # 85 % is not more
        ("0/49 50/50 50/50 50/50 50/50", ""),
        ("0/50 50/50 50/50 50/50", ""),
        ("0/50 0/50 0/50 0/50 0/50", "01234"),  # however the others are: `maximum_percent` keeps half of them
    ],
)
def test_failure_percentages(calls: str, outliers: str) -> None:
    """More than 85 %, of at least five endpoints with fifty calls."""
    assert places(by_failure_percentage(observed(calls), BY_RATE)) == outliers
    assert by_failure_percentage(observed(calls), EjectionOptions(failure_percentage=100)) == []


def test_zero_turns_rates_off() -> None:
    """And an ejected endpoint neither counts nor is an outlier."""
    states = observed("0/200 100/100 100/100 100/100 100/100 100/100")
    assert by_success_rate(states, EjectionOptions(success_rate_deviations=0)) == []
    states[0].ejected_until = 9.0
    assert by_success_rate(states, BY_RATE) == by_failure_percentage(states, BY_RATE) == []


RATES = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300)).map(lambda p: (min(p), p[1])), max_size=12)


@given(RATES, st.floats(1, 3), st.integers(1, 8))
def test_the_best_is_never_an_outlier(rates: list[tuple[int, int]], deviations: float, least: int) -> None:
    """And whoever is worse than an outlier is one too."""
    options = EjectionOptions(
        success_rate_deviations=deviations, success_rate_endpoints=least, success_rate_tolerated=100
    )
    states = [state(f"h{i}", observed=calls, succeeded=good) for i, (good, calls) in enumerate(rates)]
    found = by_success_rate(states, options)
    seen = {one: one.succeeded / one.observed for one in states if one.observed >= 100}
    assert set(found) <= set(seen)
    if found:
        assert max(seen.values()) > max(seen[one] for one in found)
        assert {one for one in seen if seen[one] <= min(seen[x] for x in found)} <= set(found)
        assert len(seen) >= least


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, *Fault])), max_size=400), st.integers(0, 100))
def test_never_more_than_the_maximum(steps: list[tuple[int, Fault | None]], percent: int) -> None:
    """Whatever happens in whatever order, the share of ejected endpoints is kept, one at least is allowed."""
    options = EjectionOptions(consecutive_failures=2, maximum_percent=percent, interval=Duration(1))
    states = {one.endpoint.url: one for one in (state(f"h{i}") for i in range(10))}
    told: list[object] = []
    outliers = Outliers(options, Random(1), told.append)
    outliers.replace(states)
    for now, (index, fault) in enumerate(steps):
        one = states[f"http://h{index}:80"]
        if fault is None:
            outliers.good(one, now / 20)
        else:
            outliers.bad(one, fault, now / 20)
        if now / 20 >= outliers.due:
            outliers.tick(now / 20)
        out = sum(one.ejected_until is not None for one in states.values())
        assert out <= max(1, -(-percent * 10 // 100))
        kinds = [type(event) for event in told]
        assert out == kinds.count(Ejected) - kinds.count(Returned)


def call(pool: Pool, answer: Answer) -> None:
    finish(drive(pool, Call("POST", retry=False), answer))


def out(pool: Pool) -> str:
    return "".join(one.endpoint.address[0] for one in pool.snapshot() if one.ejected_for)


def test_a_pool_finds_the_one_that_fails_often() -> None:
    """Every other call fails, so that never five in a row do; after the interval it is out, at the next call."""
    clock = FakeClock()
    pool = make_pool(*"abcde", clock=clock, balancer="round_robin")
    turns = [0]

    def half(attempt: object) -> object:
        turns[0] += 1
        return (OK if turns[0] % 2 else respond(500))(attempt)  # type: ignore[arg-type]

    for _ in range(600):
        call(pool, by_host(a=half))  # type: ignore[arg-type]
        clock.advance(0.016)
    assert out(pool) == ""
    clock.advance(0.5)
    assert out(pool) == "a"
    [event] = [one for one in pool.drain_events() if isinstance(one, Ejected)]
    assert (event.cause, event.failures, event.seconds) == ("success_rate", 60, 30.0)
    clock.advance(30)
    assert out(pool) == ""
    assert pool.snapshot()[0].reason == ""


def test_each_interval_begins_anew() -> None:
    """What was seen before the last sweep does not count again."""
    clock = FakeClock()
    pool = make_pool(*"abcde", clock=clock, balancer="round_robin", ejection=BY_RATE)
    for _ in range(3):
        for _ in range(400):  # 80 each: too few for an interval
            call(pool, by_host(a=respond(500)) if _ % 2 else OK)
        clock.advance(10)
        pool.snapshot()
    assert out(pool) == ""


@pytest.mark.parametrize(
    ("answers", "options", "cause"),
    [
        ("5 5 5", {"consecutive_failures": 3}, "consecutive_failures"),
        ("5 g c", {"consecutive_failures": 3}, "consecutive_failures"),
        ("g g 5 g", {"consecutive_gateway_failures": 3}, ""),  # 500 is no gateway failure
        ("g c t", {"consecutive_gateway_failures": 3}, "consecutive_gateway_failures"),
        ("g g + g", {"consecutive_gateway_failures": 3}, ""),
        ("c c c", {"split_local_failures": True, "consecutive_failures": 3, "consecutive_local_failures": 0}, ""),
        ("c t c", {"split_local_failures": True, "consecutive_local_failures": 3}, "consecutive_local_failures"),
        ("c c 5 c", {"split_local_failures": True, "consecutive_local_failures": 3}, ""),  # it was reached
        ("5 c 5 c 5", {"split_local_failures": True, "consecutive_failures": 3}, "consecutive_failures"),
        ("c c c", {"consecutive_local_failures": 3}, ""),  # not split
        ("5 5 5", {"consecutive_failures": 3, "enabled": False}, ""),
    ],
)
def test_kinds_of_failures(answers: str, options: dict[str, object], cause: str) -> None:
    """Each kind has its counter, as in Envoy with and without split_external_local_origin_errors."""
    known = {"5": respond(500), "g": respond(503), "c": DOWN, "t": fail(Failure.TIMEOUT), "+": OK}
    pool = make_pool("a", ejection=EjectionOptions(**{"consecutive_failures": 0, **options}))  # type: ignore[arg-type]
    for word in answers.split():
        call(pool, known[word])
    assert [one.cause for one in pool.drain_events() if isinstance(one, Ejected)] == [cause][: bool(cause)]


def test_jitter_makes_an_ejection_longer() -> None:
    """So that endpoints that went together don't come back together."""
    options = EjectionOptions(consecutive_failures=1, maximum_jitter=Duration(10), maximum_percent=100)
    pool = make_pool("a", "b", "c", ejection=options)
    for _ in range(9):
        get(pool, DOWN)
    times = [one.ejected_for for one in pool.snapshot()]
    assert len(set(times)) == 3
    assert all(30 <= time <= 40 for time in times)


def test_a_full_pool_ejects_no_more() -> None:
    """At the very sweep that finds all five failing, three are ejected: half, rounded up."""
    clock = FakeClock()
    pool = make_pool(*"abcde", clock=clock, balancer="round_robin", ejection=BY_RATE)
    for _ in range(300):
        call(pool, respond(500))
    clock.advance(10)
    assert len(out(pool)) == 3
    assert not may_eject(3, 5, BY_RATE)
