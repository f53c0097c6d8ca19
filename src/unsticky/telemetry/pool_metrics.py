"""The metrics of pools: what their calls counted, read when an exporter asks.

Nothing here runs during a call. Several pools of one name, as of two `Pools`, count together; what one of them counted
stays in the sum when it is closed or dropped, so that no counter ever falls while another one of its name is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from operator import attrgetter
from threading import Lock
from weakref import finalize, ref

from opentelemetry.metrics import CallbackOptions, Observation

from ..routing.endpoint import EndpointState
from ..routing.pool import Pool
from ..routing.tally import GONE, Tally
from ..worker import in_forked_children
from .attributes import Attributes
from .otel import meter

MOST_ENDPOINTS = 100  # of a pool, that have picks of their own
Value = Mapping[str, int] | int


class PoolMetrics:
    """The pools that are reported. For any thread; a forked child begins without any."""

    def __init__(self) -> None:
        self._begin()
        in_forked_children(self._begin)

    def _begin(self) -> None:
        self._lock = Lock()
        self._live: dict[int, tuple[ref[Pool], finalize[..., Pool]]] = {}
        self._past: dict[str, Tally] = {}
        self._left: deque[tuple[str, Tally]] = deque()  # filled by a garbage collector, which must take no lock

    def watch(self, pools: Iterable[Pool]) -> None:
        """Report these from now on, as long as they live, until `leave`."""
        with self._lock:
            for pool in pools:
                known = self._live.get(id(pool))
                if known is None or known[0]() is not pool:
                    ending = finalize(pool, self._left.append, (pool.name, pool.tally))
                    ending.atexit = False
                    self._live[id(pool)] = ref(pool), ending

    def leave(self, pools: Iterable[Pool]) -> None:
        """Report these no longer. What they counted is kept for others of their name."""
        for pool in pools:
            with self._lock:
                _, ending = self._live.pop(id(pool), (None, None))
            if ending is not None and ending.detach():
                with pool.lock:
                    counted, pool.tally = pool.tally, Tally()
                self._left.append((pool.name, counted))

    def pools(self) -> dict[str, list[Pool]]:
        """The live ones by name."""
        found: dict[str, list[Pool]] = {}
        with self._lock:
            for key, (reference, _) in list(self._live.items()):
                if (pool := reference()) is None:
                    del self._live[key]
                else:
                    found.setdefault(pool.name, []).append(pool)
            while self._left:
                name, counted = self._left.popleft()
                self._past.setdefault(name, Tally()).add(counted)
        return found

    def sums(self) -> Generator[tuple[str, list[Pool], Tally]]:
        """What the pools of each name counted by now, together with those that are gone."""
        for name, pools in self.pools().items():
            sum_ = Tally()
            if past := self._past.get(name):
                sum_.add(past)
            for pool in pools:
                with pool.lock:
                    sum_.add(pool.tally)
            yield name, pools, sum_


reported = PoolMetrics()


def _counter(name: str, description: str, count: Callable[[Tally], Value], by: str = "", unit: str = "{call}") -> None:
    """A counter with one series per pool, or with one per pool and value of `unsticky.<by>`."""

    def observe(options: CallbackOptions) -> Generator[Observation]:
        for pool, _, tally in reported.sums():
            value = count(tally)
            if isinstance(value, int):
                yield Observation(value, {"unsticky.pool": pool})
                continue
            for key, one in value.items():
                yield Observation(one, {"unsticky.pool": pool, f"unsticky.{by}": key})

    meter.create_observable_counter(f"unsticky.pool.{name}", [observe], unit, description)


def _picks(options: CallbackOptions) -> Generator[Observation]:
    """By endpoint, while there are not too many. Those that left, and those beyond the limit, are one series."""
    for name, pools, tally in reported.sums():
        rest = tally.picks.pop(GONE, 0)
        named = sorted(tally.picks.keys() & {one.address for pool in pools for one in pool.endpoints})[:MOST_ENDPOINTS]
        for address in named:
            yield Observation(tally.picks.pop(address), {"unsticky.pool": name, "unsticky.endpoint": address})
        if rest := rest + sum(tally.picks.values()):
            yield Observation(rest, {"unsticky.pool": name})


def _gauge(values: Callable[[Pool], Mapping[str, int]], by: str, options: CallbackOptions) -> Generator[Observation]:
    for name, pools in reported.pools().items():
        sums: dict[str, int] = {}
        for pool in pools:
            for key, value in values(pool).items():
                sums[key] = sums.get(key, 0) + value
        for key, value in sums.items():
            attributes: Attributes = {"unsticky.pool": name}
            yield Observation(value, {**attributes, f"unsticky.{by}": key} if by else attributes)


def _endpoints(pool: Pool) -> dict[str, int]:
    """Each endpoint is in one state."""
    with pool.lock:
        _, states = pool.ranking()
    counts = {"eligible": 0, "ejected": 0, "unhealthy": 0, "draining": 0}
    for state in states:  # there may be thousands, and calls want the lock
        counts[_condition(state)] += 1
    return counts


def _condition(state: EndpointState) -> str:
    if state.draining:
        return "draining"
    if state.healthy is False:
        return "unhealthy"
    return "eligible" if state.ejected_until is None else "ejected"


def _in_flight(pool: Pool) -> dict[str, int]:
    with pool.lock:
        return {"": pool.in_flight()}


def _balance(pool: Pool) -> dict[str, int]:
    with pool.lock:
        return {"": pool.budget.balance(pool.clock.monotonic())}


_counter("calls", "Calls over a pool.", attrgetter("calls"))
meter.create_observable_counter(
    "unsticky.pool.picks", [_picks], "{attempt}", "Attempts, by the endpoint that was picked for each."
)
_counter("attempts.failed", "Attempts that failed.", attrgetter("failures"), "reason", "{attempt}")
_counter("retries", "Attempts that were made again.", attrgetter("retries"), "reason", "{attempt}")
_counter("retries.denied", "Retries that the budget had nothing left for.", attrgetter("denied"), unit="{attempt}")
_counter("hedges", "Attempts beside one that was under way.", attrgetter("hedges"), unit="{attempt}")
_counter("overflows", "Calls that found no place.", attrgetter("overflows"), "limit")
_counter("ejections", "Ejections of endpoints.", attrgetter("ejections"), "cause", "{ejection}")
_counter("rules", "Calls that a rule sent elsewhere.", attrgetter("rules"), "rule")
_counter("fallbacks", "Failed calls that a fallback answered.", attrgetter("fallbacks"), "fallback")
_counter("calls.failed", "Calls that failed for good, saved by a fallback or not.", attrgetter("failed"), "reason")
for _name, _unit, _description, _values, _by in (
    ("retries.left", "{attempt}", "Retries that the budget would allow now.", _balance, ""),
    ("endpoints", "{endpoint}", "Endpoints, by what is known of them.", _endpoints, "state"),
    ("in_flight", "{call}", "Calls under way, until their bodies are closed.", _in_flight, ""),
):
    meter.create_observable_gauge(f"unsticky.pool.{_name}", [partial(_gauge, _values, _by)], _unit, _description)
