"""Endpoints, and what a pool knows of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from .call import Endpoint
from .options import EndpointOptions
from .weights import Reported


def endpoint_from(options: EndpointOptions) -> Endpoint:
    """The endpoint that `options` describe. Raises ValueError, with what is allowed, when they can't be meant."""
    return Endpoint.of(
        options.url,
        weight=options.weight,
        priority=options.priority,
        locality=options.locality,
        draining=options.draining,
        host=options.host,
    )


@dataclass(slots=True, eq=False)
class EndpointState:
    """What a pool knows of one endpoint. Written by its pool only, under the pool's lock."""

    endpoint: Endpoint
    weight: float = 0.0  # the effective one: the endpoint's own until something says otherwise
    in_flight: int = 0  # leases that are not given back
    rtt: float = 0.0  # Peak EWMA of the seconds up to response headers; 0: it never answered
    rtt_at: float = 0.0  # when that was brought up to date
    generation: int = 0  # era; raised by an ejection and by removal
    place: int = 0  # in the order that subsets are cut by
    drained: bool | None = None  # what `Pool.drain` said; it outlives what discovery says
    draining: bool = False  # what follows from both
    # Active health checks. Unknown counts as healthy: an app that just started must not refuse its first calls.
    healthy: bool | None = None
    health_streak: int = 0  # results in a row that contradict `healthy`
    unhealthy_since: float = inf
    degraded: bool = False  # the last good check said so: used when healthy ones can't take all
    # Outlier detection. Times are monotonic seconds.
    failures: int = 0  # attempts in a row that failed up to their headers
    gateway_failures: int = 0  # those of them in a row that say "not reached": 502, 503, 504, no connection, too late
    local_failures: int = 0  # no connection or too late, in a row, where these are counted apart
    failing: bool = False  # it failed since its last success, or is ejected
    overload_failures: int = 0  # of all kinds in a row, those that an overload causes, too
    hard_failures: int = 0  # and those that none explains
    before: tuple[int, int] = (0, 0)  # the pool's successes and overload failures, ever, when these in a row began
    observed: int = 0  # attempts since the last sweep
    succeeded: int = 0  # those of them that were good
    overloaded: int = 0  # and those that failed as they do in an overload
    broken_bodies: int = 0  # responses in a row whose bodies broke off
    ejected_until: float | None = None
    ejections: int = 0  # Envoy's ejection time multiplier
    returned_at: float = -inf
    # What weighs it.
    ready_since: float = -inf  # it joined, or came back
    reported: Reported = field(default_factory=Reported)

    def __post_init__(self) -> None:
        self.weight = self.weight or self.endpoint.weight
        self.draining = self.endpoint.draining

    def set_draining(self) -> None:
        """After a change of `endpoint` or `drained`."""
        self.draining = self.endpoint.draining if self.drained is None else self.drained


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """A moment of an endpoint, for people and metrics."""

    endpoint: Endpoint
    in_flight: int
    healthy: bool | None  # None: not checked yet, or not at all
    ejected_for: float  # seconds from now; 0 when it is not ejected
    degraded: bool = False
    draining: bool = False
    reason: str = ""  # why it should get no calls now, in a few words
    weight: float = 1.0  # the effective one


def status(state: EndpointState, now: float, *, full: bool = False) -> EndpointStatus:
    """What is known of the endpoint at `now`. `full`: it has as many calls in flight as it may."""
    return EndpointStatus(
        state.endpoint,
        state.in_flight,
        state.healthy,
        max(0.0, (state.ejected_until or now) - now),
        state.degraded,
        state.draining,
        condition(state, now) or ("full" if full else ""),
        state.weight,
    )


def condition(state: EndpointState, now: float) -> str:
    """Why the endpoint should get no calls, or "" when it may."""
    if state.draining:
        return "draining"
    if state.healthy is False:
        return f"unhealthy for {now - state.unhealthy_since:.1f} s"
    if state.ejected_until is not None:
        return f"ejected for {max(0.0, state.ejected_until - now):.1f} s more"
    return ""
