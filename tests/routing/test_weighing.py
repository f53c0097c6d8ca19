"""Effective weights in a pool: when they change, who follows them, and what it costs the others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from support.routing import by_host, drive, endpoint, finish, get, make_pool, respond
from unsticky.routing.call import Call
from unsticky.routing.events import ReportIgnored
from unsticky.routing.explain import explain
from unsticky.routing.pool import Pool
from unsticky.routing.weight_options import LoadReportOptions, SlowStartOptions
from unsticky.scalars import Duration
from unsticky.testing import FakeClock

REPORTS = LoadReportOptions(enabled=True, blackout=Duration(0))
WINDOW = SlowStartOptions(window=Duration(60))


def weights(pool: Pool) -> dict[str, float]:
    return {status.endpoint.address[0]: round(status.weight, 3) for status in pool.snapshot()}


def call(pool: Pool, clock: FakeClock, headers: dict[str, str | None], legacy: str | None = None) -> str:
    """One call, whose response has the report that `headers` holds for its host."""
    run = drive(pool, Call("GET"), respond(200), clock)
    assert run.outcome is not None
    assert pool.weighing is not None
    host = run.hosts[0]
    pool.weighing.hear(run.outcome.attempt.lease, headers[host], legacy, clock.monotonic())
    finish(run)
    return host


def shares(pool: Pool, count: int = 3000) -> dict[str, float]:
    counted = Counter(get(pool).hosts[0] for _ in range(count))
    return {name: counted[name] / count for name in sorted(counted)}


SAID: dict[str, str | None] = {
    "a": "TEXT cpu_utilization=0.2,rps_fractional=100",  # 500
    "b": "TEXT cpu_utilization=0.4,rps_fractional=100",  # 250
    "c": "TEXT cpu_utilization=0.4,rps_fractional=100",
}


@pytest.mark.parametrize("balancer", ["weighted_round_robin", "least_request"])
def test_reports_become_shares(balancer: str) -> None:
    """The endpoint that says it can carry twice as much gets twice as many calls, from the next update on."""
    clock = FakeClock()
    pool = make_pool("a", "b", "c", clock=clock, balancer=balancer, load_report=REPORTS)
    for _ in range(30):
        call(pool, clock, SAID)
    assert weights(pool) == {"a": 1, "b": 1, "c": 1}
    clock.advance(1)
    assert weights(pool) == {"a": 1.5, "b": 0.75, "c": 0.75}
    assert shares(pool) == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25}, abs=0.02)


def test_weights_stay_between_updates() -> None:
    """Until the update period is over pickers get the very same group, so that nothing is made anew per call."""
    clock = FakeClock()
    pool = make_pool("a", "b", "c", clock=clock, balancer="weighted_round_robin", load_report=REPORTS)
    get(pool)
    clock.advance(1)
    before = pool.ranking()[0]
    for _ in range(20):
        clock.advance(0.03125)
        call(pool, clock, SAID)
    assert pool.ranking()[0] is before
    clock.advance(0.375)
    after = pool.ranking()[0]
    assert after.first[0].states == before.first[0].states
    assert after.first[0].states is not before.first[0].states
    assert after.first[0] is after.order[0]
    clock.advance(1)
    assert pool.ranking()[0] is after  # nothing changed


def test_reports_expire() -> None:
    """An endpoint that no longer reports goes back to its share by settings."""
    clock = FakeClock()
    pool = make_pool("a", "b", "c", clock=clock, balancer="weighted_round_robin", load_report=REPORTS)
    for _ in range(6):
        call(pool, clock, SAID)
    clock.advance(1)
    assert weights(pool)["a"] == 1.5
    clock.advance(180)
    assert weights(pool) == {"a": 1, "b": 1, "c": 1}


def test_blackout_in_a_pool() -> None:
    """The first ten seconds of reports change nothing."""
    clock = FakeClock()
    pool = make_pool(
        "a", "b", clock=clock, balancer="weighted_round_robin", load_report=LoadReportOptions(enabled=True)
    )
    for _ in range(20):
        call(pool, clock, SAID)
        assert weights(pool) == {"a": 1, "b": 1}
        clock.advance(0.5)
    clock.advance(1)
    assert weights(pool) == {"a": pytest.approx(4 / 3, abs=0.01), "b": pytest.approx(2 / 3, abs=0.01)}


def test_wrong_reports_are_ignored_and_told_once() -> None:
    """They change nothing, and the event says where and why, without a word of the report; a right one ends it."""
    clock = FakeClock()
    pool = make_pool("a", clock=clock, balancer="weighted_round_robin", load_report=REPORTS)
    wrong: dict[str, str | None] = {"a": "TEXT secret=1"}
    for said in (wrong, wrong, SAID, wrong):
        call(pool, clock, said)
        clock.advance(1)
    get(pool)
    told = [event for event in pool.drain_events() if isinstance(event, ReportIgnored)]
    assert told == [ReportIgnored(endpoint("a"), "an unknown metric")] * 2


def test_reports_of_a_former_life_are_dropped() -> None:
    """What was sent before an ejection says nothing about the endpoint that comes back."""
    clock = FakeClock()
    pool = make_pool("a", "b", clock=clock, balancer="weighted_round_robin", load_report=REPORTS)
    assert pool.weighing is not None
    runs = [drive(pool, Call("GET"), respond(200), clock) for _ in range(2)]
    for run in runs:
        assert run.outcome is not None
        run.outcome.attempt.lease.state.generation += 1
        pool.weighing.hear(run.outcome.attempt.lease, SAID[run.hosts[0]], None, clock.monotonic())
        finish(run)
    clock.advance(1)
    assert weights(pool) == {"a": 1, "b": 1}


def test_a_report_is_read_ten_times_a_second_at_most() -> None:
    """The calls between are counted only: reading costs more than a pick."""
    clock = FakeClock()
    pool = make_pool("a", clock=clock, balancer="weighted_round_robin", load_report=REPORTS)
    state = pool.ranking()[1][0]
    for rps in (100, 200, 300):
        call(pool, clock, {"a": f"TEXT cpu_utilization=0.5,rps_fractional={rps}"})
        clock.advance(0.0625)
    get(pool)
    assert (state.reported.weight, state.reported.calls) == (600, 3)


def test_slow_start_of_one_that_joins() -> None:
    """It begins with a tenth of its weight and has all of it after the window; the others keep theirs."""
    clock = FakeClock()
    pool = make_pool("a", "b", clock=clock, balancer="weighted_round_robin", slow_start=WINDOW)
    clock.advance(100)
    pool.replace([endpoint("a"), endpoint("b"), endpoint("c", weight=2)])
    assert weights(pool) == {"a": 1, "b": 1, "c": 0.2}
    assert shares(pool)["c"] == pytest.approx(0.2 / 2.2, abs=0.01)
    clock.advance(30)
    assert weights(pool)["c"] == 1.0
    clock.advance(30)
    assert weights(pool)["c"] == 2
    before = pool.ranking()[0]
    clock.advance(1000)
    assert pool.ranking()[0] is before


def test_slow_start_after_a_health_check_turns() -> None:
    """From unhealthy to healthy it begins; the first check of all is no return."""
    clock = FakeClock()
    pool = make_pool("a", "b", clock=clock, balancer="least_request", slow_start=WINDOW)
    a, b = pool.endpoints
    clock.advance(100)
    pool.report_health(a, True)
    pool.report_health(b, False)
    assert weights(pool) == {"a": 1, "b": 1}
    pool.report_health(b, True)
    pool.report_health(b, True)
    assert weights(pool) == {"a": 1, "b": 0.1}


def test_slow_start_after_an_ejection() -> None:
    """Also when it comes back from one."""
    clock = FakeClock()
    pool = make_pool("a", "b", clock=clock, balancer="weighted_round_robin", slow_start=WINDOW)
    clock.advance(100)
    for _ in range(100):
        get(pool, by_host(a=respond(500)), clock, retry=False)
    assert any(status.ejected_for for status in pool.snapshot())
    clock.advance(30)
    assert weights(pool) == {"a": 0.1, "b": 1}


def test_slow_start_of_reported_weight() -> None:
    """Both: the factor is of what the reports say."""
    clock = FakeClock()
    pool = make_pool("a", "b", clock=clock, balancer="weighted_round_robin", load_report=REPORTS, slow_start=WINDOW)
    clock.advance(30)
    for _ in range(4):
        call(pool, clock, {"a": SAID["a"], "b": SAID["a"]})
    clock.advance(1)
    assert weights(pool) == {"a": pytest.approx(31 / 60, abs=0.01), "b": pytest.approx(31 / 60, abs=0.01)}


@pytest.mark.parametrize("options", [{}, {"balancer": "weighted_round_robin"}])
def test_pools_whose_weights_stay_have_nothing_to_do(options: dict[str, Any]) -> None:
    """Neither reports nor slow start are on by default."""
    assert make_pool("a", "b", **options).weighing is None


def test_what_people_see_is_the_effective_weight() -> None:
    """`status` and `explain` show the weight that the balancer goes by."""
    clock = FakeClock()
    pool = make_pool("a", clock=clock, balancer="weighted_round_robin", slow_start=WINDOW)
    clock.advance(60)
    pool.replace([endpoint("a"), endpoint("b")])
    assert [(one.weight, round(one.share, 1)) for one in explain(pool)] == [(1, 90.9), (0.1, 9.1)]


@pytest.mark.parametrize("window", [1, 5])
@pytest.mark.parametrize("rate", ["reported", "ours"])
def test_the_loop_settles(rate: str, window: int) -> None:
    """Endpoints that carry 100, 50 and 10 calls per second get that many of 60, and go on so.

    They report the average of the last seconds, as ours do. With our own rate, which is of another time than the
    reported utilization, weights must not swing.
    """
    clock, carries = FakeClock(), {"a": 100, "b": 50, "c": 10}
    pool = make_pool(*carries, clock=clock, balancer="weighted_round_robin", load_report=REPORTS)
    history: dict[str, list[int]] = {name: [0] * window for name in carries}
    said: dict[str, str | None] = dict.fromkeys(carries, "TEXT eps=0")
    for second in range(60):
        seen: Counter[str] = Counter()
        for _ in range(60):
            seen[call(pool, clock, said)] += 1
            clock.advance(1 / 60)
        for name, most in carries.items():
            history[name].append(seen[name])
            rps = sum(history[name][-window:]) / window
            said[name] = f"TEXT cpu_utilization={rps / most}" + (f",rps_fractional={rps}" if rate == "reported" else "")
        if second >= 20:
            assert [seen[name] for name in carries] == pytest.approx([37.5, 18.75, 3.75], abs=3)
