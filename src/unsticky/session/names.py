"""What may name a user, or a key of a session."""

from __future__ import annotations

from uuid import UUID

from ..errors import SessionValueError
from .token import RESERVED


def owner_text(value: object) -> str:
    """An owner as the store has it; "" for None. Raises SessionValueError: an object's repr would name nobody."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        kind = type(value).__name__
        raise SessionValueError(f"session.owner: a user's id is a text, an int or a UUID, not {kind}")
    return _valid(str(value), "session.owner")


def field_name(key: object) -> str:
    """`key` as the name of a record's field. Raises SessionValueError for what can be none."""
    if type(key) is not str:
        if not isinstance(key, str):
            kind = type(key).__name__
            raise SessionValueError(f"session[{key!r}]: keys are texts, not {kind}; use session[{str(key)!r}]")
        key = str.__str__(key)
    if key.startswith(RESERVED):
        raise SessionValueError(f"session[{key!r}]: keys that begin with {RESERVED!r} are reserved")
    return key if key.isascii() else _valid(key, f"session[{key!r}]")


def _valid(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SessionValueError(f"{place}: the text has surrogates, which are not valid Unicode") from None
    return text
