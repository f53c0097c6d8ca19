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

from collections.abc import Collection, Iterable, Sequence
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


def choice(groups: tuple[Group, ...], tried: Sequence[EndpointState]) -> tuple[Group, Collection[EndpointState]]:
    """The best of `groups` with an endpoint that a call should use next, and whom not to take from it.

    `tried` is what the call used, in its order. Untried endpoints come first, level by level: failover within a call.
    Then those that were used least, and the last one is not used twice in a row if there is another.
    """
    if not tried:
        return groups[0], ()
    last = tried[-1:]
    for excluded in (tried, _used_most(groups, tried), last):
        for group in groups:
            if any(state not in excluded for state in group):
                return group, excluded
    return groups[0], ()


def _used_most(groups: tuple[Group, ...], tried: Sequence[EndpointState]) -> Sequence[EndpointState]:
    """All that were used more often than the least used one, and the last."""
    times = {state: tried.count(state) for group in groups for state in group}
    least = min(times.values())
    return [*(state for state, count in times.items() if count > least), tried[-1]]


def _priority(state: EndpointState) -> int:
    return state.endpoint.priority


def ranking(states: Iterable[EndpointState]) -> Ranking:
    """All that may be used now, see the module's docstring. Empty only if `states` is."""
    states = tuple(states)
    up = healthy(states)
    fit = by_priority(not_ejected(up))
    groups = (fit + by_priority(ejected(up))) or by_priority(states)
    return Ranking(groups, bool(fit))
