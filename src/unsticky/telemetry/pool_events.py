"""What happens to pools: as events on the caller's span, as counts, and as log lines."""

from __future__ import annotations

from ..routing.events import (
    DiscoveryFailed,
    DiscoveryRecovered,
    Ejected,
    EndpointsChanged,
    FailedOver,
    FaultsInjected,
    HealthChanged,
    LoadShifted,
    Overflowed,
    PanicChanged,
    PoolEvent,
    ReportIgnored,
    Returned,
)
from ..routing.pool import Pool
from .attributes import Attributes
from .log import pool_line
from .otel import pool_event


def report(pool: Pool) -> None:
    """Tell everything that happened to `pool` since the last time. Needs no lock of the pool's."""
    for event in pool.drain_events() if pool.has_news else ():
        name, details = described(event)
        pool_event(pool.name, name, details)
        pool_line(pool.name, name, details, pool.clock.monotonic())


def described(event: PoolEvent) -> tuple[str, Attributes]:
    """The event's name, and what there is to say about it."""
    match event:
        case Ejected(endpoint, seconds, failures, cause):
            details: Attributes = {"endpoint": endpoint.address, "seconds": seconds, "failures": failures}
            return "ejection", {**details, "cause": cause}
        case Returned(endpoint):
            return "recovery", {"endpoint": endpoint.address}
        case HealthChanged(endpoint, healthy):
            return "health", {"endpoint": endpoint.address, "healthy": healthy}
        case FailedOver(from_priority, to_priority):
            return "failover", {"from_priority": from_priority, "to_priority": to_priority}
        case PanicChanged(panic):
            return "panic", {"panic": panic}
        case Overflowed(limit):
            return "overflow", {"limit": limit}
        case LoadShifted(loads):
            return "load_shift", {"loads": " ".join(f"{priority}:{percent}%" for priority, percent in loads)}
        case DiscoveryFailed(source, reason):
            return "discovery_failed", {"source": source, "reason": reason}
        case DiscoveryRecovered(source, seconds):
            return "discovery_recovered", {"source": source, "seconds": seconds}
        case EndpointsChanged(added, removed, total):
            return "endpoints_changed", {"added": added, "removed": removed, "total": total}
        case ReportIgnored(endpoint, reason):
            return "report_ignored", {"endpoint": endpoint.address, "reason": reason}
        case FaultsInjected(abort_percent, delay_percent):
            return "faults_injected", {"abort_percent": abort_percent, "delay_percent": delay_percent}
