"""How a record is kept in PostgreSQL: one jsonb object of base64 values, and texts that every database can hold.

Names, keys and owners are kept as printable ASCII, other bytes of their UTF-8 as `%XX`: jsonb and text can't hold a
NUL, and a database in another encoding can't hold all of Unicode. The prefix of a name stays the prefix.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote, unquote

import msgspec

from ..errors import DamagedRecord
from ..session.store import Record
from .postgres_wire import Row

_SAFE = "".join(chr(code) for code in range(32, 127) if chr(code) != "%")
_float, _int = struct.Struct(">d"), struct.Struct(">q")
pack_float, pack_int = _float.pack, _int.pack
_encode = msgspec.json.Encoder().encode  # bytes become base64
_decode = msgspec.json.Decoder(dict[str, bytes]).decode


@lru_cache(4096)
def _quoted(name: str) -> str:
    return quote(name, safe=_SAFE)


def _quote(name: str) -> str:
    return name if name.isascii() and name.isprintable() and "%" not in name else _quoted(name)


def text_of(text: str) -> bytes:
    return _quote(text).encode()


def object_of(fields: Mapping[str, bytes]) -> bytes:
    return _encode({_quote(name): value for name, value in fields.items()})


def array_of(names: Iterable[str]) -> bytes:
    """An array literal. Of printable ASCII it escapes what JSON does."""
    return b"{%b}" % _encode([_quote(name) for name in names])[1:-1]


def record_of(row: Row) -> Record:
    """Raises DamagedRecord."""
    _, fields, created, touched, expires, owner, generation = row
    try:
        if fields is None or fields[:1] != b"\1":  # the version of jsonb's binary form
            raise ValueError
        return Record(
            fields=_fields(fields),
            created=_float.unpack(created or b"")[0],
            touched=_float.unpack(touched or b"")[0],
            expires=_float.unpack(expires or b"")[0],
            owner=None if owner is None else unquote(owner.decode("ascii"), errors="strict"),
            generation=_int.unpack(generation or b"")[0],
        )
    except (ValueError, msgspec.MsgspecError, struct.error):
        raise DamagedRecord("PostgreSQL store: a record is damaged") from None


def _fields(jsonb: bytes) -> dict[str, bytes]:
    fields = _decode(memoryview(jsonb)[1:])
    if b"%" not in jsonb:  # base64 has none
        return fields
    return {unquote(name, errors="strict"): value for name, value in fields.items()}


def readable(rows: list[Row]) -> list[tuple[str, Record]]:
    """Keys and records of a scan's batch, without what can't be read."""
    found = []
    for row in rows:
        try:
            found.append((unquote((row[0] or b"").decode("ascii"), errors="strict"), record_of(row)))
        except (ValueError, DamagedRecord):
            continue
    return found
