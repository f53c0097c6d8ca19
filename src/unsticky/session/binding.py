"""What ties a session object to its request: the token, the record behind it, and what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DamagedRecord, SessionNotLoaded, SessionUnavailable, StoreError
from . import codec
from .inbound import Inbound, OldSession
from .operations import Load, Steps
from .policy import Terms, accepted_proof, stands
from .store import Record
from .token import RESERVED, Token

Loader = Callable[[str], Record | None]  # by store key; may raise StoreError

NOTHING: Mapping[str, Any] = {}


class Binding:
    """What ties a session object to its request: the token it came with, the record behind it, what was asked for."""

    __slots__ = (
        "_inbound",
        "_random",
        "_token",
        "_token_known",
        "changed",
        "closed",
        "damaged",
        "ended",
        "joining",
        "loaded",
        "loader",
        "mutable",
        "now",
        "old",
        "old_ended",
        "owner",
        "plain",
        "record",
        "rotation",
        "standing",
        "terms",
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
    ) -> None:
        """`loader`: asks the store at once. None where that takes waiting: then `loading` has to be driven first."""
        self._inbound = inbound
        self._token: Token | None = None
        self._token_known = False
        self._random = random_bytes
        self.terms = terms
        self.loader = loader
        self.now = now
        self.loaded = False
        self.record: Record | None = None  # the live record that `token` was accepted by, as the store has it
        self.plain: Mapping[str, bytes] = NOTHING  # its fields of the application, encoded and not sealed
        self.values: Mapping[str, Any] = NOTHING  # as decoded: scalars that still are these were not changed
        self.mutable: list[str] = []  # names of values that may change inside
        self.undecodable: frozenset[str] = frozenset()  # written by a newer version: left as they are
        self.changed = False  # was a key assigned or removed since the last commit?
        self.ended: list[tuple[str, str | None]] = []  # key and owner of records that clear() or destroy() ended
        self.standing = False  # is `token` one that no rotation has replaced, as far as we know?
        self.rotation: str | None = None  # "graceful" or "strict"
        self.owner: str | None = None  # as set in this request; "" removes it
        self.old: OldSession | None = None  # to be taken over by the commit
        self.old_ended = False
        self.joining = False  # `token` is new: another request has just taken the same old session over
        self.unavailable: SessionUnavailable | None = None
        self.closed = False  # the response's headers are sent
        self.untold: Any = None  # what an early commit has for the client, once the headers go out
        self.damaged = False  # a record was there, and could not be read

    @property
    def token(self) -> Token | None:
        """As presented; another one once the session begins anew."""
        if not self._token_known:
            self._token, self._token_known = self._inbound.token(), True
        return self._token

    @token.setter
    def token(self, token: Token | None) -> None:
        self._token, self._token_known = token, True

    @property
    def inbound(self) -> Inbound:
        return self._inbound

    @property
    def random_bytes(self) -> Callable[[int], bytes]:
        return self._random

    def load(self) -> Mapping[str, Any]:
        """The values of the session, or none: unknown, expired and forged tokens are not adopted."""
        if self.loaded:
            return self.outcome()
        token, loader = self.token, self.loader
        if loader is None:
            self._refuse_unloaded(token)
        else:
            try:
                if token is not None:
                    self.accept(self._readable(loader, token.key), token)
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
                self.accept((yield from self._asking(token.key)), token)
            if self.record is None:
                yield from self._taking_over()
        except StoreError as error:
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
        """Take `record` as this session's, if `token` is one of its tokens and it is alive."""
        proof = None if record is None else accepted_proof(record, token, self.terms.lifetime, self.now())
        if record is not None and proof is not None:
            try:
                self.adopt(record)
                self.standing = stands(proof)
                return True
            except DamagedRecord:
                self.damaged = True
        self.token = None
        return False

    def adopt(self, record: Record) -> None:
        """`record` is this session's. Raises UnknownKey, DamagedRecord for values that can't be unsealed."""
        self.record = record
        self.plain = self._unsealed(record)
        self.values, self.mutable, self.undecodable = _decoded(self.plain)

    def _unsealed(self, record: Record) -> Mapping[str, bytes]:
        sealer = self.terms.sealer
        fields = record.fields
        if sealer is None:
            return {name: data for name, data in fields.items() if not name.startswith(RESERVED)}
        key = self.current_token().key
        try:
            return {n: sealer.open(key, n, data) for n, data in fields.items() if not n.startswith(RESERVED)}
        except StoreError:
            self.record = None
            raise

    def _taking_over(self) -> Steps[None]:
        """A session of another library, if there is one: its values, to be written by this request's commit."""
        old = self._inbound.old_session()
        if old is None or self.now() >= old.until:
            return
        marker = yield from self._asking(old.marker)
        if marker is None:
            self.old = old
            self.values = dict(old.values)
        elif self.now() - marker.created < self.terms.lifetime.rotation_grace:
            yield from self.join(old)

    def join(self, old: OldSession) -> Steps[None]:
        """A request at the same time has taken it over: go on with its session, under a token of our own."""
        token = Token.new(self._random)._replace(handle=old.handle)
        record = yield from self._asking(token.key)
        lifetime = self.terms.lifetime
        if record is not None and self.now() < lifetime.end(record.created, record.touched):
            self.token, self.joining = token, True
            self.adopt(record)

    def _drive(self, steps: Steps[None], loader: Loader) -> None:
        """For steps that only load."""
        try:
            key = next(steps).key
            while True:
                key = steps.send(self._readable(loader, key)).key
        except StopIteration:
            pass

    def _asking(self, key: str) -> Steps[Record | None]:
        """A damaged record is no session any more: nobody could read it, now or later."""
        try:
            record: Record | None = yield Load(key)
        except DamagedRecord:
            self.damaged = True
            return None
        return record

    def _readable(self, loader: Loader, key: str) -> Record | None:
        try:
            return loader(key)
        except DamagedRecord:
            self.damaged = True
            return None

    def _refuse_unloaded(self, token: Token | None) -> None:
        if token is None and self._inbound.old_session() is None:
            return
        raise SessionNotLoaded(
            "This session has to be loaded first: `await request.session.load()`, because of `lazy` or `exclude` "
            "in the settings."
        )

    def current_token(self) -> Token:
        """The token that this session has, or will have when it is written."""
        token = self.token
        if token is None:
            self.token = token = Token.new(self._random)
        return token

    def rotated_token(self) -> Token:
        return self.current_token().rotated(self._random)

    def end(self) -> None:
        """The record is to be deleted; what is written from now on begins another session."""
        if self.record is not None and self.token is not None:
            self.ended.append((self.token.key, self.record.owner))
        self.old_ended = self.old is not None
        self.begin_anew()

    def begin_anew(self) -> None:
        self.token = self.record = self.rotation = self.owner = None
        self.joining = False
        self.plain, self.values, self.mutable, self.undecodable = NOTHING, NOTHING, [], frozenset()


def _decoded(plain: Mapping[str, bytes]) -> tuple[dict[str, Any], list[str], frozenset[str]]:
    try:
        values = codec.decode_all(plain)
        bad: frozenset[str] = frozenset()
    except ValueError:
        values, bad = _decoded_one_by_one(plain)
    return values, [name for name, value in values.items() if type(value) not in codec.SCALARS], bad


def _decoded_one_by_one(plain: Mapping[str, bytes]) -> tuple[dict[str, Any], frozenset[str]]:
    values: dict[str, Any] = {}
    bad: set[str] = set()
    for name, data in plain.items():
        try:
            values[name] = codec.decode(data)
        except ValueError:
            bad.add(name)
    return values, frozenset(bad)
