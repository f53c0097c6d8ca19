"""What happened to a pool, for telemetry: recorded under the pool's lock, told outside of it."""

from __future__ import annotations

from dataclasses import dataclass

from .call import Endpoint


@dataclass(frozen=True, slots=True)
class Ejected:
    """An endpoint failed so often that it gets no calls for `seconds`. `cause` is the setting that it exceeded."""

    endpoint: Endpoint
    seconds: float
    failures: int
    cause: str = "consecutive_failures"


@dataclass(frozen=True, slots=True)
class Returned:
    """An ejection ended: its time was over, or the endpoint proved itself before."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """The active health checks changed their mind about an endpoint, or reached their first verdict."""

    endpoint: Endpoint
    healthy: bool


@dataclass(frozen=True, slots=True)
class FailedOver:
    """The best priority level that gets calls is another now; a lower number when that level recovered."""

    from_priority: int
    to_priority: int


@dataclass(frozen=True, slots=True)
class PanicChanged:
    """True: too few endpoints are fit, or none, so unfit ones are used too. False: that is over."""

    panic: bool


@dataclass(frozen=True, slots=True)
class LoadShifted:
    """Several priority levels share the calls, or did: percent by level."""

    loads: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Overflowed:
    """A call found no place, and was not sent. `limit` is the setting."""

    limit: str


@dataclass(frozen=True, slots=True)
class ReportIgnored:
    """An endpoint's load reports can't be read, and are ignored until one is right; told once until then."""

    endpoint: Endpoint
    reason: str


@dataclass(frozen=True, slots=True)
class DiscoveryFailed:
    """Where the endpoints come from could not tell them; told once until it can. The last ones stay."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class DiscoveryRecovered:
    """It can again, after `seconds`."""

    source: str
    seconds: float


@dataclass(frozen=True, slots=True)
class EndpointsChanged:
    """Discovery found another set than before, of `total` endpoints."""

    added: int
    removed: int
    total: int


@dataclass(frozen=True, slots=True)
class FaultsInjected:
    """Attempts fail or wait on purpose, so many percent of them; told with the first attempt."""

    abort_percent: float
    delay_percent: float


PoolEvent = (
    Ejected
    | Returned
    | HealthChanged
    | FailedOver
    | PanicChanged
    | LoadShifted
    | Overflowed
    | ReportIgnored
    | DiscoveryFailed
    | DiscoveryRecovered
    | EndpointsChanged
    | FaultsInjected
)
