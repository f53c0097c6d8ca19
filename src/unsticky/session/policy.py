"""How long a session lives, and which tokens its record accepts. Pure: the record and the time are given."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from .options import STORAGE_GRACE, SessionOptions
from .store import Record
from .token import PROOF, Token

DEFAULT_IDLE_TIMEOUT = 14 * 86400.0  # seconds
_FOREVER = b""  # the value of a proof that is not on its way out


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """A session's clocks, all in seconds."""

    idle: float = DEFAULT_IDLE_TIMEOUT
    absolute: float | None = None
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
            idle=idle, absolute=options.absolute_timeout, touch_interval=touch, rotation_grace=options.rotation_grace
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


def accepts(record: Record, token: Token, lifetime: Lifetime, now: float) -> bool:
    """Is the session alive, and is `token` one of its tokens?"""
    if now >= lifetime.end(record.created, record.touched):
        return False
    name = token.proof.encode()
    # No early exit: how long this takes tells nothing about the proofs.
    matches = [until for proof, until in _proofs(record).items() if hmac.compare_digest(proof.encode(), name)]
    return any(until == _FOREVER or now < float(until) for until in matches)


def is_leaving(record: Record, token: Token) -> bool:
    """Is `token` one that a rotation has replaced, and that is accepted only for requests in flight?"""
    return record.fields.get(token.proof, _FOREVER) != _FOREVER


def proof_changes(
    record: Record, token: Token, lifetime: Lifetime, now: float, *, rotated: Token | None = None, strict: bool = False
) -> tuple[dict[str, bytes], frozenset[str]]:
    """What to put and what to drop among the proofs.

    Presenting a token ends the others that are still good (two rotations at once leave two). A rotation puts its own
    and gives the token that it replaces the grace; a strict one drops all others.
    """
    put: dict[str, bytes] = {}
    drop: set[str] = set()
    for name, until in _proofs(record).items():
        if name == token.proof and rotated is None:
            continue
        if strict or (until != _FOREVER and now >= float(until)):
            drop.add(name)
        elif until == _FOREVER and (name == token.proof or not is_leaving(record, token)):
            put[name] = repr(now + lifetime.rotation_grace).encode()
    if rotated is not None:
        put[rotated.proof] = _FOREVER
    return put, frozenset(drop)


def first_proof(token: Token) -> dict[str, bytes]:
    """The proof of a new record."""
    return {token.proof: _FOREVER}


def _proofs(record: Record) -> Mapping[str, bytes]:
    return {name: until for name, until in record.fields.items() if name.startswith(PROOF)}
