"""Encryption at rest: AES-256-GCM for each value by itself, with a ring of keys. Extra `crypto`.

A sealed value is `0xc1 | key id (4) | nonce (12) | ciphertext and tag`. The associated data are the record's key and
the field's name, so that a value which was moved to another session or field can't be opened. The key that encrypts
is derived from the setting by HKDF-SHA256 for this purpose alone. Nonces are random: rotate keys before 2^32 values
are sealed with one (NIST SP 800-38D 8.3).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .errors import DamagedRecord
from .session.sealing import SEALED, UnknownKey

_NONCE, _ID = 12, 4  # bytes
_HEAD = 1 + _ID + _NONCE


_UNKNOWN = "A session's value was encrypted with a key that is not among `encryption_keys`."
_PLAIN = "A session's value is not encrypted, though `encryption_keys` are set: it is refused."
_MOVED = "A session's encrypted value was changed, or belongs to another place."


class KeyRing:
    """A Sealer. `keys`: newest first; it seals, all open."""

    def __init__(self, keys: Sequence[str], random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        derived = [_derived(key) for key in keys]
        self._keys = {id_: AESGCM(key) for id_, key in reversed(derived)}
        self._newest = derived[0][0]

    def seal(self, key: str, name: str, data: bytes) -> bytes:
        """`data` encrypted for the field `name` of the record `key`."""
        nonce = self._random_bytes(_NONCE)
        sealed = self._keys[self._newest].encrypt(nonce, data, _place(key, name))
        return b"".join((SEALED, self._newest, nonce, sealed))

    def open(self, key: str, name: str, data: bytes) -> bytes:
        """What was sealed. Raises UnknownKey; DamagedRecord for what was changed, moved, or never sealed."""
        if len(data) < _HEAD or data[:1] != SEALED:
            raise DamagedRecord(_PLAIN)
        cipher = self._keys.get(data[1 : 1 + _ID])
        if cipher is None:
            raise UnknownKey(_UNKNOWN)
        try:
            return cipher.decrypt(data[1 + _ID : _HEAD], data[_HEAD:], _place(key, name))
        except InvalidTag:
            raise DamagedRecord(_MOVED) from None

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._keys)}>"


def _derived(secret: str) -> tuple[bytes, bytes]:
    """An id that tells nothing, and the key."""
    data = HKDF(SHA256(), _ID + 32, salt=None, info=b"unsticky.session.sealing.v1").derive(str(secret).encode())
    return data[:_ID], data[_ID:]


def _place(key: str, name: str) -> bytes:
    """The length in front keeps `a` + `bc` and `ab` + `c` apart."""
    first = key.encode()
    return len(first).to_bytes(4, "big") + first + name.encode()
