"""Reads sessions that other libraries wrote: authenticated ones only, and never a pickle. Pure: the time is given."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Any

import msgspec
from itsdangerous import BadSignature, Signer, TimestampSigner
from itsdangerous.encoding import base64_decode, base64_encode

from ..errors import SessionValueError
from . import codec
from .token import RESERVED, Token


def kept(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Those of another library's values that a session of ours can hold, plain and encoded. No names that are ours."""
    plain: dict[str, Any] = {}
    encoded: dict[str, bytes] = {}
    for name, value in values.items():
        try:
            name.encode()
            data = codec.encode(value, "")
        except (SessionValueError, UnicodeEncodeError):
            continue
        if not name.startswith(RESERVED):
            plain[name], encoded[name] = value, data
    return plain, encoded


def taken_by(token: Token) -> str:
    """The field of a marker that says which session took the old one's place."""
    return f"by:{token.key}"


def canonical(text: str) -> str:
    """A text that itsdangerous has signed, with its signature as it was written: base64 can spell one in many ways.

    Without that, a session that was taken over could be presented again, with another last letter.
    """
    signed, _, signature = text.rpartition(".")
    return f"{signed}.{base64_encode(base64_decode(signature)).decode()}"


def starlette_session(
    text: str, secret_keys: Sequence[str], max_age: float | None, now: float
) -> dict[str, Any] | None:
    """What Starlette's SessionMiddleware keeps in its cookie; None for what it can't have made, or no longer takes.

    `max_age` is in seconds.
    """
    for key in secret_keys:
        try:
            data, signed_at = TimestampSigner(str(key)).unsign(text, return_timestamp=True)
        except BadSignature:
            continue
        if max_age is not None and now - signed_at.timestamp() > max_age:
            return None
        try:
            return _values(json.loads(b64decode(data)))
        except ValueError:
            return None
    return None


def flask_session_id(text: str, secret_keys: Sequence[str | bytes], *, signed: bool) -> str | None:
    """The id in Flask-Session's cookie. `signed`: its setting SESSION_USE_SIGNER."""
    if not signed:
        return text or None
    for key in secret_keys:
        try:
            return Signer(key, salt="flask-session", key_derivation="hmac", digest_method=sha1).unsign(text).decode()
        except (BadSignature, UnicodeDecodeError):
            continue
    return None


def flask_session_values(data: bytes) -> dict[str, Any] | None:
    """The values of a Flask-Session record: msgpack, its default, or JSON. None for anything else, pickles too."""
    for decode in (msgspec.msgpack.decode, json.loads):
        try:
            return _values(decode(data))
        except ValueError:  # msgspec's errors and UnicodeDecodeError are some
            continue
    return None


def _values(decoded: Any) -> dict[str, Any] | None:
    """A session is a table with texts as keys; an empty one is none."""
    if not isinstance(decoded, dict) or not all(isinstance(key, str) for key in decoded):
        return None
    return decoded or None
