"""What ties a session object to its request: the token, the record behind it, and what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import DamagedRecord, SessionNotLoaded, SessionUnavailable, StoreError
from . import codec
from .events import SessionEvent
from .inbound import Inbound, OldSession
from .operations import Load, Steps
from .policy import Terms, accepted_proof, is_over, standing_proof, stands
from .sealing import SEALED, Sealer, UnknownKey
from .store import Record
from .takeover import kept, taken_by
from .token import RESERVED, Token

Loader = Callable[[str], Record | None]  # by store key; may raise StoreError

NOTHING: Mapping[str, Any] = {}
_NONE: frozenset[str] = frozenset()


_OVER = Inbound()


class Binding:
    """What ties a session object to its request: the token it came with, the record behind it, what was asked for."""

    __slots__ = (
        "_announce",
        "_made",
        "_report",
        "being_written",
        "changed",
        "closed",
        "ended",
        "events",
        "inbound",
        "joining",
        "loaded",
        "loader",
        "now",
        "old",
        "old_ended",
        "owner",
        "plain",
        "plural",
        "random_bytes",
        "record",
        "rotation",
        "standing",
        "terms",
        "token",
        "turn",
        "unavailable",
        "undecodable",
        "untold",
        "values",
    )

    def __init__(
        self,
        inbound: Inbound,
        terms: Terms,
        loader: Loader | None,
        now: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        report: Callable[[StoreError], object],
        announce: Callable[[Sequence[SessionEvent]], object],
    ) -> None:
        """`loader`: asks the store at once. None where that takes waiting: then `loading` has to be driven first.

        `report`: is told of a record that the store gave, and that can't be read; only a log can say why.
        `announce`: is told what became of the session.
        """
        self.inbound = inbound
        self.token = inbound.token()  # as presented; another one once the session begins anew
        self.random_bytes = random_bytes
        self._report = report
        self._announce = announce
        self.terms = terms
        self.loader = loader
        self.now = now
        self.ended: tuple[tuple[str, str | None], ...] = ()  # key and owner of records that clear() or destroy() ended
        self.events: tuple[SessionEvent, ...] = ()  # to be told once the commit is done
        self._made: Token | None = None  # by one who asked for the id of a session that was not loaded yet
        self.loaded = False
        self.record: Record | None = None  # the live record that `token` was accepted by, as the store has it
        self.plain: Mapping[str, bytes] = NOTHING  # the application's fields, encoded and not sealed
        self.values: Mapping[str, Any] = NOTHING  # as decoded: scalars that still are these were not changed
        self.plural = False  # has the record fields of ours beside this token's proof? Another proof may be among them
        self.undecodable: frozenset[str] = _NONE  # written by a newer version: left as they are
        self.changed = False  # was a key assigned or removed since the last commit?
        self.standing = False  # is `token` one that no rotation has replaced, as far as we know?
        self.rotation: str | None = None  # "graceful" or "strict"
        self.owner: str | None = None  # as set in this request; "" removes it
        self.old: OldSession | None = None  # to be taken over by the commit
        self.old_ended = False
        # `token` is new: another request has just taken the same old session over, and this proof of it still stands.
        self.joining = ""
        self.unavailable: SessionUnavailable | None = None
        self.closed = False  # the response's headers are sent
        self.being_written = False  # by a task on an event loop
        self.turn: Any = None  # a lock, which those that write hold once two have come at the same time
        self.untold: Any = None  # what an early commit has for the client, once the headers go out

    def tell(self, event: SessionEvent) -> None:
        """Once the commit is done."""
        self.events += (event,)

    def announce(self) -> None:
        """It is done."""
        if self.events:
            events, self.events = self.events, ()
            self._announce(events)

    def let_go(self) -> None:
        """The request is over: nothing is asked of it any more."""
        self.inbound = _OVER

    def load(self) -> Mapping[str, Any]:
        """The values of the session, or none: unknown, expired and forged tokens are not adopted."""
        if self.loaded:
            return self.outcome()
        token, loader = self.token, self.loader
        if loader is None and self.waits:
            raise SessionNotLoaded(
                "This session has to be loaded first: `await request.session.load()`, because of `lazy` or `exclude` "
                "in the settings."
            )
        if loader is not None:
            try:
                if token is not None:
                    self.accept(_readable(loader, token.key), token)
                if self.record is None:
                    self._drive(self._taking_over(), loader)
            except StoreError as error:
                self.fail(error)
        self.loaded = True
        return self.outcome()

    def loading(self) -> Steps[None]:
        """The same, for a store that has to be waited for: StoreErrors are thrown in by the driver."""
        token = self.token
        try:
            if token is not None:
                record = yield from self.asking(token.key)
                if self.loaded:
                    return  # two tasks of one request loaded it at once, and this one is the second
                self.accept(record, token)
            if self.record is None:
                yield from self._taking_over()
        except StoreError as error:
            if not self.loaded:
                self.fail(error)
        self.loaded = True

    def outcome(self) -> Mapping[str, Any]:
        """What loading found. Raises SessionUnavailable."""
        if self.unavailable is not None and not self.terms.read_only_outage:
            raise self.unavailable
        return self.values

    def fail(self, error: StoreError) -> None:
        """The store is away: nothing is known of the session, and nothing of it is written."""
        self.unavailable = SessionUnavailable()
        self.unavailable.__cause__ = error
        self.record, self.values = None, NOTHING

    def accept(self, record: Record | None, token: Token) -> bool:
        """Take `record` as this session's, if `token` is one of its tokens and it is alive. Raises UnknownKey."""
        now = self.now()
        if record is None or (proof := accepted_proof(record, token, now)) is None:
            pass
        elif now >= self.terms.lifetime.end(record.created, record.touched):
            self.tell(SessionEvent("expired", token.key, record.owner))
        elif self._adopt(record, token):
            self.standing = stands(proof)
            return True
        self.token = None
        return False

    def renew(self, record: Record | None) -> bool:
        """Take a newer copy of this session's record. Who was let in stays in until a strict rotation, or the end."""
        mine, token = self.record, self.current_token()
        if record is None or mine is None or record.generation != mine.generation:
            return False
        if is_over(record, self.terms.lifetime, self.now()):
            return False
        if not self._adopt(record, token):
            return False
        self.standing = stands(record.fields.get(token.proof, b""))
        return True

    def _adopt(self, record: Record, token: Token) -> bool:
        """Take it, with what its fields say. False: nobody could read them, now or later. Raises UnknownKey."""
        plain = dict(record.fields)
        plain.pop(token.proof, None)
        plural = RESERVED in "".join(plain) and _take_ours_out(plain)  # asked the quick way, at every request
        try:
            if self.terms.sealer is not None:
                plain = _unsealed(plain, self.terms.sealer, token)
            values, bad = codec.decode_all(plain)
            if bad and self.terms.sealer is None:
                _check_unsealed(plain, bad)
        except StoreError as error:
            self._report(error)
            if isinstance(error, DamagedRecord):
                return False
            raise
        self.record, self.plain, self.plural, self.values, self.undecodable = record, plain, plural, values, bad
        return True

    def holds_plainly(self) -> bool:
        """Are the values inside as they were loaded? Quick; False is no answer."""
        inner = {name: value for name, value in self.values.items() if type(value) not in codec.SCALARS}
        return not inner or codec.are_plainly([*inner.values()], [self.plain[name] for name in inner])

    def decoded(self) -> dict[str, Any]:
        """The application's values once more, as they were loaded or last written."""
        return {name: codec.decode(data) for name, data in self.plain.items() if name not in self.undecodable}

    def _taking_over(self) -> Steps[None]:
        """A session of another library, if there is one: its values, to be written by this request's commit."""
        old = self.inbound.old_session()
        if old is None or self.now() >= old.until:
            return
        marker = yield from self.asking(old.marker)
        if marker is None:
            self._takes(old)
        elif self.now() - marker.created < self.terms.lifetime.rotation_grace:
            token = Token.new(self.random_bytes, old.handle)
            if taken_by(token) not in marker.fields:
                self._takes(old)  # it was another client that presented the same
            else:
                self.join(token, (yield from self.asking(token.key)), marker.fields)

    def _takes(self, old: OldSession) -> None:
        self.old = old
        self.values, self.plain = kept(old.values)

    def join(self, token: Token, record: Record | None, proofs: Iterable[str]) -> bool:
        """Go on with the session that another request, at the same time, has made of the old one: with a new `token`.

        Only while one of `proofs`, which that request was given, stands: what was presented before a login or another
        rotation is no way into what came after it.
        """
        self.token, self.record, self.joining = None, None, ""
        if record is None or is_over(record, self.terms.lifetime, self.now()):
            return False
        standing = standing_proof(record, proofs)
        if standing is None:
            return False
        if not self._adopt(record, token):
            return False
        self.token, self.joining, self.standing = token, standing, True
        return True

    def _drive(self, steps: Steps[None], loader: Loader) -> None:
        """For steps that only load."""
        try:
            key = next(steps).key
            while True:
                key = steps.send(_readable(loader, key)).key
        except StopIteration:
            pass

    def asking(self, key: str) -> Steps[Record | None]:
        """A damaged record is no session any more: nobody could read it, now or later."""
        try:
            record: Record | None = yield Load(key)
        except DamagedRecord:
            return None
        return record

    @property
    def waits(self) -> bool:
        """Has `loading` to be driven before anything can be said of the session?"""
        if self.loaded or self.loader is not None:
            return False
        return self.token is not None or self.inbound.old_session() is not None

    def holds(self, token: Token | None) -> bool:
        """Is this still the session of `token`? Another task of the request may have ended it."""
        mine = self.token
        return self.record is not None and mine is not None and token is not None and mine.key == token.key

    def current_token(self) -> Token:
        """The token that this session has, or will have when it is written."""
        token = self.token
        if token is None:
            taken = self.old if not self.old_ended else None
            token = self._made or Token.new(self.random_bytes, None if taken is None else taken.handle)
            if self.loaded:
                self.token, self._made = token, None
            else:
                self._made = token
        return token

    def rotated_token(self) -> Token:
        return self.current_token().rotated(self.random_bytes)

    def end(self) -> None:
        """The record is to be deleted; what is written from now on begins another session."""
        if self.record is not None and self.token is not None:
            self.ended += ((self.token.key, self.record.owner),)
        self.old_ended = self.old is not None
        self.begin_anew()

    def begin_anew(self) -> None:
        self.token = self.record = self.rotation = self.owner = None
        self.joining = ""
        self.plain, self.values, self.undecodable = NOTHING, NOTHING, frozenset()


def _readable(loader: Loader, key: str) -> Record | None:
    """As `asking`, for a loader."""
    try:
        return loader(key)
    except DamagedRecord:
        return None


def _unsealed(fields: Mapping[str, bytes], sealer: Sealer, token: Token) -> dict[str, bytes]:
    """Raises UnknownKey, and DamagedRecord for what can't be unsealed."""
    return {name: sealer.open(token.key, name, data) for name, data in fields.items()}


def _check_unsealed(fields: Mapping[str, bytes], bad: frozenset[str]) -> None:
    """Raises UnknownKey, if it is no wonder that they can't be decoded."""
    if any(fields[name].startswith(SEALED) for name in bad):
        raise UnknownKey("it is encrypted, and no `encryption_keys` are set here")


def _take_ours_out(fields: dict[str, bytes]) -> bool:
    """Leave the application's fields. Were there any of ours?"""
    ours = [name for name in fields if name.startswith(RESERVED)]
    for name in ours:
        del fields[name]
    return bool(ours)
