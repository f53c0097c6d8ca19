"""How many of a pool's calls failed lately."""

from __future__ import annotations

_SLOTS = 10


class ErrorRate:
    """Of the calls that ended within the last `window` seconds, give or take a tenth. One addition per call.

    Time is cut into ten slots; when a slot is too old, what it counted is taken off the sums.
    """

    __slots__ = ("_at", "_calls", "_errors", "_slot", "calls", "errors")

    def __init__(self, window: float, now: float) -> None:
        self._slot = window / _SLOTS
        self._at = int(now / self._slot)
        self._calls = [0] * _SLOTS
        self._errors = [0] * _SLOTS
        self.calls = 0  # by the last `observe` or `percent`
        self.errors = 0

    def observe(self, failed: bool, now: float) -> None:
        """A call ended."""
        self._turn(now)
        place = self._at % _SLOTS
        self._calls[place] += 1
        self.calls += 1
        if failed:
            self._errors[place] += 1
            self.errors += 1

    def percent(self, now: float) -> tuple[float, int]:
        """The percentage of calls that failed, and of how many."""
        self._turn(now)
        return (100 * self.errors / self.calls if self.calls else 0.0), self.calls

    def _turn(self, now: float) -> None:
        at = int(now / self._slot)
        if at <= self._at:
            return
        for passed in range(self._at + 1, min(at, self._at + _SLOTS) + 1):
            place = passed % _SLOTS
            self.calls -= self._calls[place]
            self.errors -= self._errors[place]
            self._calls[place] = self._errors[place] = 0
        self._at = at
