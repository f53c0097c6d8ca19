"""Memcached's text protocol: commands, and a reader of replies that accepts nothing odd.

What a verb says is a *talk*: a generator that yields what to ask and receives the replies. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from ..errors import StoreError

T = TypeVar("T")

_LINE = 512  # bytes of a reply's first line: a key has 250 at most
_WORDS = frozenset((b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND", b"DELETED", b"END"))


@dataclass(frozen=True, slots=True)
class Ask:
    """A command. `repeatable`: doing it twice is the same as once."""

    packed: bytes
    key: bytes
    repeatable: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """`word` is VALUE or what the server said. `cas` is 0 where none was asked for, or the server keeps none."""

    word: str
    value: bytes = b""
    cas: int = 0


Talk = Generator[Ask, Reply, T]


def get(key: bytes) -> Ask:
    return Ask(b"get %b\r\n" % key, key, repeatable=True)


def gets(key: bytes) -> Ask:
    return Ask(b"gets %b\r\n" % key, key, repeatable=True)


def add(key: bytes, value: bytes, exptime: int) -> Ask:
    return Ask(b"add %b 0 %d %d\r\n%b\r\n" % (key, exptime, len(value), value), key)


def cas(key: bytes, value: bytes, exptime: int, seen: int) -> Ask:
    return Ask(b"cas %b 0 %d %d %d\r\n%b\r\n" % (key, exptime, len(value), seen, value), key)


def delete(key: bytes) -> Ask:
    return Ask(b"delete %b\r\n" % key, key, repeatable=True)


class ReplyReader:
    """Collects the bytes of one reply to a command for `key`."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._data = bytearray()
        self._found: tuple[int, int, int] | None = None  # of a VALUE: where its data starts, its length, its cas

    def feed(self, data: bytes) -> Reply | None:
        """The reply, once it is whole. Raises StoreError for anything that is none, or comes after it."""
        self._data += data
        if self._found is None:
            end = self._data.find(b"\r\n", 0, _LINE)
            if end < 0 and len(self._data) < _LINE:
                return None
            if end < 0 or not self._data.startswith(b"VALUE "):
                return self._word(end)
            self._found = self._header(bytes(self._data[:end]), end + 2)
        return self._value(*self._found)

    def _word(self, end: int) -> Reply:
        line = bytes(self._data[: max(end, 0)])
        word = line.split(b" ", 1)[0]
        if end + 2 != len(self._data):
            raise nonsense()
        if word in (b"SERVER_ERROR", b"CLIENT_ERROR", b"ERROR"):
            return Reply(word.decode(), line)
        if line not in _WORDS:
            raise nonsense()
        return Reply(word.decode())

    def _header(self, line: bytes, start: int) -> tuple[int, int, int]:
        words = line.split(b" ")
        numbers = words[2:]
        if words[1] != self._key or len(numbers) not in (2, 3) or not all(number.isdigit() for number in numbers):
            raise nonsense()
        return start, int(numbers[1]), int(numbers[2]) if len(numbers) == 3 else 0

    def _value(self, start: int, length: int, seen: int) -> Reply | None:
        end = start + length
        missing = end + len(b"\r\nEND\r\n") - len(self._data)
        if missing > 0:
            return None
        if self._data[end:] != b"\r\nEND\r\n":
            raise nonsense()
        return Reply("VALUE", bytes(self._data[start:end]), seen)


def nonsense() -> StoreError:
    return StoreError("Memcached store: the server answered nonsense")
