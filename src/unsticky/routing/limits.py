"""How many calls are in flight, and who can take no more: concurrency limits, as Envoy's circuit breakers have them.

Nothing is reckoned anew per call: an endpoint is noted when its last place is taken, and when the first one is given
back.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from math import inf

from .endpoint import EndpointState
from .options import LimitOptions


class Places:
    """The places of one pool's calls."""

    __slots__ = ("_each", "_fit", "_most", "free", "full", "in_flight")

    def __init__(self, options: LimitOptions) -> None:
        self._most: float = inf if options.maximum_in_flight is None else options.maximum_in_flight
        self._each = options.maximum_in_flight_per_endpoint
        self._fit: AbstractSet[EndpointState] = frozenset()
        self.in_flight = 0  # also on endpoints that left the set
        self.full: set[EndpointState] = set()  # those without a place
        self.free = 0  # fit endpoints with one

    def rank(self, fit: AbstractSet[EndpointState]) -> None:
        """These endpoints are fit now."""
        self._fit = fit
        self.free = len(fit) - len(fit & self.full) if self.full else len(fit)

    @property
    def exhausted(self) -> str:
        """Which limit leaves no place for another call, or ""."""
        if self.in_flight >= self._most:
            return "maximum_in_flight"
        return "maximum_in_flight_per_endpoint" if self._fit and not self.free else ""

    def take(self, state: EndpointState) -> None:
        self.in_flight += 1
        state.in_flight += 1
        if state.in_flight == self._each:
            self.full.add(state)
            self.free -= state in self._fit

    def give_back(self, state: EndpointState) -> None:
        if state.in_flight == self._each:
            self.full.discard(state)
            self.free += state in self._fit
        self.in_flight -= 1
        state.in_flight -= 1
