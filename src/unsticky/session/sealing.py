"""What a session asks of encryption at rest. `unsticky.sealing` does it; without a key there is none."""

from __future__ import annotations

from typing import Protocol

from ..errors import DamagedRecord, StoreError

SEALED = b"\xc1"  # how a sealed value begins: no msgpack does (its specification leaves this byte out)


class UnknownKey(StoreError):
    """A value was sealed with a key that is not in the key ring: other replicas can read it, so it is not damaged."""


class Sealer(Protocol):
    """Encrypts each field of a record by itself, bound to its place: moved elsewhere, it can't be opened."""

    def seal(self, key: str, name: str, data: bytes) -> bytes:
        """`data`, encrypted for the field `name` of the record `key`."""
        ...

    def open(self, key: str, name: str, data: bytes) -> bytes:
        """What was sealed. Raises UnknownKey, or DamagedRecord for all that was not sealed for this place."""
        ...


__all__ = ["SEALED", "DamagedRecord", "Sealer", "UnknownKey"]
