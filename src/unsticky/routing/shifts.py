"""What is said of a pool as a whole: where its calls moved, and why a call was not sent."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from ..errors import NoHealthyEndpoint, PoolOverflow
from .eligibility import Ranking
from .endpoint import EndpointState, condition
from .events import FailedOver, LoadShifted, PanicChanged, PoolEvent

Loads = tuple[tuple[int, int], ...]  # percent by level
_NAMED = 5  # endpoints that an error names


def shifts(before: Ranking, after: Ranking, last: Loads) -> list[PoolEvent]:
    """The events between two rankings. `last`: the loads of the last one that had any, () if none had."""
    told: list[PoolEvent] = []
    if after.panic != before.panic:
        told.append(PanicChanged(after.panic))
    loads = after.loads() or last
    if last and last[0][0] != loads[0][0]:
        told.append(FailedOver(last[0][0], loads[0][0]))
    if last != loads and max(len(last), len(loads)) > 1:
        told.append(LoadShifted(loads))
    return told


def none_left(pool: str, states: Collection[EndpointState], now: float, problem: str = "") -> NoHealthyEndpoint:
    """None of `states` may be used, and why not. `problem`: why there may be more that are not known."""
    text = f"pool {pool!r} has no endpoint"
    if states:
        reasons = [f"{state.endpoint.address} {condition(state, now)}" for state in islice(states, _NAMED)]
        text += f" that may be used: {', '.join(reasons)}{', ...'[: 5 * (len(states) > _NAMED)]}"
    else:
        text += "s"
    return NoHealthyEndpoint(f"{text}; {problem}" if problem else text, pool=pool)


def not_there(pool: str) -> NoHealthyEndpoint:
    """A rule lets a call go to one place only, and nothing there may be used."""
    return NoHealthyEndpoint(f"pool {pool!r} has no endpoint that a rule with `only` leaves to the call", pool=pool)


def overflow(pool: str, in_flight: int, limit: str) -> PoolOverflow:
    """As many calls are in flight as `limit` allows."""
    return PoolOverflow(f"pool {pool!r}: {in_flight} calls are in flight, limits.{limit} is reached", pool=pool)
