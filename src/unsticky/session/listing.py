"""What is told of an owner's sessions, and how they are ended: for a page "your devices", and for support."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DamagedRecord
from . import codec
from .events import SessionEvent
from .operations import Delete, Load, Steps
from .owners import forget, listing
from .policy import Terms, promised_end
from .sealing import Sealer
from .store import Record
from .token import RESERVED
from .writing import DEVICE


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session. Nothing in it lets anybody use the session. Times are in unix seconds."""

    id: str  # for `revoke`; equals `session.id`
    owner: str | None
    created: float
    last_seen: float  # when it was last used, give or take the touch interval
    ends: float  # unless it is used again
    keys: int  # how many the application has stored in it
    size: int  # bytes of their encoded values
    user_agent: str = ""  # of the login; "" unless the setting `metadata` is on
    network: str = ""  # the coarse address of the login: "203.0.113.0/24"


def info(key: str, record: Record, terms: Terms) -> SessionInfo:
    """What may be told of a record."""
    sizes = sizes_of(record)
    agent, network = _device(key, record, terms.sealer)
    return SessionInfo(
        id=key,
        owner=record.owner,
        created=record.created,
        last_seen=record.touched,
        ends=promised_end(record),
        keys=len(sizes),
        size=sum(sizes.values()),
        user_agent=agent,
        network=network,
    )


def sizes_of(record: Record) -> dict[str, int]:
    """The bytes that each of the application's values takes, encoded, by its key."""
    return {name: len(data) for name, data in record.fields.items() if not name.startswith(RESERVED)}


def is_session(key: str) -> bool:
    """Is it the key of a session, and not of one of our other records?"""
    return key.startswith("v1:")


def list_sessions(owner: str, now: float, terms: Terms) -> Steps[list[SessionInfo]]:
    """The owner's live sessions, the newest login first."""
    found = yield from listing(owner, now)
    return [info(key, record, terms) for key, record in found if now < promised_end(record)]


def find(key: str, terms: Terms) -> Steps[SessionInfo | None]:
    """One session by its id."""
    record = yield from load(key)
    return None if record is None else info(key, record, terms)


def load(key: str) -> Steps[Record | None]:
    """The record of a session; None for any other of our records too."""
    record: Record | None = (yield Load(key)) if is_session(key) else None
    return record


def revoke(key: str) -> Steps[list[SessionEvent]]:
    """End one session, if there is one. One that can't be read any more ends too."""
    try:
        record = yield from load(key)
    except DamagedRecord:
        yield Delete(key)
        return [SessionEvent("revoked", key, None)]
    return [(yield from end(key, record))] if record is not None else []


def end(key: str, record: Record) -> Steps[SessionEvent]:
    """End the session of that record."""
    yield Delete(key)
    if record.owner:
        yield from forget(record.owner, key)
    return SessionEvent("revoked", key, record.owner)


def revoke_all(owner: str, keep: str | None, now: float) -> Steps[list[SessionEvent]]:
    """End all sessions of an owner but `keep`: all that are stored, for another replica may know a longer life."""
    events = []
    for key, record in (yield from listing(owner, now)):
        if key != keep:
            events.append((yield from end(key, record)))
    return events


def _device(key: str, record: Record, sealer: Sealer | None) -> tuple[str, str]:
    data = record.fields.get(DEVICE)
    if data is None:
        return "", ""
    try:
        agent, network = codec.decode(data if sealer is None else sealer.open(key, DEVICE, data))
    except Exception:  # of another version, or sealed with another key: a list goes on without it
        return "", ""
    return str(agent), str(network)
