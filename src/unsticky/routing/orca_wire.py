"""The wire form of xds.data.orca.v3.OrcaLoadReport, as far as it is needed: doubles, one integer, maps of doubles.

By the encoding that protobuf.dev describes: a key is `field << 3 | type`; types are 0 varint, 1 eight bytes, 2 length
and bytes, 5 four bytes. Unknown fields are skipped, of a field that comes twice the last counts, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import TypeVar

_DOUBLE = Struct("<d")
_DOUBLES = {1: "cpu_utilization", 2: "mem_utilization", 6: "rps_fractional", 7: "eps", 9: "application_utilization"}
_RPS = 3  # uint64, the former rps_fractional
_MAPS = {4: "request_cost", 5: "utilization", 8: "named_metrics"}
_NUMBERS = {name: number for number, name in (*_DOUBLES.items(), *_MAPS.items())}

Value = int | float | bytes
T = TypeVar("T", int, float, bytes)


def read_message(message: bytes) -> dict[str, float]:
    """Metrics by name; those of maps as `group.key`. Raises ValueError when it is no such message."""
    found: dict[str, float] = {}
    for number, value in _fields(message):
        if number in _DOUBLES:
            found[_DOUBLES[number]] = _as(float, value)
        elif number == _RPS:
            found["rps"] = float(_as(int, value))
        elif number in _MAPS:
            key, metric = _entry(_as(bytes, value))
            found[f"{_MAPS[number]}.{key}"] = metric
    return found


def _entry(message: bytes) -> tuple[str, float]:
    """An entry of a map is a message of its key (1) and its value (2)."""
    key, metric = b"", 0.0
    for number, value in _fields(message):
        if number == 1:
            key = _as(bytes, value)
        elif number == 2:
            metric = _as(float, value)
    try:
        return key.decode("utf-8"), metric
    except UnicodeDecodeError:
        raise _damaged() from None


def _as(kind: type[T], value: Value) -> T:
    if not isinstance(value, kind):
        raise _damaged()
    return value


def _fields(message: bytes) -> Iterator[tuple[int, Value]]:
    at, value = 0, 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, at = _varint(message, at)
                yield key >> 3, value
            case 1:
                yield key >> 3, float(_DOUBLE.unpack(_bytes(message, at, 8))[0])
                at += 8
            case 2:
                length, at = _varint(message, at)
                yield key >> 3, _bytes(message, at, length)
                at += length
            case 5:
                yield key >> 3, _bytes(message, at, 4)
                at += 4
            case _:
                raise _damaged()


def _bytes(message: bytes, at: int, count: int) -> bytes:
    if at + count > len(message):
        raise _damaged()
    return message[at : at + count]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _damaged()


def _damaged() -> ValueError:
    return ValueError("not such a message")


def write_message(metrics: Iterable[tuple[str, float]]) -> bytes:
    """The message of metrics as `read_message` names them."""
    written = bytearray()
    for name, value in metrics:
        group, dot, key = name.partition(".")
        double = _DOUBLE.pack(value)
        if dot:
            text = key.encode("utf-8")
            entry = b"\x0a" + _length(text) + text + b"\x11" + double
            written += bytes((_NUMBERS[group] << 3 | 2,)) + _length(entry) + entry
        else:
            written += bytes((_NUMBERS[name] << 3 | 1,)) + double
    return bytes(written)


def _length(data: bytes) -> bytes:
    count, written = len(data), bytearray()
    while count > 0x7F:
        written.append(count & 0x7F | 0x80)
        count >>= 7
    written.append(count)
    return bytes(written)
