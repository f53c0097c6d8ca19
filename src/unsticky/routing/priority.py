"""How much of the calls each priority level gets, in whole percent: Envoy's arithmetic, integer by integer.

The rules are those of Envoy's `load_balancer_impl.cc` (priority levels, degraded endpoints, panic threshold):

- a level's health is `min(100, factor * healthy / total)`, with the overprovisioning factor 1.4: a level that lost a
  quarter of its endpoints still takes all of its calls;
- levels get `health * 100 / min(100, sum of all)` percent each, best level first, until 100 are given out; degraded
  endpoints, reckoned in the same way, get what healthy ones leave;
- all divisions round down, and what that leaves goes to the first level that has health. (The tables of Envoy's
  documentation leave it out in places: of 25/25/20 % healthy it says 36/36/28, the code gives 37/35/28.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Level:
    """How many endpoints a priority level has. `total` counts all of them, also the unfit ones."""

    healthy: int
    degraded: int
    total: int


@dataclass(frozen=True, slots=True)
class Loads:
    """Percent of the calls per level, best level first. They add up to 100, or to 0 when nothing is available."""

    healthy: tuple[int, ...]
    degraded: tuple[int, ...]


def loads(levels: Sequence[Level], factor: int = 140) -> Loads:
    """The load of each level. `factor` is the overprovisioning factor in percent."""
    health = [_availability(level.healthy, level.total, factor) for level in levels]
    degraded = [_availability(level.degraded, level.total, factor) for level in levels]
    available = min(100, sum(health) + sum(degraded))
    if not available:
        return Loads((0,) * len(levels), (0,) * len(levels))
    to_healthy, left = _given_out(health, 100, available)
    to_degraded, left = _given_out(degraded, left, available)
    first = to_healthy if any(health) else to_degraded
    first[next(i for i, part in enumerate(health if any(health) else degraded) if part)] += left
    return Loads(tuple(to_healthy), tuple(to_degraded))


def panicking(levels: Sequence[Level], threshold: int, factor: int = 140) -> tuple[bool, ...]:
    """Which levels use all of their endpoints, whatever is known of them.

    Those of which less than `threshold` percent are available, and none while the levels together can take all calls.
    """
    health = sum(
        _availability(level.healthy, level.total, factor) + _availability(level.degraded, level.total, factor)
        for level in levels
    )
    if health >= 100:
        return (False,) * len(levels)
    return tuple((level.healthy + level.degraded) * 100 < threshold * level.total for level in levels)


def loads_in_panic(levels: Sequence[Level]) -> tuple[int, ...]:
    """The load of each level when all are in panic: by numbers of endpoints. With none available, all to the first."""
    if not any(level.healthy or level.degraded for level in levels):
        return 100, *(0 for _ in levels[1:])
    everything = sum(level.total for level in levels)
    parts = [100 * level.total // everything for level in levels]
    parts[0] += 100 - sum(parts)
    return tuple(parts)


def _availability(count: int, total: int, factor: int) -> int:
    return min(100, factor * count // total) if total else 0


def _given_out(health: Sequence[int], left: int, available: int) -> tuple[list[int], int]:
    parts = []
    for part in health:
        parts.append(min(left, part * 100 // available))
        left -= parts[-1]
    return parts, left
