"""Which way a call takes: the pool that its URL names, or where rules send it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..pools import Pools, Served
from ..routing.rules import Preference, decide
from .hashed import HashedRequest


@dataclass(slots=True)
class Way:
    """A pool, and how a call goes over it. Made anew for each call that does not simply go over its own."""

    served: Served
    rule: str | None = None  # the labels of those that led here
    prefer: Preference | None = None
    until: float | None = None  # monotonic seconds: the call ends by then, whatever the pool's own timeout is


class CallFacts(HashedRequest):
    """What rules ask about a call and its pool."""

    __slots__ = ("_first", "_pool")

    def __init__(self, served: Served, request: Any) -> None:
        super().__init__(request)
        self._pool = served.pool
        self._first = served.first

    def method(self) -> str:
        method: str = self._request.method
        return method

    def fit_percent(self) -> float:
        if self._first is not None and self._first.pending:
            return 100.0  # who is not known yet is not ill: the call will wait
        with self._pool.lock:
            return self._pool.fit_percent()

    def error_rate(self, window: float) -> tuple[float, int]:
        with self._pool.lock:
            return self._pool.error_rates[window].percent(self._pool.clock.monotonic())

    def in_flight(self) -> int:
        with self._pool.lock:
            return self._pool.in_flight()

    def time(self) -> float:
        return self._pool.clock.time()


def chosen(pools: Pools, served: Served, request: Any, until: float | None = None) -> Way:
    """The way by the rules of `served`, and by those of the pools that they lead to: no way leads back."""
    labels: list[str] = []
    prefer = None
    while (rule := decide(served.rules, CallFacts(served, request))) is not None:
        labels.append(rule.label)
        with served.pool.lock:
            served.pool.tally.rules[rule.label] += 1
        prefer = rule.preference
        if rule.pool is None:
            break
        served = pools.other(rule.pool, served)
    return Way(served, ", ".join(labels) or None, prefer, until)
