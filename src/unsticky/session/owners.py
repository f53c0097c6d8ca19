"""Which sessions belong to an owner: one more record per owner, its *ledger*, kept with the same four verbs.

A ledger has a field per session, named by the session's key, that says since when. It is written before the session
is, so it may hold too much, never too little; whoever reads it asks each session whose it is. No other index exists,
nothing needs two keys to change together, and every store can do it, one of the user's own too.
"""

from __future__ import annotations

from hashlib import sha256

from ..errors import DamagedRecord, SessionConflict, SessionLimitReached, StoreError
from .operations import Create, Delete, Load, Steps, Update
from .options import STORAGE_GRACE
from .policy import Terms, promised_end
from .store import Applied, Change, Record
from .token import base64url

_VERSION = "#"  # raised by each login that has to know the whole ledger
_UNDER_WAY = 60.0  # seconds that a login may take between the ledger and its session
_TRIES = 200  # at the same time as that many other logins of one owner
_STEP = 1e-6  # seconds between two logins, at least
_TIDY = 64  # entries; a longer ledger is searched for ended sessions at each login
_TIDIED = 16  # of the oldest ones at a time


def ledger_key(owner: str) -> str:
    """The store's key of an owner's ledger: does not name them."""
    return "v1o:" + base64url(sha256(owner.encode()).digest())


def register(owner: str, key: str, now: float, terms: Terms, *, since: float | None = None) -> Steps[None]:
    """Enter the session `key`, `since` now if nothing else is said. Raises SessionLimitReached."""
    ledger = ledger_key(owner)
    for _ in range(_TRIES):
        record: Record | None = yield Load(ledger)
        if record is None:
            entry = _entry(now if since is None else since)
            first = Record({key: entry, _VERSION: b"0"}, now, now, _expires(now, terms))
            if (yield Create(ledger, first)):
                return
            continue
        gone = yield from _checked(owner, key, record, now, terms)
        entry = _entry(_login(record, key, now) if since is None else since)
        applied = yield Update(ledger, _entered(record, key, entry, gone, now, terms))
        if applied is Applied.APPLIED:
            return
    raise SessionConflict("Too many logins of one user at once; nothing was written.")


def _checked(owner: str, key: str, record: Record, now: float, terms: Terms) -> Steps[frozenset[str]]:
    """Ended sessions of the ledger, as far as they had to be looked for."""
    others = [name for name in _oldest_first(record) if name != key]
    refuses = terms.maximum_sessions is not None and terms.at_limit == "refuse"
    if not refuses and len(others) <= _TIDY:
        return frozenset()
    gone, alive = set(), 0
    for name in others if refuses else others[:_TIDIED]:
        if now - _since(record, name) < _UNDER_WAY:
            alive += 1
            continue
        session = yield from _of(owner, name)
        if session is None:
            gone.add(name)
        else:
            alive += now < promised_end(session)
    if refuses and terms.maximum_sessions is not None and alive >= terms.maximum_sessions:
        raise SessionLimitReached(f"{alive} sessions of this user are open, and {terms.maximum_sessions} are allowed.")
    return frozenset(gone)


def _login(record: Record, key: str, now: float) -> float:
    """When this login was: after all others, even if the clocks of those replicas are ahead.

    Without that, the newest login would count as the oldest. A clock that is a minute ahead or more is not followed.
    """
    newest = max((_since(record, name) for name in _oldest_first(record) if name != key), default=0.0)
    return newest + _STEP if now <= newest < now + _UNDER_WAY else now


def _entered(record: Record, key: str, entry: bytes, gone: frozenset[str], now: float, terms: Terms) -> Change:
    """With a limit that refuses, one login at a time: each has to know all that came before."""
    refuses = terms.maximum_sessions is not None and terms.at_limit == "refuse"
    version = record.fields.get(_VERSION, b"0")
    return Change(
        generation=record.generation,
        put={key: entry} | ({_VERSION: b"%d" % (int(version) + 1)} if refuses else {}),
        drop=gone,
        expect={_VERSION: version} if refuses else {name: record.fields[name] for name in gone},
        touched=now,
        expires=_expires(now, terms),
    )


def end_oldest(owner: str | None, terms: Terms) -> Steps[None]:
    """After a login: end the owner's oldest sessions beyond the limit.

    Each login looks after its own session is written, and all order them alike. So whoever looks last sees them all,
    and nobody ends one of the newest: as many remain as are allowed, however many log in at once. (So a login among
    those may end itself.)
    """
    if not owner or terms.maximum_sessions is None or terms.at_limit == "refuse":
        return
    record: Record | None = yield Load(ledger_key(owner))
    if record is None:
        return
    alive, gone = [], set()
    for name in _oldest_first(record):
        if (yield from _of(owner, name)) is not None:
            alive.append(name)
    for name in alive[: -terms.maximum_sessions]:
        yield Delete(name)
        gone.add(name)
    if gone:
        yield Update(ledger_key(owner), Change(generation=record.generation, drop=frozenset(gone)))


def listing(owner: str, now: float) -> Steps[list[tuple[str, Record]]]:
    """Key and record of each session that is stored, the newest login first. Some may have ended by time."""
    record: Record | None = yield Load(ledger_key(owner))
    if record is None:
        return []
    found: list[tuple[str, Record]] = []
    gone = {}
    for name in _oldest_first(record):
        session = yield from _of(owner, name)
        if session is not None:
            found.append((name, session))
        elif now - _since(record, name) >= _UNDER_WAY:
            gone[name] = record.fields[name]
    if gone:
        yield Update(ledger_key(owner), Change(generation=record.generation, drop=frozenset(gone), expect=gone))
    return found[::-1]


def forget(owner: str, key: str) -> Steps[None]:
    """The session is no longer the owner's. If that can't be written, whoever lists them will find out."""
    try:
        yield Update(ledger_key(owner), Change(generation=0, drop=frozenset((key,))))
    except StoreError:
        pass


def refresh(session: Record, key: str, now: float, terms: Terms) -> Steps[None]:
    """Keep the ledger as long as its sessions are used.

    It is made to last three idle timeouts. A use in another idle period than the one before prolongs it, so nobody
    writes it more often than once per period, and it never ends before a session that is in it.
    """
    period = max(terms.lifetime.idle, 1.0)
    same = (now - session.created) // period == (session.touched - session.created) // period
    # Its record was written when idle timeouts were shorter, and so was the ledger.
    longer = terms.lifetime.expires(session.created, session.touched) > session.expires + 1
    if session.owner is None or (same and not longer):
        return
    ledger: Record | None = yield Load(ledger_key(session.owner))
    if ledger is None or key not in ledger.fields:  # lost, and perhaps begun again by another session
        yield from register(session.owner, key, now, _unlimited(terms), since=session.created)
        return
    yield Update(ledger_key(session.owner), Change(generation=0, touched=now, expires=_expires(now, terms)))


def _unlimited(terms: Terms) -> Terms:
    return Terms(lifetime=terms.lifetime)


def _of(owner: str, key: str) -> Steps[Record | None]:
    """The session, if it is there and the owner's. One that can't be read is no session any more."""
    try:
        record: Record | None = yield Load(key)
    except DamagedRecord:
        return None
    return record if record is not None and record.owner == owner else None


def _expires(now: float, terms: Terms) -> float:
    return now + 3 * (max(terms.lifetime.idle, 0.0) + terms.lifetime.touch_interval) + STORAGE_GRACE


def _entry(now: float) -> bytes:
    return repr(now).encode()


def _since(ledger: Record, name: str) -> float:
    try:
        return float(ledger.fields[name])
    except ValueError:
        return 0.0


def _oldest_first(ledger: Record) -> list[str]:
    names = [name for name in ledger.fields if name != _VERSION]
    return sorted(names, key=lambda name: (_since(ledger, name), name))
