"""What the guard found, and when it may say so again. Pure: time is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..clock import Clock

Kind = Literal["memory", "file", "sqlite", "config", "thread"]
MINUTE = 60.0  # seconds
MOST_NAMES = 1024


@dataclass(frozen=True, slots=True)
class Violation:
    """State that stays in this replica. Never with a value."""

    kind: Kind
    name: str  # of the variable, the path or the thread
    verdict: Literal["SUSPECT", "INFO"] = "SUSPECT"
    endpoint: str = ""
    endpoint_rate: float | None = None  # the part of its requests that changed it; None: it was this request
    source_line: str = ""  # "shop/cart.py:12"
    refused: bool = False

    @property
    def is_path(self) -> bool:
        return self.kind in ("file", "sqlite")

    def attributes(self) -> dict[str, str | float | bool]:
        """Of the event: what is known."""
        what = "path" if self.is_path else "variable"
        told: dict[str, str | float | bool] = {"kind": self.kind, what: self.name, "verdict": self.verdict}
        if self.endpoint:
            told["endpoint"] = self.endpoint
        if self.endpoint_rate is not None:
            told["endpoint_rate"] = self.endpoint_rate
        if self.source_line:
            told["source_line"] = self.source_line
        if self.refused:
            told["refused"] = True
        return {f"stateless.{key}": value for key, value in told.items()}


class Limit:
    """At most one per variable per minute, and of a bounded number of variables."""

    def __init__(self, clock: Clock, interval: float = MINUTE, most: int = MOST_NAMES) -> None:
        """`interval`: seconds."""
        self._clock = clock
        self._interval = interval
        self._most = most
        self._last: dict[str, float] = {}  # the oldest first

    def is_silent(self, name: str) -> bool:
        """Was it told less than a minute ago?"""
        last = self._last.get(name)
        return last is not None and self._clock.monotonic() - last < self._interval

    def allows(self, name: str) -> bool:
        """Once a minute; then it is taken as told."""
        if self.is_silent(name):
            return False
        now = self._clock.monotonic()
        self._last.pop(name, None)
        while self._last and now - next(iter(self._last.values())) >= self._interval:
            self._last.pop(next(iter(self._last)))
        if len(self._last) >= self._most:
            return False
        self._last[name] = now
        return True
