"""Session values as bytes: msgpack, with the types that msgpack lacks kept exact by extension codes.

msgspec alone would turn tuples into lists and UUIDs into texts, so values are tagged before they are encoded. All
that Flask's tagged JSON takes is taken; what can't be told apart afterwards (an application's own class) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec import MsgspecError
from msgspec.msgpack import Decoder, Encoder, Ext

from ..errors import SessionValueError

try:  # Flask and Jinja bring it; without them nobody can have stored one here
    from markupsafe import Markup
except ImportError:  # pragma: no cover
    Markup = str  # type: ignore[assignment, misc]

MAXIMUM_DEPTH = 100
SCALARS = frozenset({str, int, float, bool, type(None), bytes})

_encode = Encoder().encode
_ATOMS = SCALARS - {int}

# The code of each type is part of the stored format: never change one, never use one again.
_TUPLE, _SET, _FROZENSET, _MARKUP, _UUID, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _INTEGER, _PAIRS = range(1, 13)


def encode(value: object, path: str) -> bytes:
    """`value` as bytes. Raises SessionValueError, which names the place below `path`, for what can't be kept."""
    try:
        return _encode(_tag(value, 0))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SessionValueError(_explain(value, path, error)) from None


def encode_field(name: str, value: object) -> bytes:
    """`encode`, of what a session holds under `name`."""
    try:
        return _encode(_tag(value, 0))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SessionValueError(_explain(value, f"session[{name!r}]", error)) from None


class _Refused(TypeError):
    """A refusal of ours: its message shows no value."""


def is_plainly(value: object, data: bytes) -> bool:
    """Is `data` the encoding of `value`, and `value` free of types that need a tag? Quick: no walk in Python.

    False is no answer: `encode` and compare then. The bytes tell 1 from True and 0.0 from -0.0, but not a list from a
    tuple or a text from a UUID; comparing with what `data` says does.
    """
    try:
        return _encode(value) == data and bool(_decode(data) == value)
    except (TypeError, ValueError, OverflowError, RecursionError, MsgspecError):
        return False


def decode(data: bytes) -> Any:
    """The value that `encode` was given. Raises ValueError for bytes that it can't have made."""
    try:
        return _decode(data)
    except (MsgspecError, RecursionError, ArithmeticError, TypeError, KeyError) as error:
        raise ValueError("not a session value") from error


_NONE: frozenset[str] = frozenset()


def decode_all(fields: Mapping[str, bytes]) -> tuple[dict[str, Any], frozenset[str]]:
    """The values, and the names of those that can't be decoded. Quick, for it runs at every request."""
    try:
        return dict(zip(fields, map(_decode, fields.values()))), _NONE  # noqa: B905 - strict costs, and is given
    except (MsgspecError, RecursionError, ArithmeticError, TypeError, KeyError, ValueError):
        return _decode_one_by_one(fields)


def _decode_one_by_one(fields: Mapping[str, bytes]) -> tuple[dict[str, Any], frozenset[str]]:
    values: dict[str, Any] = {}
    bad: set[str] = set()
    for name, data in fields.items():
        try:
            values[name] = decode(data)
        except ValueError:
            bad.add(name)
    return values, frozenset(bad)


def are_plainly(values: list[object], datas: Sequence[bytes]) -> bool:
    """`is_plainly` for several values at once."""
    size = len(values)
    if size > 15:  # msgpack's short list: one byte for its length
        return all(map(is_plainly, values, datas))
    try:
        data = b"%c%b" % (0x90 | size, b"".join(datas))
        return _encode(values) == data and bool(_decode(data) == values)
    except (TypeError, ValueError, OverflowError, RecursionError, MsgspecError):
        return False


def _tag(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in _ATOMS or (kind is int and -(2**63) <= value < 2**64):
        return value
    if depth > MAXIMUM_DEPTH:
        raise _Refused(f"nested more than {MAXIMUM_DEPTH} levels deep, or contains itself")
    if kind is dict:
        return _tag_dict(value, depth + 1)
    if kind is list:
        return [_tag(item, depth + 1) for item in value]
    if kind is int:
        return Ext(_INTEGER, str(value).encode())
    return _tag_other(value, depth + 1)


def _tag_dict(value: dict[Any, Any], depth: int) -> Any:
    if all(type(key) is str for key in value):
        return {key: _tag(item, depth) for key, item in value.items()}
    return _hashable(_PAIRS, _encode([[_tag(key, depth), _tag(item, depth)] for key, item in value.items()]))


def _hashable(code: int, data: bytes) -> Ext:
    """Refuse what could not be read again: a dataclass, for one, comes back as a dict, which is no key."""
    try:
        _READERS[code](memoryview(data))
    except TypeError:
        raise _Refused("a key or a member of a set would come back as another type, that can't be one") from None
    return Ext(code, data)


def _tag_other(value: Any, depth: int) -> Any:
    """The exact types of the table first, then subclasses as the type they are based on, as Flask's JSON has it."""
    writer = _WRITERS.get(type(value))
    if writer is None:
        if isinstance(value, type):
            raise _Refused("a class can't be stored in a session")
        if callable(getattr(value, "__html__", None)):
            return Ext(_MARKUP, str(value.__html__()).encode())
        if is_dataclass(value) and not isinstance(value, type):
            return _tag(asdict(value), depth)
        writer = next((writer for kind, writer in _WRITERS.items() if isinstance(value, kind)), None)
    if writer is None:
        raise _Refused(f"{type(value).__qualname__} can't be stored in a session")
    return writer(value, depth)


def _items(value: Any, depth: int) -> bytes:
    return _encode([_tag(item, depth) for item in value])


def _time(value: time) -> Ext:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise _Refused("a time of a zone whose offset depends on the date can't be stored in a session")
    return Ext(_TIME, value.isoformat().encode())


def _set_items(value: Any, depth: int) -> bytes:
    # Sorted by their bytes: equal sets must have equal bytes, or every reader would write.
    return _encode(sorted((_tag(item, depth) for item in value), key=_encode))


_WRITERS: dict[type, Callable[[Any, int], Any]] = {
    tuple: lambda value, depth: Ext(_TUPLE, _items(value, depth)),
    set: lambda value, depth: _hashable(_SET, _set_items(value, depth)),
    frozenset: lambda value, depth: _hashable(_FROZENSET, _set_items(value, depth)),
    UUID: lambda value, depth: Ext(_UUID, value.bytes),
    datetime: lambda value, depth: Ext(_DATETIME, value.isoformat().encode()),
    date: lambda value, depth: Ext(_DATE, value.isoformat().encode()),
    time: lambda value, depth: _time(value),
    timedelta: lambda value, depth: Ext(_TIMEDELTA, _encode([value.days, value.seconds, value.microseconds])),
    Decimal: lambda value, depth: Ext(_DECIMAL, str(value).encode()),
    # Subclasses only, from here on: their exact types were handled before.
    str: lambda value, depth: str.__str__(value),
    int: lambda value, depth: _tag(int.__index__(value), depth),
    float: lambda value, depth: float.__float__(value),
    bytes: lambda value, depth: bytes(value),
    bytearray: lambda value, depth: bytes(value),
    memoryview: lambda value, depth: bytes(value),
    dict: lambda value, depth: _tag_dict(dict(value), depth),
    list: lambda value, depth: _tag(list(value), depth),
}


def _text(data: memoryview) -> str:
    return str(data, "utf-8")


_READERS: dict[int, Callable[[memoryview], Any]] = {
    _TUPLE: lambda data: tuple(_decode(data)),
    _SET: lambda data: set(_decode(data)),
    _FROZENSET: lambda data: frozenset(_decode(data)),
    _MARKUP: lambda data: Markup(_text(data)),
    _UUID: lambda data: UUID(bytes=bytes(data)),
    _DATETIME: lambda data: datetime.fromisoformat(_text(data)),
    _DATE: lambda data: date.fromisoformat(_text(data)),
    _TIME: lambda data: time.fromisoformat(_text(data)),
    _TIMEDELTA: lambda data: timedelta(*_decode(data)),
    _DECIMAL: lambda data: Decimal(_text(data)),
    _INTEGER: lambda data: int(_text(data)),
    _PAIRS: lambda data: dict(_decode(data)),
}


def _untag(code: int, data: memoryview) -> Any:
    reader = _READERS.get(code)
    if reader is None:
        raise ValueError(f"extension code {code} is of a newer version")
    return reader(data)


_decode: Callable[[bytes | memoryview], Any] = Decoder(ext_hook=_untag).decode


def _explain(value: object, path: str, error: Exception) -> str:
    """Find the innermost place that can't be encoded: only now, since a good value must not pay for its path."""
    for _ in range(MAXIMUM_DEPTH):
        for step, child in _children(value):
            if not _encodable(child):
                value, path = child, path + step
                break
        else:
            break
    return f"{path}: {_reason(error)}"


def _reason(error: Exception) -> str:
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, RecursionError):
        return "nested too deeply, or contains itself"
    if isinstance(error, UnicodeEncodeError):
        return "the text has surrogates, which are not valid Unicode"
    return "can't be stored in a session"  # the error's own message may show the value


def _children(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))


def _encodable(value: object) -> bool:
    try:
        _encode(_tag(value, 0))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return True
