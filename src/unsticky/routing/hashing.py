"""What a call's hash key is made of, and the hash itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from xxhash import xxh64_intdigest

from .options import HashKeyOptions

Part = Literal["path", "query", "header", "cookie", "inbound-header", "session"]

_NAMED = frozenset({"query", "header", "cookie", "inbound-header"})
_WHOLE = frozenset({"path", "session"})
_LOWER = frozenset({"header", "inbound-header"})  # their names know no case
FORM = '"path", "query:NAME", "header:NAME", "cookie:NAME", "inbound-header:NAME" or "session"'
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class HashKey:
    """One thing to hash: `name` is "" for path and session, and lower case for headers.

    `terminal`: what follows is not looked at, if there is a hash by then.
    """

    part: Part
    name: str = ""
    terminal: bool = False


class HashSource(Protocol):
    """Where a call's values come from. Each gives None when there is none. Header names come in lower case."""

    def path(self) -> str | None: ...  # of the outbound request, without its query
    def query(self, name: str) -> str | None: ...
    def header(self, name: str) -> str | None: ...  # several values joined with "," (gRFC A76)
    def cookie(self, name: str) -> str | None: ...  # of the inbound request, as the following
    def inbound_header(self, name: str) -> str | None: ...
    def session(self) -> str | None: ...  # the session's store key: a hash


def parse_hash_key(text: str, *, terminal: bool = False) -> HashKey:
    """`text` as in the settings. Raises ValueError, with what is allowed."""
    part, colon, name = text.partition(":")
    if part in _WHOLE and not colon:
        return HashKey(cast(Part, part), terminal=terminal)
    if part in _NAMED and name:
        return HashKey(cast(Part, part), name.lower() if part in _LOWER else name, terminal)
    raise ValueError(f"expected {FORM}, got {text!r}")


def parse_hash_keys(options: Iterable[HashKeyOptions]) -> tuple[HashKey, ...]:
    """All of `HashOptions.on`."""
    return tuple(parse_hash_key(one.key, terminal=one.terminal) for one in options)


def call_key(keys: Iterable[HashKey], source: HashSource) -> int | None:
    """The call's 64-bit key: the hashes of what is present, combined up to a terminal one; None if nothing is.

    As Envoy's hash policies and gRFC A42: a terminal key ends the list if there is a hash by then.
    """
    key: int | None = None
    for part in keys:
        value = _value(part, source)
        if value is not None:
            key = combine(key, hash_text(value))
        if part.terminal and key is not None:
            break
    return key


def hash_text(text: str) -> int:
    """xxh64 of `text`, seed 0: also the key of a call that brings its own `hash_key`."""
    return xxh64_intdigest(text.encode(errors="surrogatepass"))


def combine(key: int | None, more: int) -> int:
    """gRFC A42 and Envoy: rotate left by one, then xor."""
    return more if key is None else ((key << 1 | key >> 63) & _MASK) ^ more


def _value(key: HashKey, source: HashSource) -> str | None:
    match key.part:
        case "path":
            return source.path()
        case "query":
            return source.query(key.name)
        case "header":
            return source.header(key.name)
        case "cookie":
            return source.cookie(key.name)
        case "inbound-header":
            return source.inbound_header(key.name)
        case "session":
            return source.session()
