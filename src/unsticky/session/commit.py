"""What a request's session asks of the store, and then of the client.

Nothing tracks changes: the encoded values are compared with the bytes that were loaded, so changes inside of values
are found, and a session that is as it was costs no write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any, NamedTuple

from ..errors import SessionLimitReached, SessionValueError, StoreError
from . import codec
from .binding import Binding
from .inbound import OldSession
from .operations import Create, Delete, Load, Steps, Update
from .owners import end_oldest, forget, refresh, register
from .policy import has_other_proofs, is_leaving, new_proof, proof_changes
from .session import Session
from .store import Applied, Change, Record
from .token import RESERVED, Token

DEVICE = RESERVED + "device"  # the field that holds the User-Agent and coarse address, if they are kept


class Cookie(Enum):
    """What to tell the client, besides a token to set."""

    KEEP = "keep"  # no Set-Cookie
    REFRESH = "refresh"  # written or touched: a cookie with a Max-Age is sent again, others stay
    DELETE = "delete"


class Committed(NamedTuple):
    """The end of a commit, and what the response must carry: a token to set, or one of the three."""

    cookie: Cookie | Token
    token: Token | None = None  # may be sent to the client again; None: there is none, or it is on its way out
    lost: bool = False  # the record was gone (a logout elsewhere), so what this request wrote was dropped
    took_over: bool = False  # another library's session: its cookie is not needed any more


UNUSED = Committed(Cookie.KEEP)
_ABSENT = object()


def commit(session: Session) -> Steps[Committed]:
    """Yield each store operation, receive its result, return what became of it.

    May run again: later changes are written then. Raises SessionValueError.
    """
    binding = session._binding
    if binding is None or binding.unavailable is not None or not binding.loaded:
        return UNUSED
    if binding.record is not None:
        done = yield from _update(session, binding)
    else:
        done = yield from _begin_anew(session, binding)
    if binding.untold is not None:
        done, binding.untold = _with_untold(done, binding.untold), None
    return done


def settled(session: Session) -> Committed | None:
    """What a commit would return, if it is plain that it would write nothing. Quick; None is no answer."""
    binding = session._binding
    if binding is None or binding.changed or binding.record is None or binding.untold is not None or binding.joining:
        return None
    if binding.plural:
        return None  # another proof, perhaps, that is to end
    lifetime, values = binding.terms.lifetime, binding.values
    if not binding.closed and (lifetime.renewal is not None or lifetime.touch_due(binding.record, binding.now())):
        return None
    names = binding.mutable
    if names and not codec.are_plainly([values[name] for name in names], [binding.encoded(name) for name in names]):
        return None
    return Committed(Cookie.KEEP, binding.token if binding.standing else None)


def save(session: Session) -> Steps[None]:
    """Commit before the response does; what the client has to be told waits for the headers."""
    done = yield from commit(session)
    binding = session._binding
    if binding is not None and (isinstance(done.cookie, Token) or done.cookie is Cookie.DELETE):
        binding.untold = done


def reload(session: Session) -> Steps[None]:
    """Show what is stored now. What was not saved is dropped; ended elsewhere, the session is empty."""
    binding = session._binding
    if binding is None or binding.record is None or binding.token is None:
        return
    token = binding.token
    if not binding.accept((yield Load(token.key)), token):
        binding.begin_anew()
    binding.changed, binding.rotation, binding.owner = False, None, None
    session.show(binding.values)


def _with_untold(done: Committed, untold: Committed) -> Committed:
    """The last word counts; of an older one is left what the new one does not say."""
    cookie = done.cookie if isinstance(done.cookie, Token) or done.cookie is Cookie.DELETE else untold.cookie
    if isinstance(cookie, Token) and done.lost:
        cookie = Cookie.KEEP
    return done._replace(cookie=cookie, took_over=done.took_over or untold.took_over)


def _begin_anew(session: Session, binding: Binding) -> Steps[Committed]:
    ended = bool(binding.ended)
    try:
        done = yield from _begin(session, binding)
    except (SessionValueError, SessionLimitReached):
        yield from _end(binding)  # a logout counts, even if what came after it can't be stored
        raise
    # After the new one is there: a crash between the two must not leave the client with neither.
    yield from _end(binding)
    return done._replace(cookie=Cookie.DELETE) if ended and done.token is None else done


def _end(binding: Binding) -> Steps[None]:
    while binding.ended:
        key, owner = binding.ended[-1]
        yield Delete(key)
        binding.ended.pop()
        if owner:
            yield from forget(owner, key)


def _begin(session: Session, binding: Binding) -> Steps[Committed]:
    """A new session, perhaps in the place of another library's."""
    old, binding.old = binding.old, None
    if old is not None:
        taken = yield from _take_over(session, binding, old)
        if taken is not None:
            return taken
    if not dict.__len__(session) and not binding.owner:
        return UNUSED if old is None else Committed(Cookie.DELETE, took_over=True)
    token, record, fields = yield from _created(session, binding)
    rebase(session, binding, token, record, fields)
    yield from end_oldest(record.owner, binding.terms)
    return Committed(token, token, took_over=old is not None)


def _created(session: Session, binding: Binding) -> Steps[tuple[Token, Record, Mapping[str, bytes]]]:
    now, owner = binding.now(), binding.owner or None
    fields = {name: codec.encode(value, f"session[{name!r}]") for name, value in dict.items(session)}
    check_sizes(binding, fields, fields)
    while True:
        token = binding.current_token()
        if owner:
            yield from register(owner, token.key, now, binding.terms)
        record = Record(
            fields=stored(binding, token.key, fields) | new_proof(token, now, 0) | _device(binding, token.key),
            created=now,
            touched=now,
            expires=binding.terms.lifetime.expires(now, now),
            owner=owner,
        )
        if (yield Create(token.key, record)):
            return token, record, fields
        binding.token = None  # the key is taken: with 128 random bits, a broken source of randomness


def _take_over(session: Session, binding: Binding, old: OldSession) -> Steps[Committed | None]:
    """Mark it as taken, so that it can't be presented again. None: it is ours, and begins now."""
    now = binding.now()
    fresh = binding.old_ended or bool(binding.owner)
    if (yield Create(old.marker, Record({}, now, now, max(old.until, now + 1)))) or fresh:
        # Requests at the same time may join it by its handle, but not if this one logs in or out.
        binding.token = None if fresh else Token.new(binding.random_bytes, old.handle)
        return None
    # Another request was first: what this one changed goes into the session that that one began.
    wanted = dict(dict.items(session))
    yield from binding.join(old)
    if binding.record is None:
        session.show({})
        return Committed(Cookie.KEEP, lost=True, took_over=True)
    changed = {k: v for k, v in wanted.items() if k not in old.values or old.values[k] != v}
    session.show({**{k: v for k, v in binding.values.items() if k in wanted or k not in old.values}, **changed})
    binding.changed = True
    return (yield from _update(session, binding))._replace(took_over=True)


def _update(session: Session, binding: Binding) -> Steps[Committed]:
    record, token = binding.record, binding.token
    assert record is not None
    assert token is not None
    now, lifetime = binding.now(), binding.terms.lifetime
    fields, drop = _field_changes(session, binding)
    if binding.closed and not (fields or drop):
        return UNUSED  # the second commit, after the body
    rotated, strict = _rotation(binding, record, token, now)
    put: dict[str, bytes] = {}
    if binding.joining:
        put = new_proof(token, now, record.generation)
    elif rotated is not None or (binding.plural and has_other_proofs(record)):
        put, drop_proofs = proof_changes(record, token, lifetime, now, rotated=rotated, strict=strict)
        drop |= drop_proofs
    put_proofs = bool(put)
    touches = lifetime.touch_due(record, now)
    if not (fields or drop or put or touches or binding.owner is not None):
        return Committed(Cookie.KEEP, _sendable(record, token))
    if fields:
        check_sizes(binding, fields, {**binding.plain, **fields})
        put |= stored(binding, token.key, fields)
    if binding.owner:
        yield from register(binding.owner, token.key, now, binding.terms)
        put |= _device(binding, token.key)
    change = Change(
        generation=record.generation,
        put=put,
        drop=drop,
        # Two tokens that are presented at once must not end each other: who was ended meanwhile ends nobody.
        expect={token.proof: record.fields[token.proof]} if put_proofs and rotated is None else {},
        touched=now if touches else None,
        expires=lifetime.expires(record.created, now) if touches else None,
        owner=binding.owner,
        raise_generation=strict,
        delete_if_only=RESERVED if drop and _is_empty(session, binding, record) else None,
        base=record,
    )
    update = Update(token.key, change)
    try:
        applied = yield update
    except StoreError:
        if not update.only_touches:
            raise
        return Committed(Cookie.KEEP, _sendable(record, token))  # a request that only read has its answer
    if applied is Applied.CONFLICT:
        return (yield from _without_proofs(session, binding, change, fields))
    done = _settle(session, binding, change, applied, fields, rotated)
    if applied is Applied.APPLIED:
        yield from _keep_account(binding, record, change, now)
    return done


def _without_proofs(
    session: Session, binding: Binding, change: Change, fields: Mapping[str, bytes]
) -> Steps[Committed]:
    """The token was ended meanwhile, by another one that was presented at the same time: write what is ours alone."""
    token = binding.current_token()
    proofs = {name for name in change.put if name.startswith(RESERVED)}
    put = {name: data for name, data in change.put.items() if name not in proofs}
    change = replace(change, put=put, drop=frozenset(n for n in change.drop if not n.startswith(RESERVED)), expect={})
    done = _settle(session, binding, change, (yield Update(token.key, change)), fields, None)
    return done._replace(cookie=Cookie.KEEP, token=None) if done.cookie is Cookie.REFRESH else done


def _rotation(binding: Binding, record: Record, token: Token, now: float) -> tuple[Token | None, bool]:
    """The token to give out instead of `token`, and whether the change is strict."""
    if binding.joining:
        return token, False
    due = binding.terms.lifetime.renewal_due(record, token, now) and not binding.closed
    if binding.rotation is None and not due:
        return None, False
    return binding.rotated_token(), binding.rotation == "strict"


def _keep_account(binding: Binding, record: Record, change: Change, now: float) -> Steps[None]:
    """The lists of owners: who came is counted, who left is taken out, and a list lives as long as its sessions."""
    key = binding.current_token().key
    if change.owner is not None and record.owner and record.owner != change.owner:
        yield from forget(record.owner, key)
    if change.owner:
        yield from end_oldest(change.owner, binding.terms)
    elif record.owner and change.touched is not None:
        yield from refresh(record, key, now, binding.terms)


def _is_empty(session: Session, binding: Binding, record: Record) -> bool:
    owner = record.owner if binding.owner is None else binding.owner
    return not (dict.__len__(session) or binding.undecodable or owner)


def _settle(
    session: Session,
    binding: Binding,
    change: Change,
    applied: Applied,
    fields: Mapping[str, bytes],
    rotated: Token | None,
) -> Committed:
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
    after = changed(record, change)
    plain = {name: data for name, data in binding.plain.items() if name not in change.drop} | dict(fields)
    rebase(session, binding, rotated or token, after, plain)
    if rotated is not None:
        return Committed(rotated, rotated)
    sendable = _sendable(after, token)
    return Committed(Cookie.REFRESH if sendable else Cookie.KEEP, sendable)


def _sendable(record: Record, token: Token | None) -> Token | None:
    """A token on its way out must not be sent again: it would replace its successor at the client."""
    return None if token is None or is_leaving(record, token) else token


def changed(record: Record, change: Change) -> Record:
    """The record as this request knows it after `change`; other requests' changes are not in it, and need not be."""
    kept = {name: value for name, value in record.fields.items() if name not in change.drop}
    kept.update(change.put)
    return Record(
        fields=kept,
        created=record.created,
        touched=record.touched if change.touched is None else change.touched,
        expires=record.expires if change.expires is None else max(change.expires, record.expires),
        owner=(change.owner or None) if change.owner is not None else record.owner,
        generation=record.generation + change.raise_generation,
    )


def rebase(session: Session, binding: Binding, token: Token | None, record: Record, plain: Mapping[str, bytes]) -> None:
    binding.token, binding.record, binding.plain = token, record, plain
    binding.plural = sum(name.startswith(RESERVED) for name in record.fields) > 1
    binding.standing = token is not None and not is_leaving(record, token)
    binding.values = dict(dict.items(session))
    binding.mutable = [name for name, value in binding.values.items() if type(value) not in codec.SCALARS]
    binding.rotation = binding.owner = None
    binding.changed = binding.joining = False


def _field_changes(session: Session, binding: Binding) -> tuple[dict[str, bytes], frozenset[str]]:
    """The encoded values that differ from what was loaded, and the names that are there no more."""
    values, plain = binding.values, binding.plain
    put = {}
    for name, value in dict.items(session):
        loaded = plain.get(name)
        if loaded is not None and values.get(name, _ABSENT) is value and _is_as_loaded(value, loaded):
            continue
        data = codec.encode(value, f"session[{name!r}]")
        if data != loaded and (loaded is None or data != _encoded_again(loaded)):
            put[name] = data
    if plain.keys() <= dict.keys(session):
        return put, frozenset()
    present = dict.keys(session) | binding.undecodable
    return put, frozenset(name for name in plain if name not in present)


def _is_as_loaded(value: object, loaded: bytes) -> bool:
    """`value` is the very object that was loaded: a scalar can't have changed, others may have inside."""
    return type(value) in codec.SCALARS or codec.is_plainly(value, loaded)


def _encoded_again(loaded: bytes) -> bytes | None:
    """`loaded` as this version writes it: a reader must not write because the codec changed."""
    try:
        return codec.encode(codec.decode(loaded), "")
    except (ValueError, TypeError):
        return None


def stored(binding: Binding, key: str, fields: Mapping[str, bytes]) -> dict[str, bytes]:
    """As the store gets them: sealed, if there is a key."""
    sealer = binding.terms.sealer
    if sealer is None:
        return dict(fields)
    return {name: sealer.seal(key, name, data) for name, data in fields.items()}


def _device(binding: Binding, key: str) -> dict[str, bytes]:
    if not binding.terms.metadata:
        return {}
    device = binding.inbound.device()
    return stored(binding, key, {DEVICE: codec.encode([device.agent, device.network], "")})


def check_sizes(binding: Binding, new: Mapping[str, bytes], all_: Mapping[str, Any]) -> None:
    most = binding.terms.maximum_value_size
    for name, data in new.items():
        if len(data) > most:
            raise SessionValueError(
                f"session[{name!r}]: takes {len(data):,} bytes; a key may take {most:,} (session.maximum_value_size)"
            )
    size, most = sum(len(name) + len(data) for name, data in all_.items()), binding.terms.maximum_session_size
    if size > most:
        raise SessionValueError(f"session: takes {size:,} bytes; it may take {most:,} (session.maximum_session_size)")
