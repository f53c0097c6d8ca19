"""Outlier detection by consecutive failures (Envoy outlier detection, gRFC A50): out for a while, then back."""

from __future__ import annotations

from collections.abc import Collection

from .endpoint import EndpointState
from .options import EjectionOptions

_MANY = 1_000_000


def over_limit(state: EndpointState, options: EjectionOptions) -> bool:
    """Did the endpoint fail often enough in a row? One that is ejected already can't be ejected again."""
    failures = state.failures + state.broken_bodies
    return 0 < options.consecutive_failures <= failures and state.ejected_until is None


def may_eject(states: Collection[EndpointState], options: EjectionOptions) -> bool:
    """Is there room under `maximum_percent`? One endpoint may always be ejected.

    The share is looked at before the ejection, as in gRFC A50, so it rounds up: of three endpoints 50% are two. Rounded
    down, a pool of three that lost two would keep sending every second call to a dead one.
    """
    out = sum(state.ejected_until is not None for state in states)
    return out == 0 or out * 100 < len(states) * options.maximum_percent


def eject(state: EndpointState, options: EjectionOptions, now: float) -> float:
    """Eject. Returns for how many seconds: base * multiplier, at most the maximum.

    The multiplier grows by one with each ejection while that still makes a difference (as in Envoy), and shrinks by
    one for each base time without an ejection (Envoy: for each sweep; there are no sweeps here).
    """
    most = max(options.base_time, options.maximum_time)
    shrunk = state.ejections - _base_times(now - state.returned_at, options)
    state.ejections = max(0, shrunk) + (shrunk < 1 or options.base_time * shrunk < most)
    seconds = min(options.base_time * state.ejections, most)
    state.ejected_until = now + seconds
    state.generation += 1  # what was sent before says nothing about what comes after
    state.failures = state.broken_bodies = 0
    return seconds


def _base_times(seconds: float, options: EjectionOptions) -> int:
    """Whole base times in `seconds`, which is infinite before the first ejection."""
    return int(min(seconds / options.base_time, _MANY)) if options.base_time else _MANY


def take_back(state: EndpointState, now: float) -> None:
    """The ejection is over: the endpoint begins anew."""
    state.ejected_until = None
    state.returned_at = now
    state.generation += 1
    state.failures = state.broken_bodies = 0
