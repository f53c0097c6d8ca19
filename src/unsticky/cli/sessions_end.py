"""What ends sessions, and what looks after the store: `revoke`, `purge` and `migrate`."""

from __future__ import annotations

import argparse
import sys
from threading import Event

from ..clock import SystemClock
from ..session import listing
from ..session.store import Migratable, Purgeable
from ..sessions import PURGE_BATCH, Sessions
from .opening import keeps_owners, opened, scannable, walk
from .progress import Progress
from .reporting import Refused
from .sessions_show import checked_id
from .texts import counted

_SHARE = 2.0  # a purge pauses for so many times as long as its last batch took
_LEAST_PAUSE = 0.002  # seconds


def revoke(options: argparse.Namespace) -> int:
    ways = [bool(options.ids), options.owner is not None, options.all]
    if sum(ways) != 1:
        options.misused("one of ID, --owner USER and --all is needed, and only one")
    if options.keep is not None and options.owner is None:
        options.misused("--keep goes with --owner")
    if options.ids:
        return _revoke_ids(options)
    return _revoke_all(options) if options.all else _revoke_owner(options)


def _revoke_ids(options: argparse.Namespace) -> int:
    ids = list(dict.fromkeys(map(checked_id, options.ids)))
    with opened(options) as sessions:
        absent = _end(sessions, ids)
    if absent:
        raise Refused(f"{counted(absent, 'id')} of {len(ids):,} named no session, or one that has ended already")
    return 0


def _revoke_owner(options: argparse.Namespace) -> int:
    with opened(options) as sessions:
        keeps_owners(sessions)
        ids = [session.id for session in sessions.list(options.owner)]
        if options.keep is not None:
            if options.keep not in ids:
                raise Refused("nothing was ended: --keep names no session of this owner")
            ids.remove(options.keep)
        _end(sessions, ids)
    return 0


def _end(sessions: Sessions, ids: list[str]) -> int:
    """End them, one by one, and say how many there were; return how many there were not."""
    absent = 0
    with Progress("session", "ended", len(ids)) as progress:
        for id_ in ids:
            if sessions.revoke(id_):
                progress.add()
            else:
                absent += 1
    print(f"{progress.told}.")
    return absent


def _revoke_all(options: argparse.Namespace) -> int:
    """The owners' lists stay: one of them may be taking in a login just now. Whoever reads one tidies it."""
    with opened(options) as sessions:
        store = scannable(sessions)
        total = None if options.yes else _confirmed(sessions)
        with Progress("session", "ended", total) as progress:
            for key, record in walk(store):
                sessions.access.run(listing.end(key, record))
                progress.add()
        print(f"{progress.told}.")
    return 0


def _confirmed(sessions: Sessions) -> int:
    """How many sessions are to be ended, if somebody at the terminal wants that. Raises Refused."""
    if not sys.stdin.isatty():
        raise Refused("nothing was ended: --all needs --yes where nobody can be asked", 2)
    with Progress("record", "read") as progress:
        total = sum(1 for _ in walk(scannable(sessions), progress))
    sys.stderr.write(f"End all {counted(total, 'session')} in {sessions.options.store.masked}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was ended")
    return total


def purge(options: argparse.Namespace) -> int:
    with opened(options) as sessions:
        store = sessions.access.store
        if not isinstance(store, Purgeable):
            print(f"{sessions.options.store.masked}: this store forgets by itself; there is nothing to purge.")
            return 0
        with Progress("expired record", "deleted") as progress:
            _purge(store, progress)
        print(f"{progress.told}.")
    return 0


def _purge(store: Purgeable, progress: Progress) -> None:
    """In batches with pauses: a batch keeps the app's writers out of SQLite's file, and they look only now and then.

    200,000 records, three processes that write: without pauses some write took 150 ms of its 250, with them 50.
    """
    while True:
        started = SystemClock.monotonic()
        deleted = store.purge(PURGE_BATCH)
        if not deleted:
            return
        progress.add(deleted)
        Event().wait(max(_LEAST_PAUSE, _SHARE * (SystemClock.monotonic() - started)))


def migrate(options: argparse.Namespace) -> int:
    with opened(options) as sessions:
        store, name = sessions.access.store, sessions.options.store.masked
        if not isinstance(store, Migratable):
            print(f"{name}: this store needs no migration; there is nothing to do.")
            return 0
        for sentence in store.migrate() or ["It is up to date; there was nothing to do."]:
            print(f"{name}: {sentence}")
    return 0
