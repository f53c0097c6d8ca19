"""What a request's session asks of the store, and then of the client.

Nothing tracks changes: the encoded values are compared with the bytes that were loaded, so changes inside of values
are found, and a session that is as it was costs no write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Any, NamedTuple

from ..errors import SessionLimitReached, SessionValueError, StoreError
from . import codec
from .binding import Binding
from .events import SessionEvent
from .inbound import OldSession
from .operations import Create, Delete, Load, Steps, Update
from .owners import end_oldest, forget, refresh, register
from .policy import has_other_proofs, is_leaving, is_proof, new_proof, proof_changes
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
    token, joining = binding.token, binding.joining
    record = yield Load(token.key)
    if not (binding.join(token, record, [joining]) if joining else binding.renew(record)):
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
    if binding.old is not None and binding.old_ended:
        # Nobody can take it over any more, and who just did is out.
        yield from _marked(binding, binding.old, ())
        yield Delete(Token(binding.old.handle, "").key)
        binding.old, binding.old_ended = None, False
    while binding.ended:
        key, owner = binding.ended[-1]
        yield Delete(key)
        binding.ended.pop()
        binding.events.append(SessionEvent("ended", key, owner))
        if owner:
            yield from forget(owner, key)


def _begin(session: Session, binding: Binding) -> Steps[Committed]:
    """A new session, perhaps in the place of another library's."""
    old, empty = binding.old, not dict.__len__(session) and not binding.owner
    if old is not None and not binding.old_ended:
        if binding.closed:
            return UNUSED  # the client could not be told: its next request takes it over
        if not (empty or binding.owner or binding.rotation):
            return (yield from _take_over(session, binding, old))
    if old is not None:
        binding.token = Token.new(binding.random_bytes)  # those who present it at the same time must not arrive here
    if empty:
        done = UNUSED if old is None else Committed(Cookie.DELETE, took_over=True)
    else:
        token, record, fields = yield from _created(session, binding)
        rebase(session, binding, token, record, fields)
        binding.events.append(SessionEvent("created", token.key, record.owner))
        yield from end_oldest(record.owner, binding.terms)
        done = Committed(token, token, took_over=old is not None)
    binding.old_ended = old is not None
    return done


def _created(session: Session, binding: Binding) -> Steps[tuple[Token, Record, Mapping[str, bytes]]]:
    now, owner = binding.now(), binding.owner or None
    fields = _encoded_all(session, binding)
    while True:
        token = binding.current_token()
        if owner:
            yield from register(owner, token.key, now, binding.terms)
        record = _new_record(binding, token, fields)
        if (yield Create(token.key, record)):
            return token, record, fields
        # The key is taken: with 128 random bits, a broken source of randomness.
        binding.token = Token.new(binding.random_bytes)


def _encoded_all(session: Session, binding: Binding) -> dict[str, bytes]:
    fields = {name: codec.encode(value, f"session[{name!r}]") for name, value in dict.items(session)}
    check_sizes(binding, fields, fields)
    return fields


def _new_record(binding: Binding, token: Token, fields: Mapping[str, bytes]) -> Record:
    now = binding.now()
    return Record(
        fields=stored(binding, token.key, fields) | new_proof(token, now, 0) | _device(binding, token.key),
        created=now,
        touched=now,
        expires=binding.terms.lifetime.expires(now, now),
        owner=binding.owner or None,
    )


def _take_over(session: Session, binding: Binding, old: OldSession) -> Steps[Committed]:
    """Go on with it as a session of ours, under a handle that all who present it at the same time arrive at.

    First the session, then the mark that it was taken over: a crash between the two logs nobody out.
    """
    fields = _encoded_all(session, binding)
    token = Token.new(binding.random_bytes, old.handle)
    record = _new_record(binding, token, fields)
    if not (yield Create(token.key, record)):
        return (yield from _join(session, binding, old, fields))
    if token.proof not in (yield from _marked(binding, old, [token.proof])):
        yield Delete(token.key)  # it was taken over before, and what it became has ended
        return _shut_out(session, binding)
    binding.old = None
    rebase(session, binding, token, record, fields)
    binding.events.append(SessionEvent("created", token.key, record.owner))
    return Committed(token, token, took_over=True)


def _marked(binding: Binding, old: OldSession, proofs: Iterable[str]) -> Steps[Iterable[str]]:
    """Write down that `old` was taken over, and `proofs` given for it; return the proofs that really were."""
    now = binding.now()
    marker = Record(dict.fromkeys(proofs, b"1"), now, now, max(old.until, now + 1))
    if not (yield Create(old.marker, marker)):
        marker = yield Load(old.marker)
    return () if marker is None else marker.fields


def _join(session: Session, binding: Binding, old: OldSession, fields: Mapping[str, bytes]) -> Steps[Committed]:
    """Another request was first: what this one changed goes into the session that that one began."""
    before, wanted = binding.plain, dict(dict.items(session))
    token = Token.new(binding.random_bytes, old.handle)
    record = yield from binding.asking(token.key)
    # Whoever began it marks it, but may have crashed before.
    proofs = yield from _marked(binding, old, [] if record is None else [n for n in record.fields if is_proof(n)])
    if not binding.join(token, record, proofs):
        return _shut_out(session, binding)
    binding.old = None
    changed = {name: wanted[name] for name, data in fields.items() if data != before.get(name)}
    dropped = before.keys() - wanted.keys()
    session.show({name: value for name, value in binding.values.items() if name not in dropped} | changed)
    return (yield from _update(session, binding))


def _shut_out(session: Session, binding: Binding) -> Committed:
    """What was taken over has ended meanwhile, as any session may."""
    binding.old = None
    binding.begin_anew()
    session.show({})
    return Committed(Cookie.KEEP, lost=True)


def _update(session: Session, binding: Binding) -> Steps[Committed]:
    record, token = binding.record, binding.token
    assert record is not None
    assert token is not None
    now = binding.now()
    fields, drop = _field_changes(session, binding)
    if binding.closed and not (fields or drop):
        return UNUSED  # the second commit, after the body
    rotated, strict = _rotation(binding, record, token, now)
    put, gone, expect = _proofs(binding, record, token, now, rotated, strict)
    touches = binding.terms.lifetime.touch_due(record, now)
    if not (fields or drop or put or gone or touches or binding.owner is not None):
        return Committed(Cookie.KEEP, _sendable(binding))
    if fields:
        check_sizes(binding, fields, {**binding.plain, **fields})
        put.update(stored(binding, token.key, fields))
    if binding.owner:
        yield from register(binding.owner, token.key, now, binding.terms)
        put |= _device(binding, token.key)
    change = Change(
        generation=record.generation,
        put=put,
        drop=drop | gone,
        expect=expect,
        touched=now if touches else None,
        expires=binding.terms.lifetime.expires(record.created, now) if touches else None,
        owner=binding.owner,
        raise_generation=strict,
        delete_if_only=RESERVED if drop and _is_empty(session, binding, record) else None,
        base=record,
    )
    return (yield from _written(session, binding, change, fields, rotated))


def _proofs(
    binding: Binding, record: Record, token: Token, now: float, rotated: Token | None, strict: bool
) -> tuple[dict[str, bytes], frozenset[str], dict[str, bytes | None]]:
    """What to put, to drop and to expect among the proofs."""
    if binding.joining and binding.rotation is None:
        expect: dict[str, bytes | None] = {binding.joining: record.fields[binding.joining]}
        return new_proof(token, now, record.generation), frozenset(), expect
    if rotated is None and not (binding.plural and has_other_proofs(record) and token.proof in record.fields):
        return {}, frozenset(), {}
    joins = bool(binding.joining)
    put, drop = proof_changes(record, token, binding.terms.lifetime, now, rotated=rotated, strict=strict, joins=joins)
    # Two tokens that are presented at once must not end each other: who was ended meanwhile ends nobody.
    return put, drop, {token.proof: record.fields[token.proof]} if put and rotated is None else {}


def _written(
    session: Session, binding: Binding, change: Change, fields: Mapping[str, bytes], rotated: Token | None
) -> Steps[Committed]:
    record = binding.record
    assert record is not None
    update = Update(binding.current_token().key, change)
    try:
        applied = yield update
    except StoreError:
        if not update.only_touches:
            raise
        return Committed(Cookie.KEEP, _sendable(binding))  # a request that only read has its answer
    if applied is Applied.CONFLICT:
        return (yield from _without_proofs(session, binding, change, fields))
    done = _settle(session, binding, change, applied, fields, rotated)
    if applied is Applied.APPLIED:
        yield from _keep_account(binding, record, change, binding.now())
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
        return token, binding.rotation == "strict"
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
    record, token, joins = binding.record, binding.token, bool(binding.joining)
    assert record is not None
    if applied is Applied.EMPTIED:
        binding.events.append(SessionEvent("ended", binding.current_token().key, record.owner))
        binding.begin_anew()
        return Committed(Cookie.DELETE)
    if applied is not Applied.APPLIED:
        # Logged out or strictly rotated elsewhere. The cookie is left alone: another response may just have set it.
        binding.begin_anew()
        dict.clear(session)
        return Committed(Cookie.KEEP, lost=bool(change.put or change.drop))
    after = changed(record, change)
    plain = {**binding.plain, **fields}
    for name in change.drop:
        plain.pop(name, None)
    rebase(session, binding, rotated or token, after, plain)
    if rotated is not None:
        if not joins:
            binding.events.append(SessionEvent("rotated", rotated.key, after.owner))
        return Committed(rotated, rotated, took_over=joins)
    sendable = _sendable(binding)
    return Committed(Cookie.REFRESH if sendable else Cookie.KEEP, sendable)


def _sendable(binding: Binding) -> Token | None:
    """A token on its way out must not be sent again: it would replace its successor at the client."""
    return binding.token if binding.standing else None


def changed(record: Record, change: Change) -> Record:
    """The record as this request knows it after `change`; other requests' changes are not in it, and need not be."""
    fields = dict(record.fields)
    for name in change.drop:
        fields.pop(name, None)
    fields.update(change.put)
    return Record(
        fields=fields,
        created=record.created,
        touched=record.touched if change.touched is None else change.touched,
        expires=record.expires if change.expires is None else max(change.expires, record.expires),
        owner=(change.owner or None) if change.owner is not None else record.owner,
        generation=record.generation + change.raise_generation,
    )


def rebase(session: Session, binding: Binding, token: Token | None, record: Record, plain: Mapping[str, bytes]) -> None:
    binding.token, binding.record, binding.plain = token, record, plain
    binding.plural = len(record.fields) - len(plain) > 1
    binding.standing = token is not None and not is_leaving(record, token)
    binding.values = dict(dict.items(session))  # not dict.copy: a subclass is copied key by key
    binding.mutable = [name for name, value in binding.values.items() if type(value) not in codec.SCALARS]
    binding.rotation = binding.owner = None
    binding.changed, binding.joining = False, ""


def _field_changes(session: Session, binding: Binding) -> tuple[dict[str, bytes], frozenset[str]]:
    """The encoded values that differ from what was loaded, and the names that are there no more."""
    values, plain, scalars = binding.values, binding.plain, codec.SCALARS
    put = {}
    for name, value in dict.items(session):
        # The very object that was loaded: a scalar can't have changed, others may have inside.
        if values.get(name, _ABSENT) is value and (type(value) in scalars or codec.is_plainly(value, plain[name])):
            continue
        loaded = plain.get(name)
        data = codec.encode(value, f"session[{name!r}]")
        if data != loaded and (loaded is None or data != _encoded_again(loaded)):
            put[name] = data
    if plain.keys() <= dict.keys(session):
        return put, frozenset()
    present = dict.keys(session) | binding.undecodable
    return put, frozenset(name for name in plain if name not in present)


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
    size, most = sum(map(len, all_)) + sum(map(len, all_.values())), binding.terms.maximum_session_size
    if size > most:
        raise SessionValueError(f"session: takes {size:,} bytes; it may take {most:,} (session.maximum_session_size)")
