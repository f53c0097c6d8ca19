"""How many calls are in flight, and who can take no more: concurrency limits, as Envoy's circuit breakers have them.

Nothing grows with the pool per call: when an endpoint's last place is taken it leaves the list of those with a place,
and when the first one is given back it returns to it, each in one step.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf
from random import Random

from .endpoint import EndpointState
from .options import LimitOptions


class Places:
    """The places of one pool's calls."""

    __slots__ = ("_at", "_each", "_group", "_most", "_open", "free", "full", "in_flight")

    def __init__(self, options: LimitOptions) -> None:
        self._most: float = inf if options.maximum_in_flight is None else options.maximum_in_flight
        self._each = options.maximum_in_flight_per_endpoint
        self.in_flight = 0  # also on endpoints that left the set
        self.full: set[EndpointState] = set()  # those without a place
        self.free: float = inf  # fit endpoints with one
        self._open: list[list[EndpointState]] = []  # which these are, by group
        self._group: dict[EndpointState, int] = {}
        self._at: dict[EndpointState, int] = {}  # where in its list

    def rank(self, groups: Sequence[Sequence[EndpointState]]) -> None:
        """The fit endpoints are these now, best group first. With none there is nothing to prefer: all may be used."""
        if self._each is None:
            return
        self._group = {state: index for index, group in enumerate(groups) for state in group}
        self._open = [[state for state in group if state not in self.full] for group in groups]
        self._at = {state: at for members in self._open for at, state in enumerate(members)}
        self.free = len(self._at) if groups else inf

    @property
    def exhausted(self) -> str:
        """Which limit leaves no place for another call, or ""."""
        if self.in_flight >= self._most:
            return "maximum_in_flight"
        return "" if self.free else "maximum_in_flight_per_endpoint"

    def take(self, state: EndpointState) -> None:
        self.in_flight += 1
        state.in_flight += 1
        if state.in_flight == self._each:
            self.full.add(state)
            if state in self._at:
                self._leave(state)

    def give_back(self, state: EndpointState) -> None:
        if state.in_flight == self._each:
            self.full.discard(state)
            if state in self._group:
                self._return(state)
        self.in_flight -= 1
        state.in_flight -= 1

    def another(self, group: int | None, tried: Collection[EndpointState], random: Random) -> EndpointState | None:
        """A fit endpoint with a place: of `group` if it has one, else of the best; untried if there is one."""
        lists = self._open if group is None else [self._open[group], *self._open]
        for excluded in (tried, ()):
            for members in lists:
                start = int(random.random() * len(members))
                for state in (*members[start : start + 1], *members[: len(excluded) + 1]):
                    if state not in excluded:
                        return state
        return None

    def _leave(self, state: EndpointState) -> None:
        members, at = self._open[self._group[state]], self._at.pop(state)
        last = members.pop()
        if last is not state:
            members[at] = last
            self._at[last] = at
        self.free -= 1

    def _return(self, state: EndpointState) -> None:
        members = self._open[self._group[state]]
        self._at[state] = len(members)
        members.append(state)
        self.free += 1
