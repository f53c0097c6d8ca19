"""Near endpoints first, as far as they can carry it: Envoy's zone aware routing, for a caller that knows only itself.

Envoy compares a zone's share of the endpoints with its share of the callers. A process does not know the other
callers, so they count as spread evenly over the zones that the level has endpoints in. Then, with `n` zones and `c` a
zone's share of the capacity that is available (static weights):

- a zone with `c >= 1/n` keeps all calls of its own callers;
- one with less keeps `c * n` of them; the rest goes to the zones with `c > 1/n`, in proportion to `c - 1/n`.

So that each endpoint of the level ends up with the same load per weight, with as few calls across zones as can be.
"""

from __future__ import annotations

from collections.abc import Sequence

from .endpoint import EndpointState

Part = tuple[str | None, tuple[EndpointState, ...], float]  # a zone, its endpoints, its share of the calls (0 to 1)


def by_locality(
    available: Sequence[EndpointState], level: Sequence[EndpointState], own: str | None
) -> tuple[Part, ...]:
    """`available` cut into zones: the own one first, then by share. One part for all where zones mean nothing.

    `level` is the whole priority level: a zone whose endpoints are all down still has its callers.
    """
    zones = set() if own is None else {state.endpoint.locality for state in level}
    if own is None or own not in zones or len(zones) < 2:
        return ((None, tuple(available), 1.0),) if available else ()
    members: dict[str | None, list[EndpointState]] = {zone: [] for zone in zones}
    for state in available:
        members[state.endpoint.locality].append(state)
    shares = _shares({zone: sum(state.endpoint.weight for state in found) for zone, found in members.items()}, own)
    parts = [(zone, tuple(found), shares[zone]) for zone, found in members.items() if found]
    return tuple(sorted(parts, key=lambda part: (part[0] != own, -part[2], part[0] or "")))


def _shares(weights: dict[str | None, int], own: str) -> dict[str | None, float]:
    total = sum(weights.values())
    if not total:
        return dict.fromkeys(weights, 0.0)
    excess = {zone: max(0.0, weight / total - 1 / len(weights)) for zone, weight in weights.items()}
    kept = min(1.0, weights[own] / total * len(weights))
    spare = sum(part for zone, part in excess.items() if zone != own)
    if kept == 1.0 or not spare:
        return {zone: float(zone == own) for zone in weights}
    return {zone: kept if zone == own else (1 - kept) * part / spare for zone, part in excess.items()}
