"""How many retries a pool may make: Finagle's RetryBudget, a leaky bucket of tokens."""

from __future__ import annotations

TTL = 10  # seconds that a deposit, or a withdrawal, counts
_DEPOSIT = 1000  # tokens per call; Finagle's ScaleFactor
_MOST_COST = 1e12  # tokens per retry: more calls than 10 s have, and no float runs over


class RetryBudget:
    """`ratio` retries per call over the last 10 s, and `per_second` more however few calls there are.

    Time is cut into slots of one second, ten of which count. Formulas: Finagle service/RetryBudget.scala.
    """

    __slots__ = ("_at", "_before", "_cost", "_deposit", "_end", "_slots", "_sum", "reserve")

    def __init__(self, ratio: float, per_second: float, now: float) -> None:
        self._deposit = _DEPOSIT if ratio > 0 else 0
        self._cost = max(1, int(min(_DEPOSIT / ratio, _MOST_COST))) if ratio > 0 else 1
        self.reserve = int(per_second * TTL * self._cost)
        self._slots = [0] * TTL  # of the seconds before this one
        self._sum = 0
        self._before = 0  # `_sum` when this second began: the difference is what goes into its slot
        self._at = int(now)
        self._end = self._at + 1

    def deposit(self, now: float) -> None:
        """A call begins."""
        if now >= self._end:
            self._turn(int(now))
        self._sum += self._deposit

    def withdraw(self, now: float) -> bool:
        """May one retry be made? If so it is paid for."""
        if now >= self._end:
            self._turn(int(now))
        if self._sum + self.reserve < self._cost:
            return False
        self._sum -= self._cost
        return True

    def balance(self, now: float) -> int:
        """Retries that could be made now."""
        self._turn(int(now))
        return max(0, self._sum + self.reserve) // self._cost

    def _turn(self, second: int) -> None:
        """Another second begins: forget the slots that are too old now."""
        if second <= self._at:
            return
        self._slots[self._at % TTL] = self._sum - self._before
        for passed in range(self._at + 1, min(second, self._at + TTL) + 1):
            self._sum -= self._slots[passed % TTL]
            self._slots[passed % TTL] = 0
        self._before = self._sum
        self._at, self._end = second, second + 1
