"""A clock for tests."""

from __future__ import annotations


class FakeClock:
    """A Clock that stands still until `advance` moves it. Both of its times move together."""

    def __init__(self, time: float = 1_700_000_000.0, monotonic: float = 1_000.0) -> None:
        self._time = time
        self._monotonic = monotonic

    def time(self) -> float:
        return self._time

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Raises ValueError when negative: monotonic time does not go back."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        self._time += seconds
        self._monotonic += seconds
