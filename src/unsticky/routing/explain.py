"""Why the calls of a pool go where they go, endpoint by endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .eligibility import Ranking, Tier
from .endpoint import EndpointState
from .pool import Pool

_NO_SHARE = {
    "healthy": "better levels take all calls; retries may come here",
    "degraded": "degraded, and healthy ones take all calls; retries may come here",
}


@dataclass(frozen=True, slots=True)
class Explained:
    """One endpoint at a moment."""

    address: str
    priority: int
    locality: str | None
    weight: float
    eligible: bool  # first attempts go there
    reason: str  # why not, or "" when it lacks nothing
    tier: str  # which group of its level it is in; "" in none
    share: float  # percent of first attempts, by weight; what a balancer makes of it differs


def explain(pool: Pool) -> tuple[Explained, ...]:
    """Every endpoint of `pool`: whether it gets calls now, how many, or why not. Its caller holds the pool's lock."""
    ranking, states = pool.ranking()
    conditions = {one.endpoint.url: one.reason for one in pool.snapshot()}
    tiers: dict[EndpointState, Tier] = {}
    for tier in (*ranking.first, *ranking.order):  # the first that an endpoint is in counts
        for state in tier.states:
            tiers.setdefault(state, tier)
    totals = {tier: sum(state.weight for state in tier.states) for tier in ranking.first}
    return tuple(
        _explained(state, tiers.get(state), totals, ranking, conditions[state.endpoint.url]) for state in states
    )


def _explained(
    state: EndpointState, tier: Tier | None, totals: Mapping[Tier, float], ranking: Ranking, lacks: str
) -> Explained:
    endpoint = state.endpoint
    weight = state.weight
    share = tier.share * weight / totals[tier] if tier is not None and tier in totals else 0.0
    return Explained(
        endpoint.address,
        endpoint.priority,
        endpoint.locality,
        weight,
        share > 0 and lacks != "full",
        lacks or ("" if share else _why_not(state, tier, ranking)),
        tier.kind if tier else "",
        share,
    )


def _why_not(state: EndpointState, tier: Tier | None, ranking: Ranking) -> str:
    if tier is None:
        return "not in this process's subset" if state in ranking.fit else "not eligible"
    if tier.locality is not None and any(other.priority == tier.priority and other.share for other in ranking.first):
        return "in another locality; near ones take all calls"
    return _NO_SHARE.get(tier.kind, "")
