"""What is written of a session, and what the client is told. Beginning one and changing one share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from operator import is_not
from typing import Any, NamedTuple

from ..errors import SessionValueError
from . import codec
from .binding import NOTHING, Binding
from .policy import stands
from .session import Session
from .store import Change, Record
from .token import RESERVED, Token

DEVICE = RESERVED + "device"  # the field that holds the User-Agent and coarse address, if they are kept


class Cookie(Enum):
    """What to tell the client, besides a token to set."""

    KEEP = "keep"  # no Set-Cookie
    REFRESH = "refresh"  # written or touched: a cookie with a Max-Age is sent again, others stay
    DELETE = "delete"


KEEP, REFRESH, DELETE = Cookie  # asked for at each write: see store.APPLIED


class Committed(NamedTuple):
    """The end of a commit, and what the response must carry: a token to set, or one of the three."""

    cookie: Cookie | Token
    token: Token | None = None  # may be sent to the client again; None: there is none, or it is on its way out
    lost: bool = False  # the record was gone (a logout elsewhere), so what this request wrote was dropped
    took_over: bool = False  # another library's session: its cookie is not needed any more


UNUSED = Committed(KEEP)


class Begun(NamedTuple):
    """What a commit began with. While it waits for the store, other tasks of its request may go on."""

    token: Token | None
    values: dict[str, Any]  # those that it writes
    rotation: str | None
    owner: str | None


def begun(session: Session, binding: Binding, written: Iterable[str]) -> Begun:
    values = {name: dict.__getitem__(session, name) for name in written}
    return Begun(binding.token, values, binding.rotation, binding.owner)


def keep_untold(binding: Binding, done: Committed) -> None:
    """It is in the store, and the client learns of it with the headers, whatever fails between here and there."""
    binding.untold = done if binding.untold is None else with_untold(done, binding.untold)


def with_untold(done: Committed, untold: Committed) -> Committed:
    """The last word counts; of an older one is left what the new one does not say."""
    cookie = done.cookie if isinstance(done.cookie, Token) or done.cookie is Cookie.DELETE else untold.cookie
    if isinstance(cookie, Token) and done.lost:
        cookie = Cookie.KEEP
    return done._replace(cookie=cookie, took_over=done.took_over or untold.took_over)


def stored(binding: Binding, key: str, fields: Mapping[str, bytes]) -> dict[str, bytes]:
    """As the store gets them: sealed, if there is a key."""
    sealer = binding.terms.sealer
    if sealer is None:
        return dict(fields)
    return {name: sealer.seal(key, name, data) for name, data in fields.items()}


def device(binding: Binding, key: str) -> dict[str, bytes]:
    if not binding.terms.metadata:
        return {}
    device = binding.inbound.device()
    return stored(binding, key, {DEVICE: codec.encode([device.agent, device.network], "")})


def check_sizes(
    binding: Binding, new: Mapping[str, bytes], kept: Mapping[str, bytes] = NOTHING, drop: frozenset[str] = frozenset()
) -> None:
    """Raises SessionValueError, if `new` and what stays of `kept` is too large."""
    terms, record = binding.terms, binding.record
    most, added = terms.maximum_value_size, _size(new)
    if added > most:
        for name, data in new.items():
            if len(data) > most:
                problem = f"takes {len(data):,} bytes; a key may take {most:,} (session.maximum_value_size)"
                raise SessionValueError(f"session[{name!r}]: {problem}")
    most = terms.maximum_session_size
    # As the store holds a record, it is longer than what is kept of it; and what is replaced may be counted too.
    packed = record.packed if record is not None and kept is binding.plain else None
    if (_size(kept) if packed is None else len(packed)) + added <= most:
        return
    size = _size({name: data for name, data in {**kept, **new}.items() if name not in drop})
    if size > most:
        raise SessionValueError(f"session: takes {size:,} bytes; it may take {most:,} (session.maximum_session_size)")


def _size(fields: Mapping[str, bytes]) -> int:
    return len("".join(fields)) + sum(map(len, fields.values()))


def _is_other(session: Session, values: dict[str, Any]) -> bool:
    """Was a key assigned or removed since it held `values`?"""
    return [*dict.keys(session)] != [*values] or any(map(is_not, dict.values(session), values.values()))


def changed(record: Record, change: Change) -> Record:
    """The record as this request knows it after `change`; other requests' changes are not in it, and need not be."""
    fields = {**record.fields, **change.put}
    for name in change.drop:
        if name not in change.put:
            fields.pop(name, None)
    return Record(
        fields,
        record.created,
        record.touched if change.touched is None else max(change.touched, record.touched),
        record.expires if change.expires is None else max(change.expires, record.expires),
        record.owner if change.owner is None else change.owner or None,
        record.generation + change.raise_generation,
    )


def rebase(
    session: Session, binding: Binding, token: Token | None, record: Record, plain: Mapping[str, bytes], begun: Begun
) -> None:
    """What was written is what was loaded, from now on. What came since the commit had `begun` is left to the next.

    `plain`: with what other commits of this request have written meanwhile.
    """
    values = {**binding.values, **begun.values}
    if not values.keys() <= plain.keys():
        values = {name: value for name, value in values.items() if name in plain}
    binding.token, binding.record, binding.plain, binding.values = token, record, plain, values
    binding.plural = len(record.fields) - len(plain) > 1
    binding.standing = token is not None and stands(record.fields.get(token.proof, b""))
    binding.joining = ""
    if binding.rotation == begun.rotation:
        binding.rotation = None
    if binding.owner == begun.owner:
        binding.owner = None
    binding.changed = bool(binding.rotation) or binding.owner is not None or _is_other(session, values)
    if binding.undecodable:
        binding.undecodable -= values.keys()
