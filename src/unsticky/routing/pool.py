"""A pool: what is known of its endpoints, and leases on them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from math import inf
from random import Random

from ..clock import Clock
from ..errors import NoHealthyEndpoint
from .budget import RetryBudget
from .call import Endpoint, Lease
from .classify import Verdict
from .ejection import eject, may_eject, over_limit, take_back
from .eligibility import Ranking, choice, ranking
from .endpoint import EndpointState, EndpointStatus, endpoint_from
from .events import Ejected, FailedOver, HealthChanged, PanicChanged, PoolEvent, Returned
from .health import observe_check
from .options import PoolOptions
from .picker import picker_for

KEPT_EVENTS = 1000  # more than a driver leaves behind between two steps


class Pool:
    """The state of one pool. Not thread-safe: its owner holds `lock` around everything that is not marked otherwise.

    `lock` is the owner's, kept here so that all drivers of a pool share it; the pool itself never takes it.
    """

    def __init__(
        self,
        name: str,
        options: PoolOptions,
        clock: Clock,
        random: Random,
        endpoints: Iterable[Endpoint] | None = None,
        *,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self.name = name
        self.options = options
        self.clock = clock
        self.random = random
        self.lock: AbstractContextManager[object] = nullcontext() if lock is None else lock
        retry = options.retry
        self.budget = RetryBudget(retry.budget_ratio, retry.budget_per_second, clock.monotonic())
        self.releases: deque[Lease] = deque()
        self._events: deque[PoolEvent] = deque(maxlen=KEPT_EVENTS)
        self._picker = picker_for(options, random)
        self._states: dict[str, EndpointState] = {}  # by URL
        self._ranking = Ranking((), True)
        self._stale = False  # `_ranking` no longer fits the states
        self._next_return = inf  # when the first ejection ends
        self._priority: int | None = None  # the level that calls go to
        self.replace(map(endpoint_from, options.endpoints) if endpoints is None else endpoints)

    # What the owner does ------------------------------------------------

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The current set, ordered by priority and address. Needs no lock."""
        return tuple(state.endpoint for state in self._states.values())

    def replace(self, endpoints: Iterable[Endpoint]) -> None:
        """Use this whole set from now on. An endpoint that stays, by its URL, keeps its state.

        Of two with one URL the better priority, then the greater weight counts. An unchanged set changes nothing.
        """
        wanted: dict[str, Endpoint] = {}
        for endpoint in sorted(endpoints, key=_order):
            wanted.setdefault(endpoint.url, endpoint)
        if tuple(wanted.values()) == self.endpoints:
            return
        old, new = self._states, {}
        for url, endpoint in wanted.items():
            new[url] = state = old.get(url) or EndpointState(endpoint)
            state.endpoint = endpoint
        for url in old.keys() - new.keys():
            old[url].generation += 1  # what its calls still report concerns nobody
        self._states = new  # at once: `endpoints` is read without the lock
        self._picker.replace(tuple(new.values()))
        self._stale = True

    def report_health(self, endpoint: Endpoint, ok: bool) -> None:
        """One result of an active check. Results about endpoints that are gone are ignored."""
        state = self._states.get(endpoint.url)
        if state is None or not observe_check(state, ok, self.options.health, self.clock.monotonic()):
            return
        self._stale = True
        self._events.append(HealthChanged(state.endpoint, ok))
        # A check that turns good is news. One that was good all along saw nothing of the failures that ejected.
        if ok and state.ejected_until is not None:
            self._take_back(state, self.clock.monotonic())

    def snapshot(self) -> tuple[EndpointStatus, ...]:
        """The endpoints as they are now."""
        now = self.clock.monotonic()
        self._settle(now)
        return tuple(
            EndpointStatus(state.endpoint, state.in_flight, state.healthy, max(0.0, (state.ejected_until or now) - now))
            for state in self._states.values()
        )

    def drain_events(self) -> list[PoolEvent]:
        """What happened since the last time, oldest first. Needs no lock."""
        drained: list[PoolEvent] = []
        while self._events:
            try:
                drained.append(self._events.popleft())
            except IndexError:  # another thread was quicker
                break
        return drained

    # What the flow does -------------------------------------------------

    def lease(self, key: int | None, tried: list[EndpointState], now: float) -> Lease:
        """A place on the endpoint that a call which used `tried` so far should use next; adds it there.

        Raises NoHealthyEndpoint when the pool is empty.
        """
        self._settle(now)
        if not self._ranking.groups:
            raise NoHealthyEndpoint(f"pool {self.name!r} has no endpoints", pool=self.name)
        group, excluded = choice(self._ranking.groups, tried)
        state = group[0] if len(group) == 1 else self._picker.pick(group, key, excluded)
        state.in_flight += 1
        tried.append(state)
        return Lease(state, state.generation, self.releases.append)

    def observe(self, lease: Lease, verdict: Verdict, now: float) -> None:
        """What an attempt's headers, or their absence, say about its endpoint."""
        state = lease.state
        if verdict.good is None or lease.generation != state.generation:
            return
        if not verdict.good:
            state.failures += 1
            self._judge(state, now)
            return
        lease.good = True
        state.failures = 0
        if state.ejected_until is not None:  # a call that was sent there in panic proves that it is back
            self._take_back(state, now)
            lease.generation = state.generation  # its body may still break

    # Inside ---------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """Bring everything up to date that came to be without the lock, or by time alone."""
        while self.releases:
            self._give_back(self.releases.popleft(), now)
        if now >= self._next_return:
            self._return_ejected(now)
        if self._stale:
            self._rank()

    def _give_back(self, lease: Lease, now: float) -> None:
        if lease.settled:
            return
        lease.settled = True
        state = lease.state
        state.in_flight -= 1
        if lease.generation != state.generation:
            return
        if lease.broken:
            state.broken_bodies += 1
            self._judge(state, now)
        elif lease.good:
            state.broken_bodies = 0

    def _judge(self, state: EndpointState, now: float) -> None:
        options = self.options.ejection
        if not over_limit(state, options) or not may_eject(self._states.values(), options):
            return
        failures = state.failures + state.broken_bodies
        seconds = eject(state, options, now)
        self._next_return = min(self._next_return, now + seconds)
        self._stale = True
        self._events.append(Ejected(state.endpoint, seconds, failures))

    def _return_ejected(self, now: float) -> None:
        for state in self._states.values():
            if state.ejected_until is not None and now >= state.ejected_until:
                self._take_back(state, now)
        left = (state.ejected_until for state in self._states.values() if state.ejected_until is not None)
        self._next_return = min(left, default=inf)

    def _take_back(self, state: EndpointState, now: float) -> None:
        take_back(state, now)
        self._stale = True
        self._events.append(Returned(state.endpoint))

    def _rank(self) -> None:
        before, self._ranking = self._ranking, ranking(self._states.values())
        self._stale = False
        if not self._ranking.groups:
            return
        if self._ranking.fit != before.fit:
            self._events.append(PanicChanged(not self._ranking.fit))
        priority = self._ranking.groups[0][0].endpoint.priority
        if self._priority not in (None, priority):
            self._events.append(FailedOver(self._priority, priority))
        self._priority = priority


def _order(endpoint: Endpoint) -> tuple[int, str, int]:
    return endpoint.priority, endpoint.address, -endpoint.weight
