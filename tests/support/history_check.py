"""Is a history of session requests one that a correct session layer can have? A pure function over what was recorded.

A request is an `Op`: what it did to one session, when it was sent and answered, what it saw. `found` means that it saw
the session at all: an app that finds none writes nothing. A request without an answer may have done its part or not,
now or later, so its end is infinity. What is checked, for each answer alone and so without guessing an order:

* no lost write: a request sees the value of each key that was acknowledged before it began, or of a write that did not
  end before that one began. A value that somebody saw counts as acknowledged from then on;
* no lost session: with a token that nothing has ended, the session is there;
* no resurrection: after an acknowledged logout nobody sees it;
* no ended token: after an acknowledged strict rotation only its token, or one that came of it, is accepted;
* no late write: a request that presented an older token writes nothing after that acknowledgement;
* nothing foreign: each value was written to this session, under this key (values are unique).

A write that meets a logout or a strict rotation may be dropped, by promise: it counts as one that may have happened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from math import inf
from typing import Literal

Outcome = Literal["ok", "unknown", "refused", "error"]
IDENTITY = "sid"  # the key that holds the session's own name


@dataclass(frozen=True, slots=True)
class Op:
    """One request. Times are seconds of one monotonic clock; `end` counts only when the outcome is "ok"."""

    number: int
    session: str
    start: float
    end: float
    outcome: Outcome  # refused: never reached a server. error: answered, but neither 200 nor 503
    writes: Mapping[str, str | None] = field(default_factory=dict)  # None: the key was removed
    does: Literal["", "begin", "rotate", "strict", "owner", "clear"] = ""
    presented: str | None = None  # the token, and the other one that came back, if one did
    received: str | None = None
    seen: Mapping[str, str] | None = None  # the session's data when the request began
    server: str = ""

    @property
    def found(self) -> bool:
        return self.seen is not None and self.seen.get(IDENTITY) == self.session

    @property
    def ended(self) -> float:
        return self.end if self.outcome == "ok" else inf

    @property
    def applied(self) -> bool:
        """Surely did what it was to do, but for writes that met the end of their session."""
        if self.outcome != "ok":
            return False
        if self.does == "begin":
            return self.received is not None
        return self.found and (self.received is not None or self.does not in ("rotate", "strict", "owner"))

    @property
    def possible(self) -> bool:
        return self.outcome in ("unknown", "error") or self.applied


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and the requests that show it."""

    kind: str
    session: str
    text: str
    ops: tuple[Op, ...]

    def __str__(self) -> str:
        began = min(op.start for op in self.ops)
        lines = [f"{self.kind}: {self.text}", *(f"    {shown(op, began)}" for op in self.ops)]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class KeyWrite:
    """One write of one key. It took effect between start and end, if `sure`; else perhaps, at any time after start."""

    value: str | None
    start: float
    end: float
    sure: bool
    op: Op | None


def check(history: Iterable[Op]) -> list[Finding]:
    """Everything that is wrong with it."""
    sessions: defaultdict[str, list[Op]] = defaultdict(list)
    for op in history:
        sessions[op.session].append(op)
    return [finding for name, ops in sessions.items() for finding in _of_session(_Session(name, ops))]


class _Session:
    """One session's requests, in order of their start, and what follows from them."""

    def __init__(self, name: str, ops: list[Op]) -> None:
        self.name = name
        self.ops = sorted(ops, key=lambda op: op.start)
        self.reads = [op for op in self.ops if op.outcome == "ok" and op.seen is not None]
        self.endings = [op for op in self.ops if op.does in ("strict", "owner", "clear") and op.possible]
        self.issued: dict[str, Op] = {}  # by which request a token came first
        for op in sorted(self.ops, key=lambda op: op.ended):
            if op.received is not None and op.outcome == "ok":
                self.issued.setdefault(op.received, op)

    def writes(self) -> dict[str, list[KeyWrite]]:
        seen_at: dict[tuple[str, str], float] = {}
        for op in self.reads:
            for key, value in (op.seen or {}).items():
                seen_at[key, value] = min(op.end, seen_at.get((key, value), inf))
        writes: defaultdict[str, list[KeyWrite]] = defaultdict(list)
        for op in self.ops:
            for key, value in op.writes.items():
                if (op.possible or op.outcome == "ok") and not self._idle(op, key, value):
                    seen = inf if value is None else seen_at.get((key, value), inf)
                    seen = seen if seen >= op.start else inf  # before it was written: found as foreign
                    kept = self._kept(op)
                    end = min(op.ended if kept else inf, seen)
                    writes[key].append(KeyWrite(value, op.start, end, kept or seen < inf, op))
        return writes

    def _idle(self, op: Op, key: str, value: str | None) -> bool:
        """Did an answered request surely write nothing? It found no session, or removed what was not there."""
        if op.outcome != "ok" or op.does == "begin":
            return False
        return not op.found or (value is None and key not in (op.seen or {}))

    def _kept(self, op: Op) -> bool:
        """Acknowledged, and no logout and no strict rotation could be the reason that it was dropped."""
        return op.applied and not any(
            ending is not op and ending.start <= op.end and not (ending.does != "clear" and ending.ended < op.start)
            for ending in self.endings
        )

    def lineage(self, token: str | None, since: float) -> list[Op]:
        """The rotations that `token` came of, as far as they ended after `since`; the first one first."""
        line: list[Op] = []
        while token is not None and (by := self.issued.get(token)) is not None and by.end > since and by not in line:
            line.insert(0, by)
            token = by.presented
        return line

    def descends(self, token: str | None, ancestor: str | None) -> bool:
        """Did `token` come of `ancestor`, by rotations, or is it the same?"""
        for _ in range(len(self.issued) + 1):
            if token == ancestor or token is None:
                break
            by = self.issued.get(token)
            token = by.presented if by is not None else None
        return token == ancestor


def _of_session(session: _Session) -> Iterator[Finding]:
    writes = session.writes()
    for op in session.ops:
        if op.outcome == "error":
            yield Finding("server error", session.name, "a request was answered with an error", (op,))
    yield from islice(chain.from_iterable(_ended_token(session, op) for op in session.reads if op.found), 1)
    for strict in session.endings:
        if strict.does != "clear" and strict.applied:
            yield from _late_writes(session, strict)
    for op in session.reads:
        if op.found:
            yield from _foreign(session, op, writes)
            yield from _stale(session, op, writes)
            yield from _resurrected(session, op)
        elif op.seen:
            yield Finding("foreign data", session.name, f"saw the session {op.seen.get(IDENTITY)!r}", (op,))
        else:
            yield from _lost_session(session, op)


def _foreign(session: _Session, op: Op, writes: Mapping[str, list[KeyWrite]]) -> Iterator[Finding]:
    for key, value in (op.seen or {}).items():
        if not any(write.value == value and write.start <= op.end for write in writes.get(key, ())):
            yield Finding("foreign data", session.name, f"{key} = {value!r} was never written to this session", (op,))


def _stale(session: _Session, op: Op, writes: Mapping[str, list[KeyWrite]]) -> Iterator[Finding]:
    """The value seen must not be older than one that was there, for sure, before the request began."""
    for key, of_key in writes.items():
        value = (op.seen or {}).get(key)
        known = [write for write in of_key if write.sure and write.end < op.start]
        latest = max((write.start for write in known), default=-inf)  # what ended before it was surely overwritten
        told = [write for write in of_key if write.value == value and write.start <= op.end]
        if value is None:
            told.append(KeyWrite(None, -inf, -inf, True, None))
        elif not told:
            continue  # foreign
        if all(write.end < latest for write in told):
            newest = max(known, key=lambda write: write.start)
            relevant = [write.op for write in (*told, newest) if write.op is not None]
            ops = sorted({one.number: one for one in (*relevant, op)}.values(), key=lambda one: one.start)
            text = f"{key} = {value!r} was seen after {newest.value!r} was acknowledged"
            yield Finding("lost write", session.name, text, tuple(ops))


def _resurrected(session: _Session, op: Op) -> Iterator[Finding]:
    for clear in session.endings:
        if clear.does == "clear" and clear.applied and clear.end < op.start:
            yield Finding("resurrection", session.name, "the session was seen after its logout", (clear, op))
            return


def _ended_token(session: _Session, op: Op) -> Iterator[Finding]:
    for strict in session.endings:
        if strict.does == "clear" or not strict.applied or strict.end >= op.start:
            continue
        if not session.descends(op.presented, strict.received):
            ops = (*session.lineage(op.presented, strict.start), strict, op)
            yield Finding("ended token", session.name, "a token was accepted after a strict rotation ended it", ops)
            return


def _late_writes(session: _Session, strict: Op) -> Iterator[Finding]:
    """A value that was not there after the strict rotation, and later is, was written after it."""
    after = [op for op in session.reads if op.found and op.start > strict.end]
    for op in session.ops:
        if op.ended <= strict.end or op.start > strict.end or op.does == "begin":
            continue  # over by then, or found without its session by `_ended_token`
        for key, value in op.writes.items():
            without = [read for read in after if value is not None and (read.seen or {}).get(key) != value]
            since = min(without, key=lambda read: read.end, default=None)
            seen = [read for read in after if since and read.start > since.end and (read.seen or {}).get(key) == value]
            if since and seen and not session.descends(op.presented, strict.received):
                text = f"{key} = {value!r} was written after a strict rotation had ended its token"
                yield Finding("late write", session.name, text, (op, strict, since, seen[0]))


def _lost_session(session: _Session, op: Op) -> Iterator[Finding]:
    """The session was not found. A rotation or a logout that may have ended this token explains it."""
    issuer = session.issued.get(op.presented or "")
    if issuer is None or issuer.end > op.start:
        return
    for other in session.ops:
        ends = other.does in ("rotate", "strict", "owner", "clear") and other.possible and other is not issuer
        if ends and other.start <= op.end and not other.ended < issuer.start:
            return
    yield Finding("lost session", session.name, "the session was not found with its newest token", (issuer, op))


def shown(op: Op, began: float) -> str:
    """One line; times in milliseconds since `began`. Tokens by their first letters: these are a test's."""
    end = f"{(op.end - began) * 1e3:.1f}" if op.outcome == "ok" else op.outcome
    parts = [f"#{op.number} {(op.start - began) * 1e3:.1f}..{end} ms", op.server, op.does]
    parts += [f"{key}:={value!r}" if value is not None else f"del {key}" for key, value in op.writes.items()]
    if op.presented:
        parts.append(f"token {op.presented[23:29]}")
    if op.received:
        parts.append(f"-> {op.received[23:29]}")
    if op.seen is not None:
        parts.append(f"saw {dict(op.seen)}")
    return " ".join(part for part in parts if part)
