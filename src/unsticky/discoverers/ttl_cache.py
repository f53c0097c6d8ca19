"""Answers that are good for a time: each for its own."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from cachetools import TLRUCache

from ..clock import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_SIZE = 10_000  # answers; the least used one goes


class TtlCache(Generic[K, V]):
    """Keeps each value for its time to live, that counts as `minimum` seconds at least and `maximum` at most."""

    def __init__(self, clock: Clock, minimum: float, maximum: float, size: int = _SIZE) -> None:
        self._clock = clock
        self._minimum, self._maximum = minimum, maximum
        self._entries: TLRUCache[K, tuple[V, float]] = TLRUCache(size, _expires, timer=clock.monotonic)

    def put(self, key: K, value: V, ttl: float) -> None:
        seconds = min(max(ttl, self._minimum), self._maximum)
        self._entries.pop(key, None)  # one that could not be kept must not leave its predecessor
        self._entries[key] = value, self._clock.monotonic() + seconds

    def get(self, key: K) -> V | None:
        found = self._entries.get(key)
        return None if found is None else found[0]

    def due_in(self, keys: Iterable[K]) -> float | None:
        """Seconds until the first of the `keys` that are there is over; None: there is none."""
        ends = [found[1] for key in keys if (found := self._entries.get(key)) is not None]
        return max(min(ends) - self._clock.monotonic(), 0.0) if ends else None


def _expires(key: object, entry: tuple[object, float], now: float) -> float:
    return entry[1]
