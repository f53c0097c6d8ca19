"""Who may be picked: a chain of functions from states to states, and their composition, `ranking`.

Only endpoints that are healthy and not ejected are *fit*. What happens when there are none, or a call tried them all:

- Ejected endpoints come next. An ejection is our own guess and up to minutes old, so it must never cause an outage
  that the endpoints themselves don't have. It also outlives a quick restart: while A is back but still ejected and B
  goes down, a retry reaches A instead of knocking at B again.
- Endpoints that the active health checks call unhealthy come last, and only when the pool has no other at all. Their
  verdict is seconds old and asked for by the operator, but a checker that is wrong (a path that moved, a
  firewall) must not take the application down. Envoy decides the same below its panic threshold, where it sends to
  all hosts of the first level.

So calls are refused only when a pool is empty. In a total outage each call still makes its attempts, within its
timeout and the retry budget, and fails with their reasons: that also makes the first recovery seen at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import groupby

from .endpoint import EndpointState

Group = tuple[EndpointState, ...]  # endpoints of one priority, equally good


@dataclass(frozen=True, slots=True)
class Ranking:
    """Groups from best to worst; never an empty one. `fit`: the first one's endpoints are fit, else it is panic."""

    groups: tuple[Group, ...]
    fit: bool


def healthy(states: Iterable[EndpointState]) -> Group:
    """Those that no active check calls unhealthy."""
    return tuple(state for state in states if state.healthy is not False)


def not_ejected(states: Iterable[EndpointState]) -> Group:
    """Those that are not ejected."""
    return tuple(state for state in states if state.ejected_until is None)


def ejected(states: Iterable[EndpointState]) -> Group:
    """Those that are."""
    return tuple(state for state in states if state.ejected_until is not None)


def by_priority(states: Iterable[EndpointState]) -> tuple[Group, ...]:
    """One group per level, the best level first; within a level the order stays."""
    ordered = sorted(states, key=_priority)
    return tuple(tuple(level) for _, level in groupby(ordered, key=_priority))


def untried(states: Iterable[EndpointState], tried: Collection[EndpointState]) -> Group:
    """Those that a call did not use yet."""
    return tuple(state for state in states if state not in tried)


def first_with_untried(groups: Iterable[Group], tried: Collection[EndpointState]) -> Group | None:
    """The best group that a call did not use up: failover within one call."""
    return next((group for group in groups if any(state not in tried for state in group)), None)


def _priority(state: EndpointState) -> int:
    return state.endpoint.priority


def ranking(states: Iterable[EndpointState]) -> Ranking:
    """All that may be used now, see the module's docstring. Empty only if `states` is."""
    states = tuple(states)
    up = healthy(states)
    fit = by_priority(not_ejected(up))
    groups = (fit + by_priority(ejected(up))) or by_priority(states)
    return Ranking(groups, bool(fit))
