"""What sessions there are: `list` and `show`."""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from ..session import listing
from ..session.listing import SessionInfo
from ..sessions import Sessions
from .opening import keeps_owners, opened, scannable, walk
from .progress import Progress
from .reporting import Refused
from .texts import counted, local, plain, relative, size, table

_HEAD = ("ID", "OWNER", "CREATED", "LAST SEEN", "ENDS", "SIZE", "NETWORK", "USER AGENT")
_SIZE = _HEAD.index("SIZE")
_AGENT = 60  # characters of a User-Agent that a table shows


def list_sessions(options: argparse.Namespace) -> int:
    with opened(options) as sessions:
        # A terminal that gets the lines while they are read must not get a progress bar as well.
        streams = options.json and options.limit is None
        with Progress("record", "read", quiet=streams and sys.stdout.isatty()) as progress:
            found = _live(sessions, options.owner, progress)
            if streams:
                for session in found:
                    print(_json(asdict(session)))
                return 0
            shown, count = _newest(found, options.limit)
        if options.json:
            print("".join(f"{_json(asdict(session))}\n" for session in shown), end="")
        else:
            summary = _summary(len(shown), count, options.owner is not None, sessions.options.store.masked)
            print("\n".join([*_table(shown, sessions.clock.time()), summary]))
    return 0


def show(options: argparse.Namespace) -> int:
    checked_id(options.id)
    with opened(options) as sessions:
        record = sessions.access.run(listing.load(options.id))
        if record is None:
            raise Refused(f"{sessions.options.store.masked}: no such session")
        session, sizes = listing.info(options.id, record, sessions.terms), listing.sizes_of(record)
        if options.json:
            print(_json(asdict(session) | ({"sizes": sizes} if options.keys else {})))
        else:
            print("\n".join(_lines(session, sizes if options.keys else {}, sessions.clock.time())))
    return 0


def checked_id(text: str) -> str:
    """An id. What is none is not repeated: it may be a token that somebody pasted. Raises Refused."""
    if not listing.is_session(text):
        raise Refused('that is no id of a session: they begin with "v1:", as `unsticky sessions list` shows them', 2)
    return text


def _live(sessions: Sessions, owner: str | None, progress: Progress) -> Iterator[SessionInfo]:
    """Those that have not ended, of an owner or of all."""
    now = sessions.clock.time()
    for session in _all(sessions, progress) if owner is None else _of(sessions, owner):
        if session.ends > now:
            yield session


def _of(sessions: Sessions, owner: str) -> list[SessionInfo]:
    keeps_owners(sessions)
    return sessions.list(owner)


def _all(sessions: Sessions, progress: Progress) -> Iterator[SessionInfo]:
    for key, record in walk(scannable(sessions), progress):
        yield listing.info(key, record, sessions.terms)


def _newest(found: Iterable[SessionInfo], limit: int | None) -> tuple[list[SessionInfo], int]:
    """The newest logins first, and how many there are in all. Holds no more of them than it returns."""
    count = 0

    def counting() -> Iterator[SessionInfo]:
        nonlocal count
        for session in found:
            count += 1
            yield session

    if limit is None:
        return sorted(counting(), key=_created, reverse=True), count
    return heapq.nlargest(limit, counting(), key=_created), count


def _created(session: SessionInfo) -> float:
    return session.created


def _table(sessions: list[SessionInfo], now: float) -> list[str]:
    if not sessions:
        return []
    rows = [_HEAD, *(_row(session, now) for session in sessions)]
    return [*table(rows, frozenset((_SIZE,))), ""]


def _row(session: SessionInfo, now: float) -> tuple[str, ...]:
    agent = _shown(session.user_agent)
    return (
        session.id,
        _shown(session.owner or ""),
        relative(session.created, now),
        relative(session.last_seen, now),
        relative(session.ends, now),
        size(session.size),
        session.network,
        agent if len(agent) <= _AGENT else agent[: _AGENT - 3] + "...",
    )


def _summary(shown: int, count: int, owned: bool, store: str) -> str:
    whose = " of this owner" if owned else ""
    if not count:
        return f"No sessions{whose} in {store}."
    newest = f", the newest {shown:,} are shown" if shown < count else ""
    return f"{counted(count, 'session')}{whose} in {store}{newest}."


def _lines(session: SessionInfo, sizes: dict[str, int], now: float) -> list[str]:
    def moment(seconds: float) -> str:
        return f"{local(seconds)} ({relative(seconds, now)})"

    rows = [
        ("id", session.id),
        ("owner", _shown(session.owner) if session.owner else "none"),
        ("created", moment(session.created)),
        ("last seen", moment(session.last_seen)),
        ("ends" if session.ends > now else "ended", moment(session.ends)),
        ("size", f"{counted(session.keys, 'key')}, {size(session.size)}"),
        ("user agent", _shown(session.user_agent)),
        ("network", session.network),
        *((f"  {_shown(name)}", size(sizes[name])) for name in sorted(sizes)),
    ]
    return table([row for row in rows if row[1]])


def _shown(text: str) -> str:
    return plain(text, sys.stdout.encoding)


def _json(value: dict[str, object]) -> str:
    """In ASCII, so that no terminal and no encoding can be upset by it."""
    return json.dumps(value)
