"""What a request's session asks of the store, and then of the client.

Nothing tracks changes: the encoded values are compared with the bytes that were loaded, so changes inside of values
are found, and a session that is as it was costs no write.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from ..errors import SessionValueError
from . import codec
from .binding import Binding
from .policy import first_proof, is_leaving, proof_changes
from .session import Session
from .store import Applied, Change, Record
from .token import PROOF, Token


@dataclass(frozen=True, slots=True)
class Create:
    key: str
    record: Record


@dataclass(frozen=True, slots=True)
class Update:
    key: str
    change: Change

    @property
    def only_touches(self) -> bool:
        """Nothing but the time of the last use: a request that only read can do without."""
        change = self.change
        return not (change.put or change.drop or change.raise_generation) and change.owner is None


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


class Cookie(Enum):
    """What to tell the client, besides a token to set."""

    KEEP = "keep"  # no Set-Cookie
    REFRESH = "refresh"  # written or touched: a cookie with a Max-Age is sent again, others stay
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Committed:
    """The end of a commit, and what the response must carry: a token to set, or one of the three."""

    cookie: Cookie | Token
    token: Token | None = None  # may be sent to the client again; None: there is none, or it is on its way out
    lost: bool = False  # the record was gone (a logout elsewhere), so what this request wrote was dropped


_ABSENT = object()

Commit = Generator[Create | Update | Delete, Any, Committed]


def commit(session: Session) -> Commit:
    """Yield each store operation, receive its result, return what became of it.

    May run again after the body: an existing session's later changes are written then. Raises SessionValueError.
    """
    binding = session._binding
    if binding is None or binding.unavailable is not None or not session._accessed:
        return Committed(Cookie.KEEP)
    if binding.record is not None:
        return (yield from _update(session, binding))
    ended = bool(binding.ended)
    try:
        done = yield from _begin(session, binding)
    except SessionValueError:
        yield from _end(binding)  # a logout counts, even if what came after it can't be stored
        raise
    # After the new one is there: a crash between the two must not leave the client with neither.
    yield from _end(binding)
    return Committed(Cookie.DELETE) if ended and done.token is None else done


def _end(binding: Binding) -> Generator[Delete, None, None]:
    while binding.ended:
        yield Delete(binding.ended[-1])
        binding.ended.pop()


def _begin(session: Session, binding: Binding) -> Commit:
    if not dict.__len__(session) and not binding.owner:
        return Committed(Cookie.KEEP)
    now = binding.now()
    fields = {name: codec.encode(value, f"session[{name!r}]") for name, value in dict.items(session)}
    while True:
        token = binding.current_token()
        record = Record(
            fields=fields | first_proof(token),
            created=now,
            touched=now,
            expires=binding.lifetime.expires(now, now),
            owner=binding.owner or None,
        )
        if (yield Create(token.key, record)):
            break
        binding.token = None  # the key is taken: with 128 random bits, a broken source of randomness
    _rebase(session, binding, token, record)
    return Committed(token, token)


def _update(session: Session, binding: Binding) -> Commit:
    record, token = binding.record, binding.token
    assert record is not None
    assert token is not None
    now = binding.now()
    put, drop = _field_changes(session, binding, record)
    if binding.closed and not (put or drop):
        return Committed(Cookie.KEEP)  # the second commit, after the body
    rotated = binding.rotated_token() if binding.rotation else None
    strict = binding.rotation == "strict"
    put_proofs, drop_proofs = proof_changes(record, token, binding.lifetime, now, rotated=rotated, strict=strict)
    written = put or drop or put_proofs or rotated or binding.owner is not None
    if not written and not binding.lifetime.touch_due(record, now):
        return Committed(Cookie.KEEP, _sendable(record, token))
    change = Change(
        generation=record.generation,
        put=put | put_proofs,
        drop=drop | drop_proofs,
        # Two tokens that are presented at once must not end each other: who was ended meanwhile ends nobody.
        expect={token.proof: record.fields[token.proof]} if put_proofs and rotated is None else {},
        touched=now,
        expires=binding.lifetime.expires(record.created, now),
        owner=binding.owner,
        raise_generation=strict,
        delete_if_only=PROOF if drop and _is_empty(session, binding, record) else None,
    )
    applied = yield Update(token.key, change)
    if applied is Applied.CONFLICT:
        change = replace(change, put=put, drop=drop, expect={})
        done = _settle(session, binding, change, (yield Update(token.key, change)), None)
        return replace(done, cookie=Cookie.KEEP, token=None) if done.cookie is Cookie.REFRESH else done
    return _settle(session, binding, change, applied, rotated)


def _is_empty(session: Session, binding: Binding, record: Record) -> bool:
    owner = record.owner if binding.owner is None else binding.owner
    return not (dict.__len__(session) or binding.undecodable or owner)


def _settle(session: Session, binding: Binding, change: Change, applied: Applied, rotated: Token | None) -> Committed:
    record, token = binding.record, binding.token
    assert record is not None
    if applied is Applied.EMPTIED:
        binding.begin_anew()
        return Committed(Cookie.DELETE)
    if applied is not Applied.APPLIED:
        # Logged out or strictly rotated elsewhere. The cookie is left alone: another response may just have set it.
        binding.begin_anew()
        dict.clear(session)
        return Committed(Cookie.KEEP, lost=bool(change.put or change.drop))
    after = _changed(record, change)
    _rebase(session, binding, rotated or token, after)
    if rotated is not None:
        return Committed(rotated, rotated)
    sendable = _sendable(after, token)
    return Committed(Cookie.REFRESH if sendable else Cookie.KEEP, sendable)


def _sendable(record: Record, token: Token | None) -> Token | None:
    """A token on its way out must not be sent again: it would replace its successor at the client."""
    return None if token is None or is_leaving(record, token) else token


def _changed(record: Record, change: Change) -> Record:
    """The record as this request knows it after `change`; other requests' changes are not in it, and need not be."""
    kept = {name: value for name, value in record.fields.items() if name not in change.drop}
    return replace(
        record,
        fields=kept | dict(change.put),
        touched=change.touched if change.touched is not None else record.touched,
        owner=(change.owner or None) if change.owner is not None else record.owner,
        generation=record.generation + change.raise_generation,
    )


def _rebase(session: Session, binding: Binding, token: Token | None, record: Record) -> None:
    binding.token, binding.record = token, record
    binding.values = dict(dict.items(session))
    binding.rotation = binding.owner = None


def _field_changes(session: Session, binding: Binding, record: Record) -> tuple[dict[str, bytes], frozenset[str]]:
    put = {}
    for name, value in dict.items(session):
        loaded = record.fields.get(name)
        if loaded is not None and binding.values.get(name, _ABSENT) is value and _is_as_loaded(value, loaded):
            continue
        data = codec.encode(value, f"session[{name!r}]")
        if data != loaded and (loaded is None or data != _encoded_again(loaded)):
            put[name] = data
    present = dict.keys(session) | binding.undecodable
    drop = frozenset(name for name in record.fields if name not in present and not name.startswith(PROOF))
    return put, drop


def _is_as_loaded(value: object, loaded: bytes) -> bool:
    """`value` is the very object that was loaded: a scalar can't have changed, others may have inside."""
    return type(value) in codec.SCALARS or codec.is_plainly(value, loaded)


def _encoded_again(loaded: bytes) -> bytes | None:
    """`loaded` as this version writes it: a reader must not write because the codec changed."""
    try:
        return codec.encode(codec.decode(loaded), "")
    except (ValueError, TypeError):
        return None
