"""Who changes a variable? Requests overlap, so a single one proves nothing: what counts is how often. Pure."""

from __future__ import annotations

from dataclasses import dataclass

NEAR_ONE = 0.9
SAMPLES = 10  # requests of an endpoint, before its rate says anything
PATIENCE = 200  # requests, before it is said that no endpoint stands out
GIVE_UP = 1000  # requests in which it did not change twice: it was a start, no habit
MOST_ENDPOINTS = 256


@dataclass(slots=True)
class Seen:
    """What was seen of one endpoint. `alone`: of its requests that no other one overlapped, which is exact."""

    calls: int = 0
    changes: int = 0
    alone: int = 0
    alone_changes: int = 0

    @property
    def rate(self) -> float:
        return self.changes / self.calls

    @property
    def cleared(self) -> bool:
        """It ran by itself again and again, and nothing changed."""
        return self.alone >= 2 and not self.alone_changes


@dataclass(frozen=True, slots=True)
class Culprit:
    """The endpoint whose requests go with the change, and in what part of them."""

    endpoint: str
    rate: float


class Rates:
    """Of one variable."""

    def __init__(self) -> None:
        self.requests = 0
        self.changes = 0
        self._endpoints: dict[str, Seen] = {}

    def saw(self, endpoint: str, *, changed: bool, alone: bool) -> None:
        """A request of `endpoint` is over."""
        if endpoint not in self._endpoints and len(self._endpoints) >= MOST_ENDPOINTS:
            endpoint = ""
        seen = self._endpoints.setdefault(endpoint, Seen())
        self.requests += 1
        self.changes += changed
        seen.calls += 1
        seen.changes += changed
        seen.alone += alone
        seen.alone_changes += alone and changed

    def culprit(self) -> Culprit | None:
        """The one with the highest rate, if that is near one; else the only one that was seen to do it alone."""
        possible = {name: seen for name, seen in self._endpoints.items() if not seen.cleared}
        often = [name for name, seen in possible.items() if seen.calls >= SAMPLES and seen.rate >= NEAR_ONE]
        if often:
            name = max(often, key=lambda name: (possible[name].rate, possible[name].calls))
            return Culprit(name, possible[name].rate)
        exact = [name for name, seen in possible.items() if seen.alone_changes >= 2]
        if len(exact) != 1:
            return None
        seen = possible[exact[0]]
        return Culprit(exact[0], seen.alone_changes / seen.alone)

    @property
    def is_known(self) -> bool:
        """There is something to say."""
        return self.changes >= 2 and (self.requests >= PATIENCE or self.culprit() is not None)

    @property
    def is_over(self) -> bool:
        """There will be nothing to say."""
        return self.requests >= GIVE_UP and self.changes < 2
