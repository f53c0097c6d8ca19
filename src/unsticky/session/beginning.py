"""What a new session asks of the store: one of our own, or one that takes the place of another library's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import codec
from .binding import Binding
from .events import SessionEvent
from .inbound import OldSession
from .operations import Create, Delete, Load, Steps, Update
from .owners import end_oldest, register
from .policy import is_proof, new_proof
from .session import Session
from .store import Applied, Change, Record
from .takeover import taken_by
from .token import Token
from .updating import update
from .writing import UNUSED, Committed, Cookie, begun, check_sizes, device, keep_untold, rebase, stored


def begin(session: Session, binding: Binding) -> Steps[Committed]:
    """A new session, perhaps in the place of another library's."""
    # After the headers none can begin: the client would never hear of it.
    old, empty = binding.old, binding.closed or not (dict.__len__(session) or binding.owner)
    if old is not None and not binding.old_ended:
        if binding.closed:
            return UNUSED  # the client could not be told: its next request takes it over
        if not (empty or binding.owner or binding.rotation):
            return (yield from _take_over(session, binding, old))
    if old is not None:
        binding.token = Token.new(binding.random_bytes)  # those who present it at the same time must not arrive here
    if empty:
        binding.old_ended = old is not None
        return UNUSED if old is None else Committed(Cookie.DELETE, took_over=True)
    start = begun(session, binding, dict.keys(session))
    created = yield from _created(session, binding)
    if created is None:
        return (yield from update(session, binding))
    token, record, fields = created
    if binding.token is not token:  # another task has ended it meanwhile
        binding.ended += ((token.key, record.owner),)
        return UNUSED
    rebase(session, binding, token, record, fields, start)
    binding.old_ended = old is not None
    binding.tell(SessionEvent("created", token.key, record.owner))
    done = Committed(token, token, took_over=old is not None)
    keep_untold(binding, done)
    yield from end_oldest(record.owner, binding.terms)
    return done


def _created(session: Session, binding: Binding) -> Steps[tuple[Token, Record, Mapping[str, bytes]] | None]:
    """None if another task of this request has done it meanwhile."""
    now, owner = binding.now(), binding.owner or None
    fields = _encoded_all(session, binding)
    while True:
        token = binding.current_token()
        if owner:
            yield from register(owner, token.key, now, binding.terms)
        record = _new_record(binding, token, fields, owner)
        if (yield Create(token.key, record)):
            return token, record, fields
        if binding.record is not None:
            return None
        # The key is taken: with 128 random bits, a broken source of randomness.
        binding.token = Token.new(binding.random_bytes)


def _encoded_all(session: Session, binding: Binding) -> dict[str, bytes]:
    fields = {name: codec.encode_field(name, value) for name, value in dict.items(session)}
    check_sizes(binding, fields)
    return fields


def _new_record(binding: Binding, token: Token, fields: Mapping[str, bytes], owner: str | None = None) -> Record:
    now = binding.now()
    return Record(
        fields=stored(binding, token.key, fields) | new_proof(token, now, 0) | device(binding, token.key),
        created=now,
        touched=now,
        expires=binding.terms.lifetime.expires(now, now),
        owner=owner,
    )


def _take_over(session: Session, binding: Binding, old: OldSession) -> Steps[Committed]:
    """Go on with it as a session of ours, under a handle that all who present it at the same time arrive at.

    First the session, then the mark that it was taken over: a crash between the two logs nobody out.
    """
    fields, start = _encoded_all(session, binding), begun(session, binding, dict.keys(session))
    token = Token.new(binding.random_bytes, old.handle)
    record = _new_record(binding, token, fields)
    if not (yield Create(token.key, record)):
        return (yield from _join(session, binding, old, fields))
    if token.proof not in (yield from marked(binding, old, [token.proof])):
        yield Delete(token.key)  # it was taken over before, and what it became has ended
        return _shut_out(session, binding)
    if binding.old_ended:  # by another task, meanwhile
        return UNUSED
    binding.old = None
    rebase(session, binding, token, record, fields, start)
    binding.tell(SessionEvent("created", token.key, record.owner))
    return Committed(token, token, took_over=True)


def marked(binding: Binding, old: OldSession, proofs: Iterable[str]) -> Steps[Iterable[str]]:
    """Write down that this client took `old` over, and `proofs` given for it; return the proofs that really were."""
    now, by = binding.now(), taken_by(Token(old.handle, ""))
    fields = dict.fromkeys([*proofs, by], b"1")
    if (yield Create(old.marker, Record(fields, now, now, max(old.until, now + 1)))):
        return fields
    # Another client may have presented the same. Each has its own session, and its own entry.
    if (yield Update(old.marker, Change(0, put=fields, expect={by: None}))) is Applied.APPLIED:
        return fields
    marker: Record | None = yield Load(old.marker)
    return () if marker is None else marker.fields


def _join(session: Session, binding: Binding, old: OldSession, fields: Mapping[str, bytes]) -> Steps[Committed]:
    """Another request was first: what this one changed goes into the session that that one began."""
    before, wanted = binding.plain, dict(dict.items(session))
    token = Token.new(binding.random_bytes, old.handle)
    record = yield from binding.asking(token.key)
    # Whoever began it marks it, but may have crashed before.
    proofs = yield from marked(binding, old, [] if record is None else [n for n in record.fields if is_proof(n)])
    if not binding.join(token, record, proofs):
        return _shut_out(session, binding)
    binding.old = None
    changed = {name: wanted[name] for name, data in fields.items() if data != before.get(name)}
    dropped = before.keys() - wanted.keys()
    session.show({name: value for name, value in binding.values.items() if name not in dropped} | changed)
    return (yield from update(session, binding))


def _shut_out(session: Session, binding: Binding) -> Committed:
    """What was taken over has ended meanwhile, as any session may."""
    binding.old = None
    binding.begin_anew()
    session.show({})
    return Committed(Cookie.KEEP, lost=True)
