"""How often what was decided: plain counts, read by telemetry when it exports.

They are written under the pool's lock, one addition each, so that counting costs a call next to nothing and no call
goes into OpenTelemetry per pick.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import partial

from .events import Ejected, Overflowed, PoolEvent

_counts = partial(defaultdict[str, int], int)
GONE = ""  # in `picks`: endpoints that left the set


@dataclass(slots=True, eq=False)
class Tally:
    """Of one pool, since the process began. None of it ever shrinks."""

    calls: int = 0
    picks: defaultdict[str, int] = field(default_factory=_counts)  # by the endpoint's address; each is an attempt
    failures: defaultdict[str, int] = field(default_factory=_counts)  # attempts, by kind of failure or by status
    retries: defaultdict[str, int] = field(default_factory=_counts)  # by what was wrong with the attempt before
    denied: int = 0  # retries that the budget had nothing left for
    hedges: int = 0  # attempts that began while another one was under way
    overflows: defaultdict[str, int] = field(default_factory=_counts)  # by the limit that was reached
    ejections: defaultdict[str, int] = field(default_factory=_counts)  # by the setting that was exceeded
    rules: defaultdict[str, int] = field(default_factory=_counts)  # calls that a rule sent elsewhere, by its label
    fallbacks: defaultdict[str, int] = field(default_factory=_counts)  # failed calls, by what stepped in
    failed: defaultdict[str, int] = field(default_factory=_counts)  # calls, by error or status

    def saw(self, event: PoolEvent) -> None:
        """Count what is counted of a pool's events."""
        if isinstance(event, Ejected):
            self.ejections[event.cause] += 1
        elif isinstance(event, Overflowed):
            self.overflows[event.limit] += 1

    def forget(self, addresses: Iterable[str]) -> None:
        """These endpoints left the set: their picks count together, so that names do not pile up."""
        for address in addresses:
            if picks := self.picks.pop(address, 0):
                self.picks[GONE] += picks

    def add(self, other: Tally) -> None:
        """Count what `other` counted."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, int):
                setattr(self, one.name, mine + theirs)
            else:
                for key, count in theirs.items():
                    mine[key] += count
