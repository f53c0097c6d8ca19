"""What a request's changes to a session that exists ask of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import compress, repeat
from operator import is_not

from ..errors import StoreError
from . import codec
from .binding import Binding
from .events import SessionEvent
from .operations import Steps, Update
from .owners import end_oldest, forget, refresh, register
from .policy import has_other_proofs, new_proof, proof_changes
from .session import Session
from .store import APPLIED, Applied, Change, Record
from .token import RESERVED, Token
from .writing import (
    KEEP,
    REFRESH,
    UNUSED,
    Begun,
    Committed,
    Cookie,
    begun,
    changed,
    check_sizes,
    device,
    keep_untold,
    rebase,
    stored,
)

_NONE: frozenset[str] = frozenset()
_ABSENT = object()
_KEPT = Committed(KEEP)


# What an update asks of the store, and what it is made of: the application's fields, encoded and not sealed, the token
# to give out from now on, and how the session was then.
_Planned = tuple[Change, Mapping[str, bytes], Token | None, Begun]


def update(session: Session, binding: Binding) -> Steps[Committed]:
    planned = _planned(session, binding)
    if isinstance(planned, Committed):
        return planned
    change, record, token = planned[0], binding.record, binding.token
    assert record is not None
    assert token is not None
    if change.owner:
        yield from register(change.owner, token.key, binding.now(), binding.terms)
    try:
        applied = yield Update(token.key, change)
    except StoreError:
        if not _only_reads(binding, planned):
            raise
        # A request that only read has its answer. A renewal that failed may have been applied.
        return Committed(Cookie.KEEP, None if change.put else _sendable(binding))
    if applied is not APPLIED and applied is Applied.CONFLICT:
        return (yield from _without_proofs(session, binding, planned))
    done = _settle(session, binding, planned, applied)
    if applied is APPLIED and (change.owner is not None or record.owner):
        yield from _keep_account(binding, token.key, record, change)
    return done


def _planned(session: Session, binding: Binding) -> _Planned | Committed:
    """The change to make; or that there is nothing to do."""
    record, token, now = binding.record, binding.token, binding.now()
    assert record is not None
    assert token is not None
    lifetime = binding.terms.lifetime
    fields, drop = field_changes(session, binding)
    if binding.closed and not (fields or drop):
        return UNUSED  # the second commit, after the body
    rotated: Token | None = None
    put: dict[str, bytes] = {}
    expect: dict[str, bytes | None] = {}
    strict, gone = False, _NONE
    if binding.plural or binding.joining or binding.rotation or lifetime.renewal is not None:  # most are none of these
        rotated, strict = _rotation(binding, record, token, now)
        put, gone, expect = _proofs(binding, record, token, now, rotated, strict)
    touches = lifetime.touch_due(record, now)
    if not (fields or drop or put or gone or touches or binding.owner is not None):
        return Committed(KEEP, _sendable(binding))
    if fields:
        check_sizes(binding, fields, binding.plain, drop)
        put |= fields if binding.terms.sealer is None else stored(binding, token.key, fields)
    if binding.owner:
        put.update(device(binding, token.key))
    if binding.standing and rotated is None and not binding.closed:
        # The cookie is sent again: not if a rotation has come between, or it would replace its successor.
        expect = _as_it_was(record, token)
    change = Change(
        generation=record.generation,
        put=put,
        drop=drop | gone if gone else drop,
        expect=expect,
        touched=now if touches else None,
        expires=lifetime.expires(record.created, now) if touches else None,
        owner=binding.owner,
        raise_generation=strict,
        delete_if_only=RESERVED if drop and _is_empty(session, binding, record) else None,
        base=record,
    )
    if change.delete_if_only is None:
        change.after = changed(record, change)
    return change, fields, rotated, begun(session, binding, fields)


def _rotation(binding: Binding, record: Record, token: Token, now: float) -> tuple[Token | None, bool]:
    """The token to give out instead of `token`, and whether the change is strict."""
    if binding.joining:
        return token, binding.rotation == "strict"
    due = binding.terms.lifetime.renewal_due(record, token, now) and not binding.closed
    if binding.rotation is None and not due:
        return None, False
    return binding.rotated_token(), binding.rotation == "strict"


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
    return put, drop, _as_it_was(record, token) if put and rotated is None else {}


def _as_it_was(record: Record, token: Token) -> dict[str, bytes | None]:
    """The token's proof, if it has one: who let go of it meanwhile has given out another token."""
    return {token.proof: record.fields[token.proof]} if token.proof in record.fields else {}


def field_changes(session: Session, binding: Binding) -> tuple[dict[str, bytes], frozenset[str]]:
    """The encoded values that differ from what was loaded, and the names that are there no more."""
    values, plain, drop, put = binding.values, binding.plain, _NONE, {}
    if dict.keys(session) != plain.keys():
        present = dict.keys(session) | binding.undecodable
        drop = frozenset(name for name in plain if name not in present)
    for name in _perhaps_changed(session, binding):
        value, loaded = dict.__getitem__(session, name), plain.get(name)
        data = codec.encode_field(name, value)
        if loaded is None or (data != loaded and _differs(value, values.get(name), data, loaded)):
            put[name] = data
    return put, drop


def _perhaps_changed(session: Session, binding: Binding) -> Iterable[str]:
    """The names that do not hold the very object that was loaded.

    That one can only have changed inside: if it can, and was seen by anybody. No loop in Python, for most were not.
    """
    names, values = [*dict.keys(session)], binding.values
    changed = compress(names, map(is_not, dict.values(session), map(values.get, names, repeat(_ABSENT))))
    if not session._lent:
        return changed
    others, plain = {*changed}, binding.plain
    return [name for name in names if name in others or _is_other(values[name], plain[name])]


def _is_other(value: object, loaded: bytes) -> bool:
    """May it have changed? Quick."""
    return type(value) not in codec.SCALARS and not codec.is_plainly(value, loaded)


def _differs(value: object, before: object, data: bytes, loaded: bytes) -> bool:
    """Is it really another value? Else `loaded` is how another version of this codec wrote it, and may stay."""
    if type(value) is type(before) and type(value) in codec.SCALARS and value != before:
        return True
    try:
        return data != codec.encode(codec.decode(loaded), "")
    except (ValueError, TypeError):
        return True


def _is_empty(session: Session, binding: Binding, record: Record) -> bool:
    owner = record.owner if binding.owner is None else binding.owner
    return not (dict.__len__(session) or binding.undecodable or owner)


def _only_reads(binding: Binding, planned: _Planned) -> bool:
    """Is it all ours, and nothing of the app's: the time of the last use, a renewal, the end of other tokens?"""
    change, fields = planned[:2]
    asked = binding.rotation or binding.joining or change.owner is not None
    return not (asked or fields or any(not name.startswith(RESERVED) for name in change.drop))


def _without_proofs(session: Session, binding: Binding, planned: _Planned) -> Steps[Committed]:
    """The token was ended meanwhile, by another one that was presented at the same time: write what is ours alone."""
    change, fields, _, start = planned
    token = start.token
    assert token is not None
    proofs = {name for name in change.put if name.startswith(RESERVED)}
    put = {name: data for name, data in change.put.items() if name not in proofs}
    drop = frozenset(name for name in change.drop if not name.startswith(RESERVED))
    change = replace(change, put=put, drop=drop, expect={}, after=None)
    done = _settle(session, binding, (change, fields, None, start), (yield Update(token.key, change)))
    if binding.record is not None and binding.token is token:
        binding.record = _without(binding.record, token.proof)
        binding.standing = False
    return done._replace(cookie=Cookie.KEEP, token=None) if done.cookie is Cookie.REFRESH else done


def _without(record: Record, proof: str) -> Record:
    """As far as we know, `proof` stands no more: another request has changed it."""
    return replace(record, fields={n: data for n, data in record.fields.items() if n != proof}, packed=None)


def _settle(session: Session, binding: Binding, planned: _Planned, applied: Applied) -> Committed:
    change, fields, rotated, start = planned
    record, joins = binding.record, bool(binding.joining)
    if record is None or not binding.holds(start.token):  # another task has ended it meanwhile
        return Committed(Cookie.DELETE) if record is None else _KEPT
    if applied is not APPLIED:
        if applied is Applied.EMPTIED:
            binding.tell(SessionEvent("ended", binding.current_token().key, record.owner))
            binding.begin_anew()
            return Committed(Cookie.DELETE)
        # Logged out or strictly rotated elsewhere. The cookie is left alone: another response may just have set it.
        binding.begin_anew()
        dict.clear(session)
        return Committed(Cookie.KEEP, lost=bool(change.put or change.drop))
    after = change.after
    if after is None or record is not change.base:  # or another task has written it meanwhile
        after = changed(record, change)
    plain = {**binding.plain, **fields}
    for name in change.drop:
        plain.pop(name, None)
    rebase(session, binding, rotated or binding.token, after, plain, start)
    if rotated is not None:
        if not joins:
            binding.tell(SessionEvent("rotated", rotated.key, after.owner))
        done = Committed(rotated, rotated, took_over=joins)
        keep_untold(binding, done)
        return done
    return Committed(REFRESH, binding.token) if binding.standing else _KEPT


def _sendable(binding: Binding) -> Token | None:
    """A token on its way out must not be sent again: it would replace its successor at the client."""
    return binding.token if binding.standing else None


def _keep_account(binding: Binding, key: str, record: Record, change: Change) -> Steps[None]:
    """The lists of owners: who came is counted, who left is taken out, and a list lives as long as its sessions."""
    if change.owner is not None and record.owner and record.owner != change.owner:
        yield from forget(record.owner, key)
    if change.owner:
        yield from end_oldest(change.owner, binding.terms)
    elif record.owner and change.touched is not None:
        yield from refresh(record, key, binding.now(), binding.terms)
