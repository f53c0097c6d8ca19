"""A circuit breaker is outlier detection of a pool that uses nothing unfit: it fails fast, and then lets calls in."""

from __future__ import annotations

import pytest

from support.routing import OK, Run, get, make_pool, respond
from unsticky.errors import NoHealthyEndpoint
from unsticky.routing.options import EjectionOptions, RetryOptions
from unsticky.routing.pool import Pool
from unsticky.scalars import Duration
from unsticky.testing import FakeClock

# The defaults of Polly's: more than a tenth of at least 100 calls in 30 s, then 5 s without any.
BY_RATE = EjectionOptions(
    consecutive_failures=0,
    success_rate_deviations=0,
    failure_percentage=10,
    failure_percentage_endpoints=1,
    failure_percentage_requests=100,
    interval=Duration(30),
    base_time=Duration(5),
    maximum_time=Duration(5),
)
IN_A_ROW = EjectionOptions(consecutive_failures=5, base_time=Duration(5), maximum_time=Duration(5))
ONCE = RetryOptions(attempts=1)


def breaker(clock: FakeClock, ejection: EjectionOptions) -> Pool:
    return make_pool("a", clock=clock, ejection=ejection, retry=ONCE, panic_threshold=0)


def is_open(run: Run) -> bool:
    """Failed at once, and nothing was sent."""
    return isinstance(run.error, NoHealthyEndpoint) and not run.attempts


def thirty_seconds(pool: Pool, clock: FakeClock, failed: int, calls: int) -> bool:
    """So many of the calls fail, and the window ends. Is it open then?"""
    for number in range(calls):
        assert not is_open(get(pool, respond(500) if number < failed else OK))
    clock.advance(30)
    return is_open(get(pool))


@pytest.mark.parametrize(
    ("failed", "calls", "opens"), [(10, 100, False), (11, 100, True), (33, 99, False), (100, 100, True)]
)
def test_it_opens_by_rate_and_closes(failed: int, calls: int, opens: bool) -> None:
    """A tenth is not more than a tenth, and 99 calls are too few. It is open for five seconds."""
    clock = FakeClock()
    pool = breaker(clock, BY_RATE)
    assert thirty_seconds(pool, clock, failed, calls) is opens
    clock.advance(4.9)
    assert is_open(get(pool)) is opens
    clock.advance(0.2)
    assert get(pool).status == 200


def test_it_opens_after_failures_in_a_row() -> None:
    """At once, and again if the calls that it then lets in fail too."""
    clock = FakeClock()
    pool = breaker(clock, IN_A_ROW)
    for _ in range(2):
        assert [get(pool, respond(500)).status for _ in range(5)] == [500] * 5
        assert is_open(get(pool))
        clock.advance(5)
    assert get(pool).status == 200
