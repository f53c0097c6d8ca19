"""Active health checks: from single results to a verdict."""

from __future__ import annotations

from math import inf

from .endpoint import EndpointState
from .options import HealthOptions


def observe_check(state: EndpointState, ok: bool, options: HealthOptions, now: float) -> bool:
    """Note one result. True when the verdict changed. The first result of all is a verdict by itself."""
    if state.healthy is ok:
        state.health_streak = 0
        return False
    state.health_streak += 1
    if state.healthy is not None and state.health_streak < _threshold(ok, options):
        return False
    state.healthy = ok
    state.health_streak = 0
    state.unhealthy_since = inf if ok else now
    return True


def _threshold(ok: bool, options: HealthOptions) -> int:
    return options.healthy_threshold if ok else options.unhealthy_threshold
