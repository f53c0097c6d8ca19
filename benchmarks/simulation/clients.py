"""Client processes: each has a pool of its own, and drives the real flow at virtual times."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from math import inf
from random import Random

from unsticky.errors import RoutingError
from unsticky.routing.call import Attempt, Call, Endpoint, Failure, Outcome, Send, Wait
from unsticky.routing.flow import route
from unsticky.routing.health import checked, pause
from unsticky.routing.options import PoolOptions
from unsticky.routing.pool import Pool

from .figures import Tally
from .world import Agenda, Mode, Server

_HOP = 0.0005  # seconds to a server, and as long back
_CONNECT_TIMEOUT = 5.0  # seconds: httpx's own


class Flight:
    """One call on its way."""

    __slots__ = ("attempts", "began", "flow", "key", "turn")

    def __init__(self, flow: Generator[Send | Wait, Outcome | None, Outcome], began: float, key: int | None) -> None:
        self.flow: Generator[Send | Wait, Outcome | None, Outcome] | None = flow  # None: it is over
        self.began = began
        self.key = key
        self.turn = 0  # raised by each step: a timer of an earlier one is void
        self.attempts = 0


class Client:
    """One process. Its driver is event-driven, and does what the flow's package says that drivers do."""

    def __init__(
        self,
        options: PoolOptions,
        agenda: Agenda,
        servers: dict[str, Server],
        tally: Tally,
        random: Random,
        ended: Callable[[Client], None],
    ) -> None:
        """`ended`: one of its calls is over."""
        self.options = options
        self.pool = Pool("catalog", options, agenda.clock, random, [server.endpoint for server in servers.values()])
        self.random = random
        self._agenda = agenda
        self._servers = servers
        self._tally = tally
        self._ended = ended
        self._under_way: dict[int, Flight] = {}  # by the id of the attempt
        self._timeout = options.timeout

    def call(self, key: int | None) -> None:
        """A call begins."""
        now = self._agenda.clock.now
        deadline = None if self._timeout is None else now + self._timeout
        flight = Flight(route(self.pool, Call("GET", key=key, deadline=deadline)), now, key)
        self._step(flight, None)

    def _step(self, flight: Flight, reply: Outcome | None) -> None:
        flow = flight.flow
        assert flow is not None
        flight.turn += 1
        try:
            command = flow.send(reply)
        except StopIteration as end:
            end.value.attempt.lease.release()  # the body is short: it comes with the headers
            self._end(flight, end.value.status)
            return
        except RoutingError:
            self._end(flight, None)
            return
        if isinstance(command, Send):
            self._send(flight, command.attempt)
            wait = command.wait
        else:
            wait = command.seconds
        if wait != inf:
            self._agenda.at(self._agenda.clock.now + wait, self._due, (flight, flight.turn))

    def _end(self, flight: Flight, status: int | None) -> None:
        flight.flow = None
        self._tally.ended(flight.began, self._agenda.clock.now, flight.attempts, good=status == 200)
        self._ended(self)

    def _due(self, about: tuple[Flight, int]) -> None:
        flight, turn = about
        if flight.flow is not None and flight.turn == turn:
            self._step(flight, None)

    def _send(self, flight: Flight, attempt: Attempt) -> None:
        flight.attempts += 1
        now = self._agenda.clock.now
        self._tally.attempts[self._tally.bucket(now)] += 1
        outcome = Outcome(attempt)
        self._under_way[id(attempt)] = flight
        self._agenda.at(self._answer(outcome, now), self._answered, outcome)

    def _answer(self, outcome: Outcome, now: float) -> float:
        """Says in `outcome` how the attempt will end unless something happens. Returns when."""
        server, late = self._servers[outcome.attempt.endpoint.url], outcome.attempt.deadline
        late = inf if late is None else late
        if server.mode is Mode.UP:
            end = server.receive(now + _HOP)
            outcome.status = 503 if end is None else 200
            when = (now + _HOP if end is None else end) + _HOP
            if when <= late:
                return when
            outcome.status, outcome.failure = None, Failure.TIMEOUT
            return late
        if server.mode is Mode.HANGS:
            outcome.failure = Failure.TIMEOUT
            return late if late < inf else now + _CONNECT_TIMEOUT
        outcome.failure = Failure.CONNECT
        return now + 2 * _HOP if server.mode is Mode.REFUSES else min(late, now + _CONNECT_TIMEOUT)

    def _answered(self, outcome: Outcome) -> None:
        flight = self._under_way.pop(id(outcome.attempt))
        if flight.flow is None:  # it lost a race, and was cancelled
            return
        weighing = self.pool.weighing
        if weighing is not None and weighing.hears and outcome.status is not None:
            now = self._agenda.clock.now
            report = self._servers[outcome.attempt.endpoint.url].report(now)
            weighing.hear(outcome.attempt.lease, report, None, now)
        self._step(flight, outcome)

    # What the worker does in a real process ------------------------------

    def learn(self, endpoints: Iterable[Endpoint]) -> None:
        """Discovery says: these."""
        known = set(self.pool.endpoints)
        self.pool.replace(endpoints)
        for endpoint in self.pool.endpoints:
            if endpoint not in known:
                self._watch(endpoint)

    def watch(self, until: float) -> None:
        """Check the health of all, until then."""
        self._until = until
        for endpoint in self.pool.endpoints:
            self._watch(endpoint)

    def _watch(self, endpoint: Endpoint) -> None:
        if checked(self.options.health):
            now, interval = self._agenda.clock.now, self.options.health.interval
            self._agenda.at(now + self.random.uniform(0, interval), self._check, endpoint)

    def _check(self, endpoint: Endpoint) -> None:
        now, health = self._agenda.clock.now, self.options.health
        good = self._servers[endpoint.url].mode is Mode.UP
        healthy = self.pool.report_health(endpoint, good)
        if healthy is None or now > self._until:  # it left the set, or the show is over
            return
        self._agenda.at(now + pause(health, healthy, used=True, random=self.random), self._check, endpoint)

    @property
    def held(self) -> int:
        """Leases that were not given back."""
        return sum(status.in_flight for status in self.pool.snapshot())
