"""One call, from the first pick to the last outcome."""

from __future__ import annotations

import re

import pytest

from support.routing import (
    DOWN,
    OK,
    Answer,
    Flow,
    answers,
    by_host,
    drive,
    endpoint,
    fail,
    get,
    in_flight,
    make_pool,
    respond,
)
from unsticky.errors import AttemptsFailed, CallTimeout, NoHealthyEndpoint
from unsticky.routing.call import Attempt, Call, Failure, Outcome, Send, Wait
from unsticky.routing.flow import route
from unsticky.routing.options import RetryOptions
from unsticky.scalars import Duration
from unsticky.testing import FakeClock

TIMEOUT = fail(Failure.TIMEOUT, TimeoutError())
BROKEN = fail(Failure.BROKEN, EOFError())


def test_a_success_is_one_attempt() -> None:
    """Its outcome is what the driver gave, and its lease stays with the driver."""
    pool = make_pool("a", "b")
    run = drive(pool, Call("GET"), OK)
    assert (run.status, len(run.attempts), run.waits) == (200, 1, [])
    assert run.attempts[0].resend_count == 0
    assert sum(in_flight(pool).values()) == 1


@pytest.mark.parametrize("first", [DOWN, TIMEOUT, BROKEN, respond(503), respond(429)])
def test_a_retry_goes_elsewhere(first: Answer) -> None:
    """After a wait, with its count, and nothing of the first attempt is left in flight."""
    pool = make_pool("a", "b", "c")
    run = drive(pool, Call("GET"), answers(first, first, OK))
    assert run.status == 200
    assert sorted(run.hosts) == ["a", "b", "c"]
    assert [attempt.resend_count for attempt in run.attempts] == [0, 1, 2]
    assert len(run.waits) == 2
    assert run.waits[0] < 0.025
    assert run.waits[1] < 0.075
    assert sum(in_flight(pool).values()) == 1


@pytest.mark.parametrize(
    ("call", "answer", "attempts"),
    [
        (Call("POST"), respond(503), 1),
        (Call("POST"), BROKEN, 1),
        (Call("POST"), DOWN, 3),
        (Call("POST", replayable=False), DOWN, 3),
        (Call("PUT", replayable=False), TIMEOUT, 1),
        (Call("PUT"), TIMEOUT, 3),
        (Call("GET", retry=False), DOWN, 1),
        (Call("GET"), respond(500), 1),
        (Call("GET"), respond(404), 1),
        (Call("GET"), fail(Failure.CANCELLED), 1),
        (Call("GET"), fail(Failure.LOCAL), 1),
    ],
)
def test_how_often(call: Call, answer: Answer, attempts: int) -> None:
    """The number of attempts when each ends the same."""
    assert len(drive(make_pool("a", "b", "c", "d"), call, answer).attempts) == attempts


def test_the_last_response_is_returned() -> None:
    """Attempts used up: a 503 is a response, and belongs to the caller with its lease."""
    pool = make_pool("a", "b", "c")
    run = drive(pool, Call("GET"), respond(503))
    assert (run.status, run.error, len(run.attempts)) == (503, None, 3)
    assert sum(in_flight(pool).values()) == 1


def test_a_single_failure_is_the_drivers_to_raise() -> None:
    """One attempt, no response: its own outcome, so that its own exception is raised."""
    pool = make_pool("a")
    run = drive(pool, Call("POST"), BROKEN)
    assert run.outcome
    assert isinstance(run.outcome.error, EOFError)
    assert in_flight(pool) == {"a:80": 0}


def test_all_attempts_failed() -> None:
    """One error, with every attempt's endpoint and reason, and nothing of the request."""
    pool = make_pool("a", "b", "c")
    run = drive(pool, Call("GET"), by_host(a=DOWN, b=TIMEOUT, c=BROKEN))
    assert isinstance(run.error, AttemptsFailed)
    assert set(map(str, run.error.attempts)) == {
        "a:80: could not connect (ConnectionRefusedError)",
        "b:80: no response in time (TimeoutError)",
        "c:80: connection broke (EOFError)",
    }
    assert re.fullmatch(r"pool 'catalog': all 3 attempts failed: (\w:80: [^;]+(; )?){3}", str(run.error))
    assert "secret" not in str(run.error)
    assert run.error.pool == "catalog"
    assert sum(in_flight(pool).values()) == 0


def test_only_the_last_outcome_decides() -> None:
    """A response at the end is returned whatever was before it; one before a failure is gone, and listed."""
    run = drive(make_pool("a", "b", "c"), Call("GET"), answers(DOWN, BROKEN, respond(503)))
    assert run.status == 503
    run = drive(make_pool("a", "b", "c"), Call("GET"), answers(respond(503), BROKEN, DOWN))
    assert isinstance(run.error, AttemptsFailed)
    assert str(run.error.attempts[0]).endswith(": status 503")


def test_errors_say_what_was_known() -> None:
    """An endpoint that was used although unfit is named so."""
    clock = FakeClock()
    pool = make_pool("a", "b", clock=clock)
    for one in pool.endpoints:
        pool.report_health(one, False)
    clock.advance(12)
    run = drive(pool, Call("GET"), DOWN)
    assert isinstance(run.error, AttemptsFailed)
    assert all(
        str(line).endswith("could not connect (ConnectionRefusedError) [unhealthy for 12.0 s]")
        for line in run.error.attempts
    )


@pytest.mark.parametrize("last", [Failure.CANCELLED, Failure.LOCAL])
def test_the_callers_own_endings_stay_their_own(last: Failure) -> None:
    """Cancellation, or a request that can't be sent, is never turned into AttemptsFailed."""
    run = drive(make_pool("a", "b"), Call("GET"), answers(DOWN, fail(last)))
    assert run.outcome
    assert run.outcome.failure is last


def test_no_endpoints() -> None:
    """An empty pool sends nothing and says so."""
    run = drive(make_pool(), Call("GET"), OK)
    assert isinstance(run.error, NoHealthyEndpoint)
    assert str(run.error) == "pool 'catalog' has no endpoints"
    assert run.error.attempts == ()


def test_all_endpoints_removed_in_the_middle() -> None:
    """The attempts that were made are not forgotten."""
    pool = make_pool("a")

    def last_breath(attempt: Attempt) -> Outcome:
        pool.replace(frozenset())
        return DOWN(attempt)

    run = drive(pool, Call("GET"), last_breath)
    assert isinstance(run.error, AttemptsFailed)
    assert [str(one) for one in run.error.attempts] == ["a:80: could not connect (ConnectionRefusedError)"]
    assert "has no endpoints, and the attempts before failed" in str(run.error)


# Time -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deadline", "call_timeout", "pool_timeout", "expected"),
    [
        (None, None, None, None),
        (2.0, None, None, 2.0),
        (None, 0.5, None, 0.5),
        (None, None, "700ms", 0.7),
        (None, 0.5, "700ms", 0.5),
        (0.3, 0.5, None, 0.3),
    ],
)
def test_attempts_have_the_smaller_deadline(
    deadline: float | None, call_timeout: float | None, pool_timeout: str | None, expected: float | None
) -> None:
    """The call's, or now + attempt_timeout."""
    clock = FakeClock(monotonic=100.0)
    options = RetryOptions(attempt_timeout=Duration(pool_timeout) if pool_timeout else None)
    call = Call("GET", deadline=None if deadline is None else 100.0 + deadline, attempt_timeout=call_timeout)
    run = drive(make_pool("a", clock=clock, retry=options), call, OK)
    assert run.attempts[0].deadline == (None if expected is None else pytest.approx(100.0 + expected))


def test_the_deadline_ends_the_call() -> None:
    """A timeout at the call's deadline is a CallTimeout, even of a single attempt, with the attempts in it."""
    clock = FakeClock()
    pool = make_pool("a", "b", "c", clock=clock)
    run = drive(pool, Call("GET", deadline=clock.monotonic() + 1.5), TIMEOUT, clock, took=0.74)
    assert isinstance(run.error, CallTimeout)
    assert len(run.error.attempts) == len(run.attempts) == 2
    assert "over after 2 attempts: " in str(run.error)
    run = drive(pool, Call("POST", deadline=clock.monotonic() + 1.0), TIMEOUT, clock, took=1.0)
    assert isinstance(run.error, CallTimeout)
    assert sum(in_flight(pool).values()) == 0


def test_an_attempt_timeout_is_not_the_calls() -> None:
    """While the call has time left the attempt's own exception is raised."""
    clock = FakeClock()
    call = Call("POST", deadline=clock.monotonic() + 9, attempt_timeout=1.0)
    run = drive(make_pool("a", clock=clock), call, TIMEOUT, clock, took=1.0)
    assert run.error is None
    assert run.outcome
    assert run.outcome.failure is Failure.TIMEOUT


def test_a_deadline_gone_by_sends_nothing() -> None:
    """The call is over before it began."""
    clock = FakeClock()
    run = drive(make_pool("a", clock=clock), Call("GET", deadline=clock.monotonic()), OK)
    assert isinstance(run.error, CallTimeout)
    assert run.attempts == []


def test_a_wait_that_overslept() -> None:
    """The event loop was busy: no attempt after the deadline."""
    clock = FakeClock()
    flow = route(make_pool("a", "b", clock=clock), Call("GET", deadline=clock.monotonic() + 1))
    send = next(flow)
    assert isinstance(send, Send)
    assert isinstance(flow.send(Outcome(send.attempt, 503)), Wait)
    clock.advance(5)
    with pytest.raises(CallTimeout, match=r"after 1 attempt: .*status 503"):
        flow.send(None)


def test_no_wait_beyond_the_deadline() -> None:
    """It ends with what it has instead: the response, or the failure."""
    clock = FakeClock()
    pool = make_pool("a", "b", clock=clock)
    run = drive(pool, Call("GET", deadline=clock.monotonic() + 2), respond(503, "2"), clock)
    assert (run.status, run.waits) == (503, [])
    run = drive(pool, Call("GET", deadline=clock.monotonic() + 2), respond(503, "1"), clock)
    assert (run.status, run.waits) == (503, [1.0])


# Retry-After -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("3", 3.0),
        ("5", 5.0),
        ("6", None),
        ("Tue, 14 Nov 2023 22:13:24 GMT", 4.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        ("Wed, 15 Nov 2023 22:13:24 GMT", None),
    ],
)
def test_retry_after_is_obeyed(header: str, wait: float | None) -> None:
    """As seconds and as a date, up to maximum_retry_after; a longer one ends the call with the response."""
    clock = FakeClock(time=1_700_000_000.0)  # Tue, 14 Nov 2023 22:13:20 GMT
    run = drive(make_pool("a", "b", clock=clock), Call("GET"), answers(respond(503, header), OK), clock)
    if wait is None:
        assert (run.status, run.waits) == (503, [])
    else:
        assert run.status == 200
        assert wait <= run.waits[0] <= max(wait, 0.025)


def test_retry_after_zero_still_backs_off() -> None:
    """A header must not synchronise all callers."""
    pool = make_pool("a", "b", "c")
    assert all(wait > 0 for wait in drive(pool, Call("GET"), respond(503, "0")).waits)


@pytest.mark.parametrize(
    ("header", "wait"), [("0", 0.0), ("1500", 1.5), ("5000", 5.0), ("5001", None), ("-1", None), ("x", None)]
)
def test_grpc_pushback_is_exact(header: str, wait: float | None) -> None:
    """gRFC A6: then, without jitter; negative or no number: not at all."""
    run = drive(make_pool("a", "b"), Call("GET"), answers(respond(503, grpc_retry_pushback_ms=header), OK))
    assert (run.status, run.waits) == ((503, []) if wait is None else (200, [wait]))


def test_after_a_pushback_the_backoff_begins_anew() -> None:
    """gRFC A6: the next wait without one is that of a first retry."""
    options = RetryOptions(attempts=4, backoff=Duration(1), maximum_backoff=Duration(100))
    push = respond(503, grpc_retry_pushback_ms="10")
    waits = [
        drive(make_pool("a", seed=seed, retry=options), Call("GET"), answers(DOWN, DOWN, push, OK)).waits[2]
        for seed in range(5)
    ]
    assert waits == [0.01] * 5
    waits = [
        drive(make_pool("a", seed=seed, retry=options), Call("GET"), answers(DOWN, push, DOWN, OK)).waits[2]
        for seed in range(200)
    ]
    assert 0.9 < max(waits) < 1  # a third one's would be up to 7


@pytest.mark.parametrize("refusal", ["x_envoy_ratelimited", "finagle_http_nonretryable_nack"])
def test_a_refusal_is_final(refusal: str) -> None:
    """The server says that another attempt is of no use; nothing is spent."""
    pool = make_pool("a", "b")
    before = pool.budget.balance(pool.clock.monotonic())
    run = drive(pool, Call("GET"), respond(503, **{refusal: "true"}))
    assert (run.status, len(run.attempts)) == (503, 1)
    assert pool.budget.balance(pool.clock.monotonic()) == before


# Budget -----------------------------------------------------------------------


def test_retries_spend_the_budget() -> None:
    """Ten in reserve and one per five calls; then the response is given as it is."""
    options = RetryOptions(budget_per_second=1.0)
    pool = make_pool("a", "b", "c", retry=options)
    attempts = sum(len(get(pool, respond(503)).attempts) for _ in range(100))
    assert 100 + 20 + 10 - 1 <= attempts <= 100 + 20 + 10


def test_nothing_is_spent_on_what_is_not_retried() -> None:
    """Calls that may not be repeated, or have no attempt left, leave the budget alone."""
    pool = make_pool("a", "b", retry=RetryOptions(attempts=1))
    full = pool.budget.balance(1000.0)
    for call in (Call("POST"), Call("GET"), Call("GET", retry=False)):
        drive(pool, call, respond(503))
    assert pool.budget.balance(1000.0) == full


@pytest.mark.parametrize("rate", [20, 200])
@pytest.mark.parametrize("answer", [DOWN, respond(503), TIMEOUT])
def test_total_outage(rate: int, answer: Answer) -> None:
    """Five minutes with every endpoint failing: attempts per call stay under 1.2 + 10 / rate, plus one reserve."""
    clock = FakeClock()
    pool = make_pool("a", "b", "c", clock=clock)
    calls, attempts = 300 * rate, 0
    for _ in range(calls):
        clock.advance(1 / rate)
        attempts += len(get(pool, answer).attempts)
        pool.drain_events()
    assert attempts / calls <= 1.2 + 10 / rate + 100 / calls
    assert get(pool).status == 200  # and the first that is up again is found


# Endings --------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_closing_leaves_nothing(steps: int) -> None:
    """The caller goes away before, during or between attempts."""
    pool = make_pool("a", "b")
    flow = route(pool, Call("GET"))
    reply = None
    for _ in range(steps):
        command = flow.send(reply)
        reply = Outcome(command.attempt, 503) if isinstance(command, Send) else None
    flow.close()
    assert sum(in_flight(pool).values()) == 0


def test_an_exception_thrown_in_leaves_nothing() -> None:
    """A driver may report its own trouble that way."""
    pool = make_pool("a")
    flow = route(pool, Call("GET"))
    next(flow)
    with pytest.raises(KeyboardInterrupt):
        flow.throw(KeyboardInterrupt())
    assert in_flight(pool) == {"a:80": 0}


def test_asked_too_early_it_waits() -> None:
    """None while an attempt is under way: nothing else to do."""
    flow = route(make_pool("a"), Call("GET"))
    send = next(flow)
    assert isinstance(send, Send)
    assert send.wait == float("inf")
    assert flow.send(None) == Wait(float("inf"))
    with pytest.raises(StopIteration):
        flow.send(Outcome(send.attempt, 200))


def test_a_killed_endpoint_fails_no_call() -> None:
    """200 idempotent calls are under way when one of three endpoints dies: all succeed."""
    pool = make_pool("a", "b", "c")
    flows: list[tuple[Flow, Send | Wait]] = []
    for _ in range(200):
        flow = route(pool, Call("GET"))
        flows.append((flow, next(flow)))
    statuses = []
    while flows:
        flow, command = flows.pop(0)
        try:
            flows.append((flow, flow.send(without_a(command))))
        except StopIteration as stop:
            statuses.append(stop.value.status)
            stop.value.attempt.lease.release()
    assert statuses == [200] * 200
    assert sum(in_flight(pool).values()) == 0


def without_a(command: Send | Wait) -> Outcome | None:
    """The world after a was killed: open calls to it break, new ones are refused."""
    if isinstance(command, Wait):
        return None
    if command.attempt.endpoint != endpoint("a"):
        return Outcome(command.attempt, 200)
    return (BROKEN if command.attempt.resend_count == 0 else DOWN)(command.attempt)
