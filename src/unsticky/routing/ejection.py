"""Outlier detection (Envoy outlier detection, gRFC A50), decision by decision: who is out, for how long, then back.

`outliers.py` keeps the state of a pool and asks these.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import sqrt

from .endpoint import EndpointState
from .options import EjectionOptions

_MANY = 1_000_000


def over_limit(state: EndpointState, options: EjectionOptions) -> str:
    """Which kind of failure came too often in a row, or "". One that is ejected already can't be ejected again."""
    if state.ejected_until is not None:
        return ""
    if 0 < options.consecutive_failures <= state.failures + state.broken_bodies:
        return "consecutive_failures"
    if 0 < options.consecutive_gateway_failures <= state.gateway_failures:
        return "consecutive_gateway_failures"
    if options.split_local_failures and 0 < options.consecutive_local_failures <= state.local_failures:
        return "consecutive_local_failures"
    return ""


def overload_in_a_row(state: EndpointState, cause: str, options: EjectionOptions) -> bool:
    """Are its failures enough for `cause` only with those that an endpoint has when it is overrun, too?"""
    limit: int = getattr(options, cause)
    return state.hard_failures + state.broken_bodies < limit


def overload_mostly(state: EndpointState) -> bool:
    """The same for rates: were most of its failures since the last sweep of that kind?"""
    return 2 * state.overloaded > state.observed - state.succeeded


def common(succeeded: int, overloaded: int, options: EjectionOptions) -> bool:
    """Are the others overrun, too, as far as these calls of theirs say? Then it is no outlier."""
    return overloaded * 100 > (succeeded + overloaded) * options.maximum_overload_percent


def may_eject(out: int, total: int, options: EjectionOptions, *, overload: bool = False) -> bool:
    """Is there room, with `out` of `total` ejected? One endpoint may always be.

    Under `maximum_percent`, and where an `overload` may be the cause under `maximum_overload_percent`, too: the others
    get the calls of those that are ejected, and where they are full each ejection is the cause of the next.

    The share is looked at before the ejection, as in gRFC A50, so it rounds up: of three endpoints 50% are two. Rounded
    down, a pool of three that lost two would keep sending every second call to a dead one.
    """
    percent = min(options.maximum_percent, options.maximum_overload_percent) if overload else options.maximum_percent
    return out == 0 or out * 100 < total * percent


def well(state: EndpointState, options: EjectionOptions) -> bool:
    """Does nothing speak against it, not even failures for which there was no room to eject it?"""
    fit = state.ejected_until is None and state.healthy is not False and not state.draining
    return fit and not over_limit(state, options)


def success_rate_threshold(rates: Sequence[float], deviations: float) -> float:
    """The rate below which an endpoint is an outlier: mean - `deviations` * standard deviation (of the population)."""
    mean = sum(rates) / len(rates)
    return mean - deviations * sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))


def by_success_rate(states: Collection[EndpointState], options: EjectionOptions) -> list[EndpointState]:
    """Those whose success rate is far below the others'. Of endpoints with enough calls, if they are enough."""
    seen = _with_calls(states, options.success_rate_requests)
    if not options.success_rate_deviations or len(seen) < max(1, options.success_rate_endpoints):
        return []
    limit = success_rate_threshold([_rate(state) for state in seen], options.success_rate_deviations)
    return [state for state in seen if _rate(state) < min(limit, options.success_rate_tolerated)]


def by_failure_percentage(states: Collection[EndpointState], options: EjectionOptions) -> list[EndpointState]:
    """Those that fail more than `failure_percentage` of their calls. Of endpoints with enough calls, as above."""
    seen = _with_calls(states, options.failure_percentage_requests)
    if len(seen) < options.failure_percentage_endpoints:
        return []
    return [state for state in seen if 100 - _rate(state) > options.failure_percentage]


def _with_calls(states: Collection[EndpointState], least: int) -> list[EndpointState]:
    return [state for state in states if state.ejected_until is None and state.observed >= max(1, least)]


def _rate(state: EndpointState) -> float:
    return 100 * state.succeeded / state.observed


def eject(state: EndpointState, options: EjectionOptions, now: float, jitter: float = 0.0) -> float:
    """Eject. Returns for how many seconds: base * multiplier, at most the maximum, and `jitter`.

    The multiplier grows by one with each ejection while that still makes a difference (as in Envoy), and shrinks by
    one for each interval without an ejection.
    """
    most = max(options.base_time, options.maximum_time)
    shrunk = state.ejections - _intervals(now - state.returned_at, options)
    state.ejections = max(0, shrunk) + (shrunk < 1 or options.base_time * shrunk < most)
    seconds = min(options.base_time * state.ejections, most) + jitter
    state.ejected_until = now + seconds
    _begin_anew(state)
    state.failing = True
    return seconds


def _intervals(seconds: float, options: EjectionOptions) -> int:
    """Whole intervals in `seconds`, which is infinite before the first ejection."""
    return int(min(seconds / options.interval, _MANY)) if options.interval else _MANY


def take_back(state: EndpointState, now: float) -> None:
    """The ejection is over: the endpoint begins anew."""
    state.ejected_until = None
    state.returned_at = state.ready_since = now
    _begin_anew(state)


def _begin_anew(state: EndpointState) -> None:
    state.generation += 1  # what was sent before says nothing about what comes after
    state.broken_bodies = 0
    end_run(state)


def end_run(state: EndpointState) -> None:
    """Its failures in a row are over."""
    state.failures = state.gateway_failures = state.local_failures = 0
    state.overload_failures = state.hard_failures = 0
    state.failing = False
