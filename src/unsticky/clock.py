"""Time, as a value that is given: no decision below reads a clock of its own."""

from __future__ import annotations

from time import monotonic, time
from typing import Protocol


class Clock(Protocol):
    """Two clocks that must not be mixed."""

    def time(self) -> float:
        """Unix time in seconds: for what several processes share (expiry)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, of this process alone: for intervals and deadlines."""
        ...


class SystemClock:
    """The machine's clocks."""

    # Bound once, so that a call costs no more than the function itself.
    time = staticmethod(time)
    monotonic = staticmethod(monotonic)
