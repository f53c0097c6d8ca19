"""Attempts beside slow ones: when they begin, what they cost, and what is left of the losers."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import ceil, inf
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.routing import DOWN, Flow, endpoint, fail, in_flight, make_pool, respond
from unsticky.errors import AttemptsFailed, CallTimeout, RoutingError
from unsticky.routing.call import Attempt, Call, Failure, Outcome, Read, Send, Wait
from unsticky.routing.flow import route
from unsticky.routing.hedge_options import HedgeOptions
from unsticky.routing.hedging import LEAST, Hedging, Quantile
from unsticky.routing.options import LimitOptions, RetryOptions
from unsticky.routing.pool import Pool
from unsticky.scalars import Duration
from unsticky.testing import FakeClock

AFTER = HedgeOptions(after=Duration("100ms"))
STEADY = RetryOptions(backoff=Duration(0))


# The quantile ------------------------------------------------------------------


@given(st.lists(st.floats(1e-5, 3000), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_quantile_is_that_of_the_sorted_list(seen: list[float], wanted: float) -> None:
    """At most a sixteenth too high, and never too low."""
    quantile = Quantile(wanted, 60.0, 0.0)
    for at, seconds in enumerate(seen):
        quantile.observe(seconds, 0.0)
        exact = sorted(seen[: at + 1])[ceil(round(wanted * (at + 1), 9)) - 1]
        assert exact <= quantile.value <= exact * (1 + 1 / 16) * 1.0001


def test_what_is_old_does_not_count() -> None:
    """All of the last half of the window does, and nothing that is older than the window."""
    quantile = Quantile(0.5, 10.0, 100.0)
    for _ in range(50):
        quantile.observe(1.0, 101.0)
    assert quantile.samples(105.5) == 50
    for _ in range(10):
        quantile.observe(0.01, 106.0)
    assert quantile.value >= 1.0
    assert quantile.samples(111.0) == 10
    assert quantile.value < 0.011
    assert quantile.samples(1000.0) == 0
    assert quantile.value == 0.0


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-12, 1e9])
def test_absurd_latencies_break_nothing(seconds: float) -> None:
    """A clock that stood still, or a call of years."""
    quantile = Quantile(0.95, 10.0, 0.0)
    quantile.observe(seconds, 0.0)
    assert 0 < quantile.value < 5000


def test_when_an_attempt_is_slow() -> None:
    """After a fixed time, or later than most were, once there are enough of them; never in less than a millisecond."""
    assert Hedging.of(HedgeOptions(), 0.0) is None
    assert Hedging(AFTER, 0.0).delay(0.0) == 0.1
    both = Hedging(HedgeOptions(after=Duration(1), quantile=0.9, minimum_samples=20), 0.0)
    alone = Hedging(HedgeOptions(quantile=0.9, minimum_samples=20), 0.0)
    for number in range(20):
        assert (both.delay(0.0), alone.delay(0.0)) == (1.0, inf)
        for one in (both, alone):
            one.answered(0.010 if number < 18 else 0.5, 0.0)
    assert both.delay(0.0) == alone.delay(0.0) == pytest.approx(0.010, rel=0.07)
    for _ in range(500):
        alone.answered(1e-5, 0.0)
    assert alone.delay(0.0) == LEAST


def test_losers_that_waited_long_count_and_others_do_not() -> None:
    """A hedge that was cut short after a moment must not make the pool look quick."""
    hedging = Hedging(HedgeOptions(quantile=0.5), 0.0)
    assert hedging.quantile
    hedging.answered(0.1, 0.0)
    hedging.outrun(0.01, 0.0)
    assert hedging.quantile.samples(0.0) == 1
    hedging.outrun(0.5, 0.0)
    assert hedging.quantile.samples(0.0) == 2


# The flow ----------------------------------------------------------------------


def begin(pool: Pool, call: Call | None = None) -> tuple[Flow, Send]:
    flow = route(pool, call or Call("GET"))
    send = next(flow)
    assert isinstance(send, Send)
    return flow, send


def hedged(pool: Pool, call: Call | None = None) -> tuple[Flow, Send, Send]:
    """A call whose first attempt was slow."""
    flow, first = begin(pool, call)
    second = flow.send(None)
    assert isinstance(second, Send)
    return flow, first, second


def answer(flow: Flow, attempt: Attempt, status: int = 200) -> Outcome:
    with pytest.raises(StopIteration) as stop:
        flow.send(Outcome(attempt, status))
    returned: Outcome = stop.value.value
    return returned


@pytest.mark.parametrize("winner", [0, 1])
def test_the_first_good_answer_wins(winner: int) -> None:
    """Whichever it is of; the other one gives its place back, and nobody is to blame."""
    pool = make_pool("a", "b", hedge=AFTER, ejection=None)
    flow, *sends = hedged(pool)
    first, second = sends
    assert (first.wait, second.wait) == (0.1, inf)
    assert first.attempt.endpoint != second.attempt.endpoint
    assert (first.attempt.hedge, second.attempt.hedge) == (False, True)
    assert (first.attempt.resend_count, second.attempt.resend_count) == (0, 1)
    assert sum(in_flight(pool).values()) == 2
    won = sends[winner].attempt
    assert answer(flow, won).attempt is won
    assert in_flight(pool)[won.endpoint.address] == 1
    assert sum(in_flight(pool).values()) == 1
    assert all(state.failures == 0 for state in pool._states.values())
    assert pool.tally.hedges == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_failure_does_not_end_a_call_with_hope(status: int) -> None:
    """The other attempt is waited for, as in Finagle's BackupRequestFilter."""
    pool = make_pool("a", "b", hedge=AFTER, retry=RetryOptions(attempts=2))
    flow, first, second = hedged(pool)
    assert flow.send(Outcome(first.attempt, status)) == Wait(inf)
    assert sum(in_flight(pool).values()) == 1
    assert answer(flow, second.attempt).status == 200


def test_when_all_fail_the_last_decides() -> None:
    """A response is returned, and without one the error has every attempt."""
    pool = make_pool("a", "b", hedge=AFTER, retry=RetryOptions(attempts=2))
    flow, first, second = hedged(pool)
    flow.send(DOWN(first.attempt))
    assert answer(flow, second.attempt, 503).status == 503
    flow, first, second = hedged(pool)
    flow.send(Outcome(second.attempt, 503))
    with pytest.raises(AttemptsFailed) as caught:
        flow.send(DOWN(first.attempt))
    assert len(caught.value.attempts) == 2


def test_a_retry_follows_a_failure_beside_the_other_attempt() -> None:
    """After its backoff, to the third endpoint; then there is none left."""
    pool = make_pool("a", "b", "c", hedge=AFTER, retry=STEADY)
    flow, first, second = hedged(pool)
    assert flow.send(Outcome(first.attempt, 503)) == Wait(0.0)
    third = flow.send(None)
    assert isinstance(third, Send)
    assert len({one.attempt.endpoint for one in (first, second, third)}) == 3
    assert third.attempt.hedge is False
    assert third.wait == inf
    assert flow.send(Outcome(third.attempt, 503)) == Wait(inf)
    assert answer(flow, second.attempt).status == 200


def test_a_refusal_ends_hedging() -> None:
    """gRFC A6: with a negative pushback there are no more attempts, but those in flight go on."""
    pool = make_pool("a", "b", "c", hedge=HedgeOptions(after=Duration(1), maximum=2), retry=STEADY)
    flow, first, second = hedged(pool)
    assert second.wait == 1.0
    assert flow.send(Outcome(first.attempt, 503, {"grpc-retry-pushback-ms": "-1"})) == Wait(inf)
    assert answer(flow, second.attempt).status == 200


@pytest.mark.parametrize("failure", [Failure.CANCELLED, Failure.LOCAL])
def test_the_callers_own_endings_end_it(failure: Failure) -> None:
    """What can't be sent once can't be sent twice."""
    pool = make_pool("a", "b", hedge=AFTER)
    flow, first, _ = hedged(pool)
    with pytest.raises(StopIteration):
        flow.send(fail(failure)(first.attempt))
    assert sum(in_flight(pool).values()) == 0


@pytest.mark.parametrize(
    ("call", "options"),
    [
        (Call("POST"), {}),
        (Call("GET", idempotent=False), {}),
        (Call("GET", replayable=False), {}),
        (Call("GET", hedge=False), {}),
        (Call("GET", retry=False), {}),
        (Call("GET"), {"retry": RetryOptions(attempts=1)}),
        (Call("GET", deadline=0.05), {}),
    ],
)
def test_what_is_never_hedged(call: Call, options: Any) -> None:
    """The driver is asked to wait for the outcome alone."""
    pool = make_pool("a", "b", hedge=AFTER, clock=FakeClock(monotonic=0.0), **options)
    _, send = begin(pool, call)
    assert send.wait == inf


def test_an_idempotency_key_is_enough() -> None:
    """Whatever the method."""
    assert begin(make_pool("a", "b", hedge=AFTER), Call("POST", idempotent=True))[1].wait == 0.1


def test_a_hedge_goes_to_a_fit_and_untried_endpoint_or_nowhere() -> None:
    """Neither to the same one, nor to one that is down or full."""
    assert begin(make_pool("a", hedge=AFTER))[1].wait == inf
    pool = make_pool("a", "b", hedge=AFTER)
    pool.report_health(endpoint("b"), False)
    flow, _ = begin(pool)
    assert flow.send(None) == Wait(inf)
    full = make_pool("a", "b", hedge=AFTER, limits=LimitOptions(maximum_in_flight_per_endpoint=1))
    other = begin(full)  # keeps its place
    flow, _ = begin(full)
    assert flow.send(None) == Wait(inf)
    assert not full.drain_events()
    assert not other[1].attempt.lease.released


def test_hedges_spend_the_retry_budget() -> None:
    """A pool that is slow as a whole is not asked twice for everything."""
    pool = make_pool("a", "b", hedge=AFTER, retry=RetryOptions(budget_per_second=1.0))
    hedges = 0
    for _ in range(100):
        flow, first = begin(pool)
        hedges += isinstance(flow.send(None), Send)
        answer(flow, first.attempt).attempt.lease.release()
    assert 20 + 10 - 1 <= hedges <= 20 + 10
    assert pool.tally.denied == 100 - hedges


def test_a_loser_was_at_least_so_slow() -> None:
    """peak_ewma learns that the endpoint took longer than the time that it was given."""
    clock = FakeClock()
    pool = make_pool("a", "b", hedge=AFTER, balancer="peak_ewma", clock=clock)
    flow, first, second = hedged(pool)
    clock.advance(0.4)
    answer(flow, second.attempt)
    assert first.attempt.lease.state.rtt == pytest.approx(0.4)


# A fuzzed driver ------------------------------------------------------------------


@dataclass
class Driver:
    """Runs calls at the same time, in virtual time; attempts take as long as they like, end as they like."""

    pool: Pool
    clock: FakeClock
    random: Random
    queue: list[Any] = field(default_factory=list)
    number: Any = field(default_factory=count)
    open: dict[int, Outcome] = field(default_factory=dict)  # responses that nobody closed, by id
    answered: int = 0

    def at(self, seconds: float, what: Any, *given: Any) -> None:
        heappush(self.queue, (self.clock.monotonic() + seconds, next(self.number), what, given))

    def run(self) -> None:
        while self.queue:
            time, _, what, given = heappop(self.queue)
            self.clock.advance(max(0.0, time - self.clock.monotonic()))
            what(*given)


class Client:
    """One call of the driver."""

    def __init__(self, driver: Driver, call: Call) -> None:
        self.driver, self.call = driver, call
        self.flow = route(driver.pool, call)
        self.flying: dict[int, Attempt] = {}
        self.used: list[Attempt] = []
        self.dropped: list[Attempt] = []  # outrun by one whose body is read: they do not count
        self.asked = 0  # a timer of an earlier command says nothing
        self.over = False
        self.step(None)

    def step(self, reply: Outcome | None) -> None:
        self.asked += 1
        try:
            command = self.flow.send(reply)
        except StopIteration as stop:
            return self.end(stop.value, reply)
        except RoutingError:
            return self.end(None, reply)
        if not isinstance(command, Read):
            self.discard(reply)
        if isinstance(command, Send):
            self.start(command.attempt)
            self.timer(command.wait)
        elif isinstance(command, Read):
            self.dropped += self.flying.values()
            self.flying.clear()
            self.driver.at(self.driver.random.random() * 0.1, self.body, command.outcome)
        else:
            assert command.seconds < inf or self.flying, "nothing will ever happen"
            self.timer(command.seconds)
        return None

    def start(self, attempt: Attempt) -> None:
        assert not attempt.hedge or attempt.endpoint not in [
            one.endpoint for one in self.used if one not in self.dropped
        ]
        self.used.append(attempt)
        self.flying[id(attempt)] = attempt
        random, status = self.driver.random, self.driver.random.choice([200, 200, 200, 429, 500, 503, *Failure])
        took = random.choice([0.01, 0.05, 0.1, 0.3, 2.0]) * random.random()
        if attempt.deadline is not None and self.driver.clock.monotonic() + took >= attempt.deadline:
            took, status = max(0.0, attempt.deadline - self.driver.clock.monotonic()), Failure.TIMEOUT
        self.driver.at(took, self.outcome, attempt, status)

    def outcome(self, attempt: Attempt, ending: int | Failure) -> None:
        if self.flying.pop(id(attempt), None) is None:
            return  # cancelled
        if isinstance(ending, Failure):
            return self.step(Outcome(attempt, failure=ending, error=OSError()))
        response = Outcome(attempt, ending, {} if ending >= 400 else None, response=object())
        self.driver.open[id(response)] = response
        return self.step(response)

    def body(self, outcome: Outcome) -> None:
        if self.over:
            return
        if self.driver.random.random() < 0.5:
            return self.step(outcome)
        self.discard(outcome)
        self.step(Outcome(outcome.attempt, failure=self.driver.random.choice([Failure.BROKEN, Failure.TIMEOUT])))
        return None

    def timer(self, seconds: float) -> None:
        if seconds < inf:
            self.driver.at(seconds, self.time_passed, self.asked)

    def time_passed(self, asked: int) -> None:
        if asked == self.asked and not self.over:
            self.step(None)

    def discard(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            self.driver.open.pop(id(outcome), None)

    def end(self, outcome: Outcome | None, reply: Outcome | None) -> None:
        self.over = True
        self.flying.clear()
        assert len(self.used) - len(self.dropped) <= self.driver.pool.options.retry.attempts
        if outcome is None or outcome.response is None:
            return self.discard(reply)
        assert outcome is reply
        self.driver.answered += 1
        self.discard(outcome)
        held = [one for one in self.used if not one.lease.released]
        assert held == [outcome.attempt]
        outcome.attempt.lease.release()
        return None

    def cancel(self) -> None:
        if not self.over:
            self.over = True
            self.flow.close()
            self.flying.clear()
            for outcome in list(self.driver.open.values()):
                if outcome.attempt in self.used:
                    self.discard(outcome)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    attempts=st.integers(2, 5),
    maximum=st.integers(1, 3),
    quantile=st.sampled_from([None, 0.9]),
    balancer=st.sampled_from(["least_request", "peak_ewma", "ring_hash", "round_robin"]),
    each=st.sampled_from([None, 2]),
)
def test_whatever_happens(
    seed: int, attempts: int, maximum: int, quantile: float | None, balancer: Any, each: int | None
) -> None:
    """Every lease is given back once, attempts and the budget are kept, and all responses but the one are closed."""
    clock, random = FakeClock(), Random(seed)
    pool = make_pool(
        "a", "b", "c",
        clock=clock, seed=seed, balancer=balancer,
        retry=RetryOptions(attempts=attempts, budget_per_second=0.5),
        hedge=HedgeOptions(after=Duration("50ms"), quantile=quantile, minimum_samples=5, maximum=maximum),
        limits=LimitOptions(maximum_in_flight_per_endpoint=each),
    )  # fmt: skip
    began = clock.monotonic()
    driver = Driver(pool, clock, random)
    clients: list[Client] = []

    def call() -> None:
        deadline = random.choice([None, clock.monotonic() + random.random() * 3])
        clients.append(
            Client(driver, Call(random.choice(["GET", "GET", "POST"]), deadline=deadline, buffer=random.choice([0, 9])))
        )
        if random.random() < 0.2:
            driver.at(random.random(), clients[-1].cancel)

    for _ in range(60):
        driver.at(random.random() * 10, call)
    driver.run()
    assert all(client.over for client in clients)
    assert not driver.open
    assert set(in_flight(pool).values()) == {0}
    assert all(attempt.lease.released and attempt.lease.settled for client in clients for attempt in client.used)
    paid = sum(pool.tally.retries.values()) + pool.tally.hedges
    assert paid <= 0.2 * len(clients) + 0.5 * (10 + clock.monotonic() - began)
    assert sum(len(client.used) for client in clients) <= pool.tally.calls + paid


# Bodies that are read first ---------------------------------------------------------


def test_a_body_that_breaks_off_is_tried_again() -> None:
    """It counts against its endpoint once, beside the headers, which were fine."""
    pool = make_pool("a", "b", retry=STEADY)
    flow, first = begin(pool, Call("GET", buffer=100))
    good = Outcome(first.attempt, 200)
    assert flow.send(good) == Read(good, 100)
    assert flow.send(fail(Failure.BROKEN)(first.attempt)) == Wait(0.0)
    state = first.attempt.lease.state
    assert sum(in_flight(pool).values()) == 0
    assert (state.broken_bodies, state.failures) == (1, 0)
    second = flow.send(None)
    assert isinstance(second, Send)
    assert second.attempt.endpoint != first.attempt.endpoint
    good = Outcome(second.attempt, 200)
    assert flow.send(good) == Read(good, 100)
    with pytest.raises(StopIteration) as stop:
        flow.send(good)
    assert stop.value.value is good


def test_a_hedge_that_was_outrun_is_asked_again_when_the_answers_body_breaks_off() -> None:
    """It failed nobody, and counts neither as tried nor as an attempt."""
    clock = FakeClock()
    retry = RetryOptions(attempts=2, backoff=Duration(0))
    pool = make_pool("a", "b", clock=clock, retry=retry, hedge=AFTER)
    flow, first = begin(pool, Call("GET", buffer=100))
    clock.advance(0.1)
    hedge = flow.send(None)
    assert isinstance(hedge, Send)
    good = Outcome(first.attempt, 200)
    assert flow.send(good) == Read(good, 100)
    assert hedge.attempt.lease.released
    assert flow.send(fail(Failure.BROKEN)(first.attempt)) == Wait(0.0)
    again = flow.send(None)
    assert isinstance(again, Send)
    assert again.attempt.endpoint == hedge.attempt.endpoint
    assert again.attempt.resend_count == 2
    answer(flow, again.attempt)


@pytest.mark.parametrize(
    "call", [Call("POST", buffer=9), Call("GET", buffer=0), Call("GET", buffer=9, replayable=False)]
)
def test_bodies_are_not_read_in_vain(call: Call) -> None:
    """Where there can be no retry the response is handed out at its headers."""
    flow, send = begin(make_pool("a", "b"), call)
    answer(flow, send.attempt)


def test_the_last_attempt_is_handed_out_as_it_comes() -> None:
    """And a failing status is never read."""
    pool = make_pool("a", "b", retry=RetryOptions(attempts=2, backoff=Duration(0)))
    flow, send = begin(pool, Call("GET", buffer=9))
    flow.send(respond(503)(send.attempt))
    second = flow.send(None)
    assert isinstance(second, Send)
    answer(flow, second.attempt)


def test_a_body_that_is_late_at_the_deadline() -> None:
    """The call's time is over."""
    clock = FakeClock()
    flow, send = begin(make_pool("a", "b", clock=clock), Call("GET", buffer=9, deadline=clock.monotonic() + 1))
    assert isinstance(flow.send(Outcome(send.attempt, 200)), Read)
    clock.advance(1)
    with pytest.raises(CallTimeout):
        flow.send(fail(Failure.TIMEOUT)(send.attempt))
