"""What is counted of a run, and what it says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

BUCKETS = 80  # of a run's time


class Tally:
    """Counts while a run goes on. Calls count where they began, attempts where they were sent."""

    def __init__(self, begin: float, seconds: float) -> None:
        self._begin = begin
        self._scale = BUCKETS / seconds
        self.begun = self.over = self.sent = 0
        self.good = [0] * BUCKETS
        self.calls = [0] * BUCKETS
        self.attempts = [0] * BUCKETS
        self.times: list[list[float]] = [[] for _ in range(BUCKETS)]  # seconds, of all calls, good or not

    def bucket(self, now: float) -> int:
        return min(BUCKETS - 1, int((now - self._begin) * self._scale))

    def ended(self, began: float, now: float, attempts: int, *, good: bool) -> None:
        at = min(BUCKETS - 1, int((began - self._begin) * self._scale))
        self.over += 1
        self.sent += attempts
        self.calls[at] += 1
        self.good[at] += good
        self.times[at].append(now - began)


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy in one scenario. Times are milliseconds; they are of all calls, those that failed too."""

    policy: str
    calls: int
    success: float  # of calls
    amplification: float  # attempts per call
    p50: float
    p99: float
    imbalance: float  # busiest server over the mean, in working time for its worth
    seconds: float  # of virtual time
    lost: int  # calls that never ended
    held: int  # leases that were never given back
    recovery: float | None = None  # seconds after the trouble until 99 % of calls succeed, for good; inf: never
    course: dict[str, list[float | None]] = field(default_factory=dict)  # over time, in BUCKETS steps

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def quantile(ordered: list[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def course(tally: Tally) -> dict[str, list[float | None]]:
    """How it went over time. None where no call began."""
    per_bucket = [sorted(times) for times in tally.times]
    counts = list(zip(tally.calls, tally.good, tally.attempts, strict=True))
    return {
        "success": [100 * good / calls if calls else None for calls, good, _ in counts],
        "amplification": [sent / calls if calls else None for calls, _, sent in counts],
        "p50": [quantile(times, 0.5) * 1e3 if times else None for times in per_bucket],
        "p99": [quantile(times, 0.99) * 1e3 if times else None for times in per_bucket],
    }


def recovery(tally: Tally, seconds: float, trouble_ends: float) -> float:
    """Seconds from the end of the trouble to the last bucket of which fewer than 99 % succeeded. inf: it never did."""
    step = seconds / BUCKETS
    bad = [at for at in range(BUCKETS) if tally.calls[at] and tally.good[at] < 0.99 * tally.calls[at]]
    last = max(bad, default=-1)
    if last == BUCKETS - 1:
        return inf
    return max(0.0, (last + 1) * step - trouble_ends)
