"""A pool: what is known of its endpoints, and leases on them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from random import Random

from ..clock import Clock
from ..errors import PoolOverflow
from .budget import RetryBudget
from .call import Endpoint, Lease
from .choices import Choices
from .classify import Verdict
from .eligibility import Group, Ranking, Rules, by_priority, rank_levels, renewed
from .endpoint import EndpointState, EndpointStatus, endpoint_from, status
from .error_rate import ErrorRate
from .events import FaultsInjected, HealthChanged, Overflowed, PoolEvent
from .faults import Fault, Faults
from .hashed import Build
from .health import CheckResult, observe_check
from .hedging import Hedging
from .limits import Places
from .options import PoolOptions
from .outliers import Outliers
from .peak_ewma import observe, observe_failure, observe_unanswered
from .rules import Preference, windows
from .shifts import Loads, none_left, not_there, overflow, shifts
from .subset import place, watched
from .tally import Tally
from .weights import Weighing

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
        locality: str | None = None,
        aside: Callable[[Sequence[Build]], None] | None = None,
    ) -> None:
        """`locality` is where this process stands, unless the pool's own options say otherwise.

        `aside` is called with the lock held, and returns at once: it sees that large tables are built without the lock
        and then installed (routing/hashed.py). Without it `replace` builds them.
        """
        self.name = name
        self.options = options
        self.clock = clock
        self.random = random
        self.lock: AbstractContextManager[object] = nullcontext() if lock is None else lock
        retry = options.retry
        self.budget = RetryBudget(retry.budget_ratio, retry.budget_per_second, clock.monotonic())
        self.hedging = Hedging.of(options.hedge, clock.monotonic())
        self.faults = Faults.of(options.faults, random)
        self.releases: deque[Lease] = deque()
        self.used = False  # it has had a call
        self.tally = Tally()
        self.problem = ""  # why discovery fails, for errors of calls that find no endpoint
        self.error_rates = {length: ErrorRate(length, clock.monotonic()) for length in windows(options.rules)}
        self._events: deque[PoolEvent] = deque(maxlen=KEPT_EVENTS)
        self._places = Places(options.limits)
        self._choices = Choices(options, random, self._places)
        self._aside: Callable[[Sequence[Build]], None] | None = None  # nobody calls yet: first tables are made at once
        self._decay = options.peak_ewma.decay_time if options.balancer == "peak_ewma" else None
        self._rules = Rules.of(options, locality)
        self._seed = random.getrandbits(64) if options.subset_size else 0  # each process has a subset of its own
        self._levels: dict[int, Group] = {}
        self._states: dict[str, EndpointState] = {}  # by URL
        self._ranking = Ranking()
        self._watched: tuple[Ranking, tuple[Endpoint, ...]] = (self._ranking, ())
        self._stale = False  # `_ranking` no longer fits the states
        self._outliers = Outliers(options.ejection, random, self._tell)
        self.weighing = Weighing.of(options, self._tell)
        self._loads: Loads = ()
        self.replace(map(endpoint_from, options.endpoints) if endpoints is None else endpoints)
        self._aside = aside

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
        old, new, now = self._states, {}, self.clock.monotonic()
        for url, endpoint in wanted.items():
            state = old.get(url)
            if state is None:
                state = EndpointState(endpoint, place=place(endpoint.address, self._seed), ready_since=now)
            new[url] = state
            state.endpoint, state.weight = endpoint, endpoint.weight
            state.set_draining()
        for url in old.keys() - new.keys():
            old[url].generation += 1  # what its calls still report concerns nobody
            self.tally.forget((old[url].endpoint.address,))
        self._states = new  # at once: `endpoints` is read without the lock
        self._outliers.replace(new)
        self._levels = {level[0].endpoint.priority: level for level in by_priority(new.values())}
        if (builds := self._choices.replace(self._levels, at_once=self._aside is None)) and self._aside:
            self._aside(builds)
        self._stale = True

    def drain(self, name: str, draining: bool | None = True) -> bool:
        """Send no new calls to the endpoint with this URL or address; False: send them again; None: as its options say.

        Calls under way end in peace. True if there is such an endpoint. It holds as long as the endpoint is in the set.
        """
        found = [state for state in self._states.values() if name in (state.endpoint.url, state.endpoint.address)]
        for state in found:
            state.drained = draining
            state.set_draining()
            self._stale = True
        return bool(found)

    def watched(self) -> tuple[Endpoint, ...]:
        """Whose health should be checked: all, or with `subset_size` those that this process uses, or would."""
        size = self._rules.subset_size
        if size is None:
            return self.endpoints
        found, states = self.ranking()
        if found is not self._watched[0]:  # asked for every second or so, under the lock
            chosen = watched(states, found.fit, size, zones=self._rules.locality is not None)
            self._watched = found, tuple(state.endpoint for state in chosen)
        return self._watched[1]

    def report_health(self, endpoint: Endpoint, result: CheckResult | bool) -> bool | None:
        """One result of an active check. Returns the verdict by now; None about endpoints that are gone."""
        result = CheckResult(result) if isinstance(result, bool) else result
        state = self._states.get(endpoint.url)
        if state is None:
            return None
        if result.ok and state.degraded is not result.degraded:
            state.degraded = result.degraded
            self._stale = True
        known, now = state.healthy is not None, self.clock.monotonic()
        if observe_check(state, result, self.options.health, now):
            # Unknown counts as healthy: ranking a large pool anew after each first good check would stall its calls.
            self._stale = self._stale or known or not result.ok
            self._tell(HealthChanged(state.endpoint, result.ok))
            if result.ok and known:
                state.ready_since = now
            # A check that turns good is news. One that was good all along saw nothing of the failures that ejected.
            if result.ok and state.ejected_until is not None:
                self._outliers.back(state, now)
        return state.healthy

    def snapshot(self) -> tuple[EndpointStatus, ...]:
        """The endpoints as they are now."""
        now = self.clock.monotonic()
        self._settle(now)
        full = self._places.full
        return tuple(status(state, now, full=state in full) for state in self._states.values())

    def in_flight(self) -> int:
        """Calls under way, until their bodies are closed; those on endpoints that left the set, too."""
        self._settle(self.clock.monotonic())
        return self._places.in_flight

    def fit_percent(self) -> float:
        """How many of the endpoints are healthy, not ejected and not draining."""
        self._settle(self.clock.monotonic())
        return 100 * len(self._ranking.fit) / len(self._states) if self._states else 0.0

    def ended(self, *, failed: bool) -> None:
        """A call of the pool's own is over. Wanted only where there are `error_rates`."""
        now = self.clock.monotonic()
        for rate in self.error_rates.values():
            rate.observe(failed, now)

    def ranking(self) -> tuple[Ranking, tuple[EndpointState, ...]]:
        """Who gets calls now, and all states, for `routing.explain`."""
        self._settle(self.clock.monotonic())
        return self._ranking, tuple(self._states.values())

    def tell(self, event: PoolEvent) -> None:
        """Something happened to the pool outside of it. Needs no lock."""
        self._events.append(event)

    @property
    def has_news(self) -> bool:
        """Whether anything happened since `drain_events`. Needs no lock."""
        return bool(self._events)

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

    @property
    def size(self) -> int:
        """How many endpoints there are, fit or not."""
        return len(self._states)

    def has_untried(self, tried: Collection[EndpointState]) -> bool:
        """Whether there is a fit endpoint with a place that a call which used `tried` did not use."""
        self._settle(self.clock.monotonic())
        full = self._places.full
        return not self._places.exhausted and any(
            state not in tried and state not in full for state in self._ranking.fit
        )

    def lease(self, key: int | None, tried: list[EndpointState], now: float, prefer: Preference | None = None) -> Lease:
        """A place on the endpoint that a call which used `tried` so far should use next; adds it there.

        Raises NoHealthyEndpoint when the pool is empty, all drain, or `panic_threshold` is 0 and none is fit, and
        PoolOverflow when a limit is reached. `prefer`: what a rule said.
        """
        self._settle(now)
        ranking, places = self._ranking, self._places
        if not ranking.order:
            raise none_left(self.name, self._states.values(), now, self.problem)
        if limit := places.exhausted:
            raise self._overflow(limit)
        state = None if prefer is None else self._preferred(prefer, key, tried, now)
        if state is None and (state := self._choices.next(ranking, key, tried, now)) is None:
            raise self._overflow("maximum_in_flight_per_endpoint")
        places.take(state)
        self.used = True
        self.tally.picks[state.endpoint.address] += 1
        tried.append(state)
        return Lease(state, state.generation, self.releases.append, now)

    def observe(self, lease: Lease, verdict: Verdict, now: float) -> None:
        """What an attempt's headers, or their absence, say about its endpoint."""
        state = lease.state
        if verdict.good is None or lease.generation != state.generation:
            return
        if self._decay:
            _learn(lease, verdict.good, now, self._decay)
        if not verdict.good:
            self._outliers.bad(state, verdict.fault, now, overload=verdict.overload)
            return
        lease.good = True
        self._outliers.good(state, now)
        lease.generation = state.generation  # a new one after an ejection that the call ended: its body may still break

    def fault(self, faults: Faults, endpoint: Endpoint) -> Fault | None:
        """What happens to an attempt on purpose. That there are `faults` is told once."""
        if not faults.drawn:
            self._tell(FaultsInjected(self.options.faults.abort_percent, self.options.faults.delay_percent))
        return faults.draw(endpoint.address)

    def outrun(self, lease: Lease, now: float) -> None:
        """Another attempt answered first, and this one is given up: no failure, but the endpoint was slow so far."""
        if self._decay and lease.generation == lease.state.generation:
            observe_unanswered(lease.state, now - lease.began, now)

    # Inside ---------------------------------------------------------------

    def _tell(self, event: PoolEvent) -> None:
        self.tally.saw(event)
        self._events.append(event)

    def _preferred(
        self, prefer: Preference, key: int | None, tried: list[EndpointState], now: float
    ) -> EndpointState | None:
        """The endpoint that a rule wants, or None: any will do."""
        state, full = self._choices.preferred(prefer, self._ranking, self._states, key, tried, now)
        if state is None and prefer.only:
            raise self._overflow("maximum_in_flight_per_endpoint") if full else not_there(self.name)
        return state

    def _overflow(self, limit: str) -> PoolOverflow:
        self._tell(Overflowed(limit))
        return overflow(self.name, self._places.in_flight, limit)

    def _settle(self, now: float) -> None:
        """Bring everything up to date that came to be without the lock, or by time alone."""
        releases, outliers = self.releases, self._outliers
        while releases:
            self._give_back(releases.popleft(), now)
        if now >= outliers.due:
            outliers.tick(now)
        changed = self._stale or outliers.changed
        if self.weighing is not None:
            self._weigh(self.weighing, now, changed=changed)
        if changed:
            self._rank()

    def _weigh(self, weighing: Weighing, now: float, *, changed: bool) -> None:
        if weighing.heard:
            weighing.listen()
        if (changed or now >= weighing.due) and weighing.apply(self._states.values(), now) and not changed:
            self._ranking = renewed(self._ranking)

    def _give_back(self, lease: Lease, now: float) -> None:
        if lease.settled:
            return
        lease.settled = True
        state = lease.state
        self._places.give_back(state)
        if lease.generation != state.generation:
            return
        if lease.broken or (lease.good and state.broken_bodies):  # else there is nothing to note
            self._outliers.body(state, broken=lease.broken, now=now)

    def _rank(self) -> None:
        before, self._ranking = self._ranking, rank_levels(tuple(self._levels.values()), self._rules)
        self._stale = self._outliers.changed = False
        self._places.rank([tier.states for tier in self._ranking.fit_tiers])
        self._events.extend(shifts(before, self._ranking, self._loads))
        self._loads = self._ranking.loads() or self._loads


def _learn(lease: Lease, good: bool, now: float, decay: float) -> None:
    if good:
        observe(lease.state, now - lease.began, now, decay)
    else:
        observe_failure(lease.state, now - lease.began, now)


def _order(endpoint: Endpoint) -> tuple[int, str, int]:
    return endpoint.priority, endpoint.address, -endpoint.weight
