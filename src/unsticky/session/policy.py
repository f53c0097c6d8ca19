"""How long a session lives, and which tokens its record accepts. Pure: the record and the time are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from .options import STORAGE_GRACE, SessionOptions
from .sealing import Sealer
from .store import Record
from .token import PROOF, Token

DEFAULT_IDLE_TIMEOUT = 14 * 86400.0  # seconds

# A proof's value is `=SINCE@GENERATION`, or `UNTIL@GENERATION` once it is on its way out. It counts only in a record of
# its own generation: a rotation that ran beside a strict one, unseen by it, gave out a token that must not stay good.
_STANDING = b"="


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """A session's clocks, all in seconds."""

    idle: float = DEFAULT_IDLE_TIMEOUT
    absolute: float | None = None
    renewal: float | None = None
    touch_interval: float = 60.0
    rotation_grace: float = 10.0

    @classmethod
    def of(cls, options: SessionOptions, framework_idle: float | None = None) -> Lifetime:
        """The options' clocks; where they name no idle timeout, the framework's own, or 14 days."""
        idle: float = DEFAULT_IDLE_TIMEOUT if framework_idle is None else framework_idle
        if options.idle_timeout is not None:
            idle = options.idle_timeout
        touch = options.touch_interval if options.touch_interval is not None else min(60.0, max(idle, 0.0) / 10)
        return cls(
            idle=idle,
            absolute=options.absolute_timeout,
            renewal=options.renewal_timeout,
            touch_interval=touch,
            rotation_grace=options.rotation_grace,
        )

    def end(self, created: float, touched: float) -> float:
        """When the session ends. A touch may lag behind the last use by its interval, so that much is added."""
        idle_end = touched + self.idle + (self.touch_interval if self.idle > 0 else 0.0)
        return idle_end if self.absolute is None else min(idle_end, created + self.absolute)

    def expires(self, created: float, touched: float) -> float:
        """When the store may forget the record: later than its end, so that no update races with its removal."""
        return self.end(created, touched) + STORAGE_GRACE

    def touch_due(self, record: Record, now: float) -> bool:
        return now - record.touched >= self.touch_interval

    def renewal_due(self, record: Record, token: Token, now: float) -> bool:
        """Has `token` been good for so long that another one should take its place (OWASP: renewal timeout)?"""
        if self.renewal is None:
            return False
        value = record.fields.get(token.proof, b"")
        return stands(value) and now - _time(value) >= self.renewal


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for all sessions of an app."""

    lifetime: Lifetime = Lifetime()
    sealer: Sealer | None = None
    maximum_value_size: int = 256 * 1024  # bytes
    maximum_session_size: int = 1024 * 1024
    maximum_sessions: int | None = None  # of one owner
    at_limit: Literal["oldest_out", "refuse"] = "oldest_out"
    metadata: bool = False
    read_only_outage: bool = False
    may_evict: bool = False  # the store may: lists of owners can't be kept in it

    @classmethod
    def of(
        cls, options: SessionOptions, lifetime: Lifetime, *, sealer: Sealer | None = None, may_evict: bool = False
    ) -> Terms:
        return cls(
            lifetime=lifetime,
            sealer=sealer,
            maximum_value_size=options.maximum_value_size,
            maximum_session_size=options.maximum_session_size,
            maximum_sessions=options.maximum_sessions,
            at_limit=options.at_limit,
            metadata=options.metadata,
            read_only_outage=options.on_outage == "read_only",
            may_evict=may_evict,
        )


def is_over(record: Record, lifetime: Lifetime, now: float) -> bool:
    """Has the session's time passed?"""
    return now >= lifetime.end(record.created, record.touched)


def promised_end(record: Record) -> float:
    """When the session ends, unless it is used again, by the clocks of whoever wrote it.

    For lists: Flask's sessions live as long as its own configuration says, which nobody else knows.
    """
    return record.expires - STORAGE_GRACE


def accepted_proof(record: Record, token: Token, now: float) -> bytes | None:
    """The value of the proof that accepts `token`; None if none does.

    A proof is the hash of a secret, and a dict compares salted hashes of it first: how long this takes tells nothing of
    the proofs that are there.
    """
    value = record.fields.get(token.proof)
    if value is None or not value.endswith(b"@%d" % record.generation):
        return None
    return value if value.startswith(_STANDING) or now < _time(value) else None


def stands(proof: bytes) -> bool:
    """Is it a proof that no rotation has replaced?"""
    return proof.startswith(_STANDING)


def standing_proof(record: Record, names: Iterable[str]) -> str | None:
    """The first of the proofs `names` that no rotation has replaced."""
    values = {name: record.fields.get(name, b"") for name in names}
    return next((n for n, value in values.items() if stands(value) and _is_of(record.generation, value)), None)


def _is_of(generation: int, value: bytes) -> bool:
    return value.endswith(b"@%d" % generation)


def _time(value: bytes) -> float:
    try:
        return float(value.partition(b"@")[0].removeprefix(_STANDING))
    except ValueError:
        return 0.0


def is_leaving(record: Record, token: Token) -> bool:
    """Is `token` one that a rotation has replaced, and that is accepted only for requests in flight, or not even so?"""
    return not stands(record.fields.get(token.proof, b""))


def proof_changes(
    record: Record,
    token: Token,
    lifetime: Lifetime,
    now: float,
    *,
    rotated: Token | None = None,
    strict: bool = False,
    joins: bool = False,
) -> tuple[dict[str, bytes], frozenset[str]]:
    """What to put and what to drop among the proofs.

    Presenting a token ends the others that are still good (two rotations at once leave two). A rotation puts its own
    and gives the token that it replaces the grace; a strict one drops all others. `joins`: the token is good, though
    the record does not know it yet.
    """
    put: dict[str, bytes] = {}
    drop: set[str] = set()
    own, leaves = token.proof, is_leaving(record, token) and not joins
    for name, value in _proofs(record).items():
        if name == own and rotated is None:
            continue
        if strict or not _is_of(record.generation, value) or (not stands(value) and now >= _time(value)):
            drop.add(name)
        elif stands(value) and (name == own or not leaves):
            put[name] = b"%r@%d" % (now + lifetime.rotation_grace, record.generation)
    if rotated is not None:
        put |= new_proof(rotated, now, record.generation + strict)
    return put, frozenset(drop)


def is_proof(name: str) -> bool:
    """Is the field of that name a proof?"""
    return name.startswith(PROOF)


def has_other_proofs(record: Record) -> bool:
    """Is there more than the one proof that most sessions have?"""
    return sum(name.startswith(PROOF) for name in record.fields) > 1


def new_proof(token: Token, now: float, generation: int) -> dict[str, bytes]:
    """A proof that stands from now on, in a record of that generation."""
    return {token.proof: b"%b%r@%d" % (_STANDING, now, generation)}


def _proofs(record: Record) -> Mapping[str, bytes]:
    return {name: value for name, value in record.fields.items() if name.startswith(PROOF)}
