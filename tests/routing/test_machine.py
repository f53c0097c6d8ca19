"""Any order of calls, outcomes, releases, cancellations, checks, discoveries and time: what must always hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import get_args

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.routing import Flow, endpoint
from unsticky.errors import AttemptsFailed, CallTimeout, NoHealthyEndpoint, PoolOverflow, RoutingError
from unsticky.routing.call import Call, Endpoint, Failure, Lease, Outcome, Send, Wait
from unsticky.routing.eligibility import Ranking
from unsticky.routing.endpoint import EndpointState
from unsticky.routing.flow import route
from unsticky.routing.options import Balancer, EjectionOptions, HealthOptions, LimitOptions, PoolOptions, RetryOptions
from unsticky.routing.pool import Pool
from unsticky.scalars import Duration
from unsticky.testing import FakeClock

WORLD = tuple(endpoint(name, weight=i % 3 + 1, priority=i // 3) for i, name in enumerate("abcdef"))
SETS = st.frozensets(st.sampled_from(WORLD), max_size=6)
ENDINGS = st.sampled_from([200, 200, 404, 429, 500, 503, *Failure])
RATIO, PER_SECOND = 0.2, 0.5


@dataclass
class Flight:
    """A call under way, as its driver knows it."""

    flow: Flow
    call: Call
    command: Send | Wait | None = None
    used: list[EndpointState] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class PoolMachine(RuleBasedStateMachine):
    """A driver that does everything a driver may do, at the worst moments."""

    @initialize(
        balancer=st.sampled_from(get_args(Balancer)),
        attempts=st.integers(1, 5),
        ejection=st.integers(0, 3),
        first=SETS,
        seed=st.integers(0, 99),
        panic=st.sampled_from([None, None, 0, 50]),
        most=st.sampled_from([None, None, 1, 3]),
        each=st.sampled_from([None, None, 1, 2]),
        subset=st.sampled_from([None, None, 1, 2]),
    )
    def begin(
        self,
        balancer: str,
        attempts: int,
        ejection: int,
        first: frozenset[Endpoint],
        seed: int,
        panic: int | None,
        most: int | None,
        each: int | None,
        subset: int | None,
    ) -> None:
        self.clock = FakeClock()
        options = PoolOptions(
            endpoints=(),
            balancer=balancer,  # type: ignore[arg-type]
            retry=RetryOptions(attempts=attempts, budget_ratio=RATIO, budget_per_second=PER_SECOND),
            ejection=EjectionOptions(consecutive_failures=ejection, base_time=Duration(5)),
            health=HealthOptions(),
            limits=LimitOptions(maximum_in_flight=most, maximum_in_flight_per_endpoint=each),
            panic_threshold=panic,
            subset_size=subset,
        )
        self.pool = Pool("catalog", options, self.clock, Random(seed), first)
        self.started = self.clock.monotonic()
        self.flights: list[Flight] = []
        self.bodies: list[Lease] = []  # responses that are open
        self.states: set[EndpointState] = set()  # all that were ever used
        self.calls = self.retries = 0

    # What a driver does -----------------------------------------------------

    @rule(
        method=st.sampled_from(["GET", "GET", "POST"]),
        key=st.none() | st.integers(0, 2**64 - 1),
        deadline=st.none() | st.floats(0, 3),
        replayable=st.booleans(),
    )
    def start(self, method: str, key: int | None, deadline: float | None, replayable: bool) -> None:
        until = None if deadline is None else self.clock.monotonic() + deadline
        call = Call(method, replayable, key, until)
        self.calls += 1
        self.step(Flight(route(self.pool, call), call), None)

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), ending=ENDINGS, retry_after=st.sampled_from([None, None, "0", "2", "9", "junk"]))
    def proceed(self, data: st.DataObject, ending: int | Failure, retry_after: str | None) -> None:
        flight = self.take(data)
        if isinstance(flight.command, Wait):
            self.clock.advance(flight.command.seconds)
            return self.step(flight, None)
        assert flight.command
        attempt = flight.command.attempt
        if isinstance(ending, Failure):
            outcome = Outcome(attempt, failure=ending, error=OSError("GET /secret"))
        else:
            outcome = Outcome(attempt, ending, {} if retry_after is None else {"retry-after": retry_after})
        flight.failed.append(attempt.endpoint.address)
        return self.step(flight, outcome)

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.take(data).flow.close()

    @precondition(lambda self: any(isinstance(flight.command, Send) for flight in self.flights))
    @rule(data=st.data())
    def ask_too_early(self, data: st.DataObject) -> None:
        flight = data.draw(st.sampled_from([one for one in self.flights if isinstance(one.command, Send)]))
        assert flight.flow.send(None) == Wait(float("inf"))

    @precondition(lambda self: self.bodies)
    @rule(data=st.data(), broken=st.booleans(), again=st.booleans())
    def end_body(self, data: st.DataObject, broken: bool, again: bool) -> None:
        lease = self.bodies.pop(data.draw(st.integers(0, len(self.bodies) - 1)))
        if broken:
            lease.body_failed()
        else:
            lease.release()
        if again:
            lease.release()
            lease.body_failed()

    @rule(endpoints=SETS)
    def discover(self, endpoints: frozenset[Endpoint]) -> None:
        self.pool.replace(endpoints)
        assert set(self.pool.endpoints) == endpoints

    @rule(one=st.sampled_from(WORLD), ok=st.booleans())
    def check(self, one: Endpoint, ok: bool) -> None:
        self.pool.report_health(one, ok)

    @rule(one=st.sampled_from(WORLD), draining=st.sampled_from([True, False, None]))
    def drain(self, one: Endpoint, draining: bool | None) -> None:
        assert self.pool.drain(one.url, draining) is (one in self.pool.endpoints)

    @rule(seconds=st.floats(0, 20))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # What must hold at a step -------------------------------------------------

    def step(self, flight: Flight, reply: Outcome | None) -> None:
        before = self.pool.snapshot()
        try:
            command = flight.flow.send(reply)
        except StopIteration as stop:
            return self.returned(stop.value, reply)
        except RoutingError as error:
            return self.raised(error, flight, reply)
        if isinstance(command, Send):
            self.picked(flight, command, before)
        flight.command = command
        self.flights.append(flight)
        return None

    def picked(self, flight: Flight, send: Send, before: tuple) -> None:  # type: ignore[type-arg]
        state = send.attempt.lease.state
        assert send.attempt.endpoint in {status.endpoint for status in before}, "a pick from outside the set"
        assert send.attempt.resend_count == len(flight.used) < self.pool.options.retry.attempts
        assert not state.draining
        self.within_limits(state)
        ranking, _ = self.pool.ranking()
        if flight.used or not ranking.panic:
            self.picked_from_the_best(flight, state, ranking)
        if self.pool.options.panic_threshold is None and any(
            one.healthy is not False and not one.draining for one in before
        ):
            assert state.healthy is not False, "an unhealthy one while there are others"
        if self.pool.options.panic_threshold == 0:
            assert state in ranking.fit
        if send.attempt.deadline is not None:
            assert send.attempt.deadline >= self.clock.monotonic()
        self.retries += bool(flight.used)
        self.states.add(state)
        flight.used.append(state)

    def within_limits(self, state: EndpointState) -> None:
        limits = self.pool.options.limits
        assert state.in_flight <= (limits.maximum_in_flight_per_endpoint or state.in_flight)
        assert self.pool._places.in_flight <= (limits.maximum_in_flight or self.pool._places.in_flight)

    def picked_from_the_best(self, flight: Flight, state: EndpointState, ranking: Ranking) -> None:
        each = self.pool.options.limits.maximum_in_flight_per_endpoint or 10**9
        fit = {one for tier in ranking.order for one in tier.states if one in ranking.fit}
        free = {one for one in fit if one.in_flight - (one is state) < each}
        untried = {one for one in free if one not in flight.used}
        if untried:
            assert state in untried, "used again, or unfit, while a fit one is untried"
            if flight.used:  # first attempts are shared by the levels
                assert state.endpoint.priority == min(one.endpoint.priority for one in untried)
            elif free == fit:
                assert state.endpoint.priority in dict(ranking.loads())

    def returned(self, outcome: Outcome, reply: Outcome | None) -> None:
        assert outcome is reply, "an outcome of another attempt"
        if outcome.status is not None:
            self.bodies.append(outcome.attempt.lease)

    def raised(self, error: RoutingError, flight: Flight, reply: Outcome | None) -> None:
        assert [one.endpoint for one in error.attempts] == flight.failed
        assert all(str(one) in str(error) for one in error.attempts)
        assert "secret" not in str(error)
        assert reply is None or reply.status is None, "a response was thrown away"
        ranking, _ = self.pool.ranking()
        if isinstance(error, NoHealthyEndpoint):
            assert not ranking.order
        elif isinstance(error, PoolOverflow):
            assert not error.attempts
            assert self.pool._places.exhausted or self.pool._places.full
        elif isinstance(error, CallTimeout):
            assert flight.call.deadline is not None
            assert self.clock.monotonic() >= flight.call.deadline - 0.001
        else:
            assert isinstance(error, AttemptsFailed)
            assert len(error.attempts) > 1 or not ranking.order or self.pool._places.in_flight

    # What must hold always ------------------------------------------------------

    @invariant()
    def in_flight_is_the_open_leases(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.snapshot()  # settles
        under_way = [one.command.attempt.lease for one in self.flights if isinstance(one.command, Send)]
        held = [lease.state for lease in (*under_way, *self.bodies)]
        for state in self.states | set(self.pool._states.values()):
            assert state.in_flight == held.count(state)
        assert self.pool._places.in_flight == len(held)

    @invariant()
    def retries_stay_in_the_budget(self) -> None:
        if hasattr(self, "pool"):
            elapsed = self.clock.monotonic() - self.started
            assert self.retries <= RATIO * self.calls + PER_SECOND * (10 + elapsed)

    def take(self, data: st.DataObject) -> Flight:
        return self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1)))

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for flight in self.flights:
            flight.flow.close()
        for lease in self.bodies:
            lease.release()
        self.pool.snapshot()
        assert all(state.in_flight == 0 for state in self.states)


PoolMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestPoolMachine = PoolMachine.TestCase
