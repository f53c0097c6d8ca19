"""Active health checks: from answers to results, from results to a verdict, and when to ask again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from random import Random
from urllib.parse import urlsplit

from .endpoint import EndpointState
from .options import HealthOptions

MOST_BODY = 65536  # bytes of an answer that are searched for the expected text


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found. `decisive`: bad beyond doubt, whatever the threshold; `degraded`: good, but spare it."""

    ok: bool
    decisive: bool = False
    degraded: bool = False
    reason: str = field(default="", compare=False)  # why it is bad, in a few words


GOOD = CheckResult(True)
BAD = CheckResult(False)


def checked(options: HealthOptions) -> bool:
    """Are there checks at all?"""
    return options.type == "tcp" or options.path is not None


def judged(status: int, headers: Mapping[str, str], body: str, options: HealthOptions) -> CheckResult:
    """The result of an HTTP answer. `headers` finds names in lower case; `body` may be cut.

    As in Envoy a status that is neither expected nor retriable is decisive: the endpoint itself says that it is ill.
    """
    if status not in options.statuses:
        return CheckResult(False, decisive=status not in options.retriable_statuses, reason=f"status {status}")
    if options.body is not None and options.body not in body:
        return CheckResult(False, reason="the expected text is not in the answer")
    return CheckResult(True, degraded=options.degraded_header.lower() in headers)


def observe_check(state: EndpointState, result: CheckResult, options: HealthOptions, now: float) -> bool:
    """Note one result. True when the verdict changed. The first result of all is a verdict by itself."""
    if state.healthy is result.ok:
        state.health_streak = 0
        return False
    state.health_streak += 1
    enough = options.healthy_threshold if result.ok else options.unhealthy_threshold
    if state.healthy is not None and state.health_streak < enough and not result.decisive:
        return False
    state.healthy = result.ok
    state.health_streak = 0
    state.unhealthy_since = inf if result.ok else now
    return True


def pause(options: HealthOptions, healthy: bool | None, *, used: bool, random: Random) -> float:
    """Seconds until the next check of an endpoint. `used`: the pool has had a call."""
    if not used:
        seconds: float = max(options.interval, options.no_traffic_interval)
    elif healthy is False and options.unhealthy_interval is not None:
        seconds = options.unhealthy_interval
    else:
        seconds = options.interval
    return seconds * random.uniform(1 - options.jitter, 1 + options.jitter)


def target(url: str, port: int | None) -> tuple[str, str, int]:
    """Where an endpoint is checked: its origin, host and port, with `port` in the place of its own."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = port or parts.port or {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}", host, port
