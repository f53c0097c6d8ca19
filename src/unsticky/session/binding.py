"""What ties a session object to its request: the token, the record behind it, and what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import SessionUnavailable, StoreError
from . import codec
from .policy import Lifetime, accepts
from .store import Record
from .token import PROOF, Token

Loader = Callable[[str], Record | None]  # by store key; may raise StoreError
Presented = Callable[[], Token | None]  # reads the request's cookies: only when somebody uses the session


class Binding:
    """What ties a session object to its request: the token it came with, the record behind it, what was asked for."""

    __slots__ = (
        "_presented",
        "_random",
        "_token",
        "closed",
        "ended",
        "lifetime",
        "loaded",
        "loader",
        "now",
        "owner",
        "record",
        "rotation",
        "unavailable",
        "undecodable",
        "values",
    )

    def __init__(
        self,
        *,
        presented: Presented,
        loader: Loader,
        lifetime: Lifetime,
        now: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._presented: Presented | None = presented
        self._token: Token | None = None
        self.loader = loader
        self.lifetime = lifetime
        self.now = now
        self._random = random_bytes
        self.loaded = False
        self.record: Record | None = None  # the live record that `token` was accepted by
        self.values: dict[str, Any] = {}  # as decoded at load: scalars that still are these were not changed
        self.undecodable: frozenset[str] = frozenset()  # written by a newer version: left as they are
        self.ended: list[str] = []  # keys of records that clear() or destroy() ended
        self.rotation: str | None = None  # "graceful" or "strict"
        self.owner: str | None = None  # as set in this request; "" removes it
        self.unavailable: SessionUnavailable | None = None
        self.closed = False  # the response's headers are sent

    @property
    def token(self) -> Token | None:
        """As presented; another one once the session begins anew."""
        if self._presented is not None:
            self._token, self._presented = self._presented(), None
        return self._token

    @token.setter
    def token(self, token: Token | None) -> None:
        self._token, self._presented = token, None

    def load(self) -> dict[str, Any]:
        """The values of the session, or none: unknown, expired and forged tokens are not adopted."""
        self.loaded = True
        token = self.token
        if token is None:
            return {}
        try:
            record = self.loader(token.key)
        except StoreError as error:
            self.unavailable = SessionUnavailable()
            raise self.unavailable from error
        if record is None or not accepts(record, token, self.lifetime, self.now()):
            self.token = None
            return {}
        self.record = record
        self.values, self.undecodable = _decode_fields(record.fields)
        return dict(self.values)

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
            self.ended.append(self.token.key)
        self.begin_anew()

    def begin_anew(self) -> None:
        self.token = self.record = self.rotation = self.owner = None
        self.values, self.undecodable = {}, frozenset()


def _decode_fields(fields: Mapping[str, bytes]) -> tuple[dict[str, Any], frozenset[str]]:
    values: dict[str, Any] = {}
    bad: set[str] = set()
    for name, data in fields.items():
        if not name.startswith(PROOF):
            try:
                values[name] = codec.decode(data)
            except ValueError:
                bad.add(name)
    return values, frozenset(bad)
