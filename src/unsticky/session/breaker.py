"""When to leave a store alone: after failures in a row, for a while, then one try. Pure: the time is given."""

from __future__ import annotations


class Breaker:
    """Closed, it lets all through. After `failures` in a row it opens for `pause` seconds; then one may try.

    Threads may share it: at worst two try at once.
    """

    def __init__(self, failures: int, pause: float) -> None:
        """`failures`: 0 never opens."""
        self._most = failures
        self._pause = pause
        self._failed = 0
        self._closed_again = 0.0  # monotonic seconds
        self.is_open = False  # no property: it is asked before each operation

    def allows(self, now: float) -> bool:
        """May the store be asked? Whoever is told so while it is open is the one that tries, and has to report."""
        if not self.is_open:
            return True
        if now < self._closed_again:
            return False
        self._closed_again = now + self._pause
        return True

    def succeeded(self) -> None:
        self._failed, self.is_open = 0, False

    def failed(self, now: float) -> None:
        self._failed += 1
        self.is_open = 0 < self._most <= self._failed
        self._closed_again = now + self._pause
