"""`unsticky sessions stats`: how many sessions there are, whose, how large and how old."""

from __future__ import annotations

import argparse
import json
from array import array
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from statistics import median

from ..clock import SystemClock
from ..session import listing
from ..session.listing import SessionInfo
from ..session.policy import Terms
from ..session.store import Purgeable, Record
from ..sessions import Sessions
from .opening import opened, scannable
from .progress import Progress
from .texts import counted, size, table

_BOUNDS = (300.0, 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0)  # seconds: where a bucket ends and the next begins
BUCKETS = ("under 5m", "5m to 1h", "1h to 1d", "1d to 7d", "7d to 30d", "30d and more")


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one store at one moment. Sizes are in bytes of the encoded values."""

    sessions: int  # that live
    with_owner: int  # of them, those with an owner
    owners: int
    most_of_one_owner: int
    size: int
    median_size: float
    largest_size: int
    created: dict[str, int]  # sessions by age, in BUCKETS
    last_seen: dict[str, int]
    ended: int  # sessions whose time has passed, and that are still in the store
    purgeable: int  # records of any kind that the store may forget


class Census:
    """Looks at each record once, and keeps none."""

    def __init__(self, terms: Terms, now: float) -> None:
        self._terms, self._now = terms, now
        self._seen = set[str]()  # a scan may show a record twice
        self._sizes, self._owners = array("q"), Counter[str]()
        self._created, self._last_seen = [0] * len(BUCKETS), [0] * len(BUCKETS)
        self._ended = self._purgeable = 0

    def add(self, key: str, record: Record) -> None:
        if key in self._seen:
            return
        self._seen.add(key)
        self._purgeable += record.expires <= self._now
        if listing.is_session(key):
            self._add_session(listing.info(key, record, self._terms))

    def _add_session(self, session: SessionInfo) -> None:
        if session.ends <= self._now:
            self._ended += 1
            return
        self._sizes.append(session.size)
        if session.owner:
            self._owners[session.owner] += 1
        self._created[_bucket(self._now - session.created)] += 1
        self._last_seen[_bucket(self._now - session.last_seen)] += 1

    def result(self) -> Statistics:
        return Statistics(
            sessions=len(self._sizes),
            with_owner=self._owners.total(),
            owners=len(self._owners),
            most_of_one_owner=max(self._owners.values(), default=0),
            size=sum(self._sizes),
            median_size=median(self._sizes) if self._sizes else 0,
            largest_size=max(self._sizes, default=0),
            created=dict(zip(BUCKETS, self._created, strict=True)),
            last_seen=dict(zip(BUCKETS, self._last_seen, strict=True)),
            ended=self._ended,
            purgeable=self._purgeable,
        )


def _bucket(age: float) -> int:
    """Clocks differ: what seems to come from the future is new."""
    return sum(age >= bound for bound in _BOUNDS)


class _Beginning:
    """A clock at which nothing has expired: a store that asks it shows what waits to be purged, too."""

    monotonic = staticmethod(SystemClock.monotonic)

    def time(self) -> float:
        return 0.0


def stats(options: argparse.Namespace) -> int:
    with opened(options) as sessions:
        found = _counted(sessions)
        if options.json:
            print(json.dumps(asdict(found)))
        else:
            waits = isinstance(sessions.access.store, Purgeable)
            print("\n".join(_lines(found, sessions.options.store.masked, waits)))
    return 0


def _counted(sessions: Sessions) -> Statistics:
    census = Census(sessions.terms, sessions.clock.time())
    all_of_it = Sessions(sessions.options, clock=_Beginning())
    with closing(all_of_it), Progress("record", "read") as progress:
        for batch in scannable(all_of_it).scan():
            for key, record in batch:
                census.add(key, record)
            progress.add(len(batch))
    return census.result()


def _lines(found: Statistics, store: str, waits: bool) -> list[str]:
    """`waits`: does what has expired wait in the store for somebody who purges it?"""
    most = f", at most {found.most_of_one_owner:,} of one" if found.owners else ""
    rows = [
        (f"{found.sessions:,}", f"{'session'}{'s'[: found.sessions != 1]} in {store}"),
        (f"{found.with_owner:,}", f"with an owner: {counted(found.owners, 'owner')}{most}"),
        (f"{found.sessions - found.with_owner:,}", "without an owner"),
        (f"{found.ended:,}", "ended, and still in the store"),
    ]
    if waits:
        rows.append((f"{found.purgeable:,}", "expired records that `purge` would delete, lists of owners among them"))
    sizes = f"size: {size(found.size)} in all, median {size(found.median_size)}, largest {size(found.largest_size)}"
    return [*table([("", ""), *rows], frozenset((0,)))[1:], "", sizes, "", *_ages(found)]


def _ages(found: Statistics) -> list[str]:
    rows = [(name, f"{found.created[name]:,}", f"{found.last_seen[name]:,}") for name in BUCKETS]
    return table([("AGO", "CREATED", "LAST SEEN"), *rows], frozenset((1, 2)))
