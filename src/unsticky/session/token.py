"""The session token, `handle.secret`: the client holds it, the store never sees it.

The store's key is a hash of the handle and never changes; the secret's hash is a proof inside the record, so that a
rotation is a change of one record and nothing is ever renamed.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from itsdangerous import BadSignature, Signer

PROOF = "unsticky.proof:"  # record fields with this prefix hold the hashes of accepted secrets
HANDLE_BYTES, SECRET_BYTES = 16, 32  # 128 and 256 random bits

_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", re.ASCII)
_SIGNED = re.compile(r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\.[A-Za-z0-9_-]{43}", re.ASCII)


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


@dataclass(frozen=True, repr=False)
class Token:
    """A bearer secret: its repr shows nothing."""

    handle: str
    secret: str

    @classmethod
    def new(cls, random_bytes: Callable[[int], bytes]) -> Token:
        return cls(_base64(random_bytes(HANDLE_BYTES)), _base64(random_bytes(SECRET_BYTES)))

    def rotated(self, random_bytes: Callable[[int], bytes]) -> Token:
        """The same session with another secret."""
        return Token(self.handle, _base64(random_bytes(SECRET_BYTES)))

    @cached_property
    def key(self) -> str:
        """The store's key: says nothing about the token to one who reads the store."""
        return "v1:" + _base64(sha256(self.handle.encode()).digest())

    @cached_property
    def proof(self) -> str:
        """The name of the record's field that accepts this token."""
        return PROOF + _base64(sha256(self.secret.encode()).digest())

    def __repr__(self) -> str:
        return "<Token>"


class TokenSigner:
    """Tokens to and from texts; signed if there are keys (newest first: it signs, all verify)."""

    def __init__(self, secret_keys: Sequence[str | bytes] = ()) -> None:
        # itsdangerous wants the newest key last. The keys are derived once here instead of at every signature.
        keys = [_derived(key) for key in reversed(secret_keys)]
        self._signer = Signer(keys, key_derivation="none", digest_method=sha256) if keys else None

    def dumps(self, token: Token) -> str:
        text = f"{token.handle}.{token.secret}"
        return self._signer.sign(text).decode("ascii") if self._signer else text

    def loads(self, text: str) -> Token | None:
        """The token, or None for anything that this signer can't have made."""
        if self._signer is None:
            return _split(text) if _TOKEN.fullmatch(text) else None
        if not _SIGNED.fullmatch(text):
            return None
        try:
            return _split(self._signer.unsign(text).decode("ascii"))
        except BadSignature:
            return None

    def choose(self, texts: Sequence[str]) -> Token | None:
        """The one token among the values of all cookies of that name.

        Two different good ones are ambiguous: a neighbour domain may have planted one, so neither is taken.
        """
        tokens = {self.loads(text) for text in texts} - {None}
        return tokens.pop() if len(tokens) == 1 else None


def _derived(key: str | bytes) -> bytes:
    return hmac.digest(key.encode() if isinstance(key, str) else key, b"unsticky.session.token", "sha256")


def _split(text: str) -> Token:
    handle, _, secret = text.partition(".")
    return Token(handle, secret)
