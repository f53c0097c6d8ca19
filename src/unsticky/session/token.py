"""The session token, `handle.secret`: the client holds it, the store never sees it.

The store's key is a hash of the handle and never changes; the secret's hash is a proof inside the record, so that a
rotation is a change of one record and nothing is ever renamed.
"""

from __future__ import annotations

import hmac
import re
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256

RESERVED = "unsticky."  # record fields with this prefix are ours, not the application's
PROOF = RESERVED + "proof:"  # those with this one hold the hashes of accepted secrets
HANDLE_BYTES, SECRET_BYTES = 16, 32  # 128 and 256 random bits

_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", re.ASCII)
_LENGTH, _SIGNED_LENGTH = 22 + 1 + 43, 22 + 1 + 43 + 1 + 43
_REMEMBERED = 2048  # tokens that a signer has seen lately; a kilobyte each
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def base64url(data: bytes) -> str:
    """Unpadded, as RFC 4648 5 has it."""
    return b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


class Token:
    """A bearer secret: its repr shows nothing."""

    __slots__ = ("_signed", "handle", "key", "proof", "secret")

    def __init__(self, handle: str, secret: str) -> None:
        self.handle = handle
        self.secret = secret
        # The store's key, which says nothing about the token to one who reads the store.
        self.key = "v1:" + base64url(sha256(handle.encode()).digest())
        self.proof = PROOF + base64url(sha256(secret.encode()).digest())  # the record's field that accepts this token
        self._signed: tuple[TokenSigner, str] | None = None  # by whom, and the text

    @classmethod
    def new(cls, random_bytes: Callable[[int], bytes], handle: str | None = None) -> Token:
        """A token nobody has seen; of the session with that handle, if one is given."""
        return cls(handle or base64url(random_bytes(HANDLE_BYTES)), base64url(random_bytes(SECRET_BYTES)))

    def rotated(self, random_bytes: Callable[[int], bytes]) -> Token:
        """The same session with another secret."""
        return Token.new(random_bytes, self.handle)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Token):
            return NotImplemented
        mine, theirs = f"{self.handle}.{self.secret}", f"{other.handle}.{other.secret}"
        return hmac.compare_digest(mine.encode(), theirs.encode())

    def __hash__(self) -> int:
        return hash((self.handle, self.secret))

    def __repr__(self) -> str:
        return "<Token>"


class TokenSigner:
    """Tokens to and from texts; signed if there are keys (newest first: it signs, all verify).

    The signature is HMAC-SHA256 under a key derived for this purpose. A token is good without one: what signing
    spares is the store, which is not asked for forged ones.

    A client sends the same text with each request, so the good ones among the last are remembered, with their hashes.
    Looking a text up compares salted hashes first: its time tells nothing of those that are remembered.
    """

    def __init__(self, secret_keys: Sequence[str | bytes] = ()) -> None:
        self._keys = [_derived(key) for key in secret_keys]
        self._verified = lru_cache(_REMEMBERED)(self._verify)

    def dumps(self, token: Token) -> str:
        if token._signed is None or token._signed[0] is not self:
            text = f"{token.handle}.{token.secret}"
            token._signed = self, f"{text}.{_signature(self._keys[0], text)}" if self._keys else text
        return token._signed[1]

    def loads(self, text: str) -> Token | None:
        """The token, or None for anything that this signer can't have made."""
        try:
            return self._verified(text)
        except _Forged:  # an exception, because those are not remembered: nobody can push the good ones out
            return None

    def _verify(self, text: str) -> Token:
        if not self._good(text):
            raise _Forged
        return Token(text[:22], text[23:_LENGTH])

    def _good(self, text: str) -> bool:
        if not self._keys:
            return _TOKEN.fullmatch(text) is not None
        if len(text) != _SIGNED_LENGTH or text[_LENGTH] != "." or not text.isascii():
            return False
        signed, signature = text[:_LENGTH], text[_LENGTH + 1 :]  # with a good signature, its form is good as well
        return any(hmac.compare_digest(_signature(key, signed), signature) for key in self._keys)

    def choose(self, texts: Sequence[str]) -> Token | None:
        """The one token among the values of all cookies of that name.

        Two different good ones are ambiguous: a neighbour domain may have planted one, so neither is taken.
        """
        if len(texts) == 1:
            return self.loads(texts[0])
        tokens = {self.loads(text) for text in texts} - {None}
        return tokens.pop() if len(tokens) == 1 else None


class _Forged(Exception):
    """Nothing that the signer can have made."""


def _signature(key: bytes, text: str) -> str:
    return base64url(hmac.digest(key, text.encode(), "sha256"))


def _derived(key: str | bytes) -> bytes:
    return hmac.digest(key.encode() if isinstance(key, str) else key, b"unsticky.session.token", "sha256")
