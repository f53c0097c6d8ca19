"""A record as bytes, for stores whose server keeps it whole and can't look into it.

A msgpack list of version, key, fields, times, owner and generation. The key is in it so that a record that strayed is
never accepted. The same record always gives the same bytes, so that a store can ask whether one is still what it was.
"""

from __future__ import annotations

import msgspec

from ..errors import DamagedRecord, StoreError
from ..session.store import Record

_VERSION = 1


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    version: int
    key: str
    fields: dict[str, bytes]
    created: float
    touched: float
    expires: float
    owner: str | None
    generation: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


def to_bytes(key: str, record: Record) -> bytes:
    """Raises ValueError for a text that UTF-8 can't hold."""
    times = (float(record.created), float(record.touched), float(record.expires))
    fields = record.fields if type(record.fields) is dict else dict(record.fields)
    return _encode((_VERSION, key, fields, *times, record.owner or None, record.generation))


def from_bytes(data: bytes, key: str, store: str) -> Record:
    """The record of `key`. `store` begins the text of an error. Raises StoreError, DamagedRecord among them."""
    try:
        packed = _decode(data)
    except msgspec.DecodeError:
        raise DamagedRecord(f"{store}: a record is damaged") from None
    if packed.version != _VERSION:
        raise DamagedRecord(f"{store}: a record was written by another version of unsticky")
    if packed.key != key:
        raise StoreError(f"{store}: the server answered with another session")
    return Record(packed.fields, packed.created, packed.touched, packed.expires, packed.owner, packed.generation, data)
