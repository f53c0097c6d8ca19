"""Where a call goes that a rule sends to one level, or to one endpoint, of its pool."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from .eligibility import Ranking, Tier, choice
from .endpoint import EndpointState
from .rules import Preference

Pick = Callable[[Tier, Collection[EndpointState]], EndpointState]  # of a group, without those


def preferred(
    preference: Preference,
    ranking: Ranking,
    states: Mapping[str, EndpointState],
    tried: Sequence[EndpointState],
    full: Collection[EndpointState],
    pick: Pick,
) -> tuple[EndpointState | None, bool]:
    """The endpoint that is meant and may be used, or None; and whether one is meant that has no place left.

    Endpoints must be fit and not tried yet. With `only` those of `ranking.order` will do, again and again.
    """
    if preference.url is not None:
        state = _endpoint(preference, ranking, states, tried)
        return (None, True) if state in full else (state, False)
    tiers = _tiers(preference, ranking, tried)
    if not tiers:
        return None, False
    tier, excluded = choice(tiers, tried)
    state = pick(tier, excluded)
    if state not in full:
        return state, False
    for tier in tiers:
        if any(other not in full and (preference.only or other not in tried) for other in tier.states):
            return pick(tier, {*full, *(() if preference.only else tried)}), False
    return None, True


def _endpoint(
    preference: Preference, ranking: Ranking, states: Mapping[str, EndpointState], tried: Collection[EndpointState]
) -> EndpointState | None:
    state = states.get(preference.url or "")
    if preference.only:
        return state if any(state in tier.states for tier in ranking.order) else None
    return state if state in ranking.fit and state not in tried else None


def _tiers(preference: Preference, ranking: Ranking, tried: Sequence[EndpointState]) -> tuple[Tier, ...]:
    level = preference.priority
    if preference.only:
        return tuple(tier for tier in ranking.order if tier.priority == level)
    return tuple(
        tier
        for tier in ranking.fit_tiers
        if tier.priority == level and any(state not in tried for state in tier.states)
    )
