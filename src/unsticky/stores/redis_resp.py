"""RESP2, the protocol of Redis and Valkey: commands as bytes, replies from bytes, and what can go wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import StoreError

PARTIAL = object()
_BULK = ord("$")
_LENGTH = 24  # bytes of a line that says a length
_DEEPEST = 8  # arrays in arrays; CLUSTER SLOTS has four

Word = bytes | str | int
T = TypeVar("T")


class LostError(StoreError):
    """The connection broke, or none came about. `sent`: the command may have reached the server."""

    def __init__(self, message: str, *, sent: bool, opening: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.opening = opening


@dataclass(slots=True)
class Command:
    """Packed bytes; `whole` packs the same with the script's text, for a server that does not know the script.

    Nobody changes one; freezing it would cost each command a microsecond.
    """

    packed: bytes
    key: bytes = b""  # the one key that it touches: it says which server of a cluster is asked
    whole: Callable[[], bytes] | None = None
    repeatable: bool = False  # doing it twice is as good as once
    write: bool = False  # replicas may have to acknowledge it


Talk = Generator[Command, Any, T]  # a verb of several commands: it yields them, and receives their replies


class ErrorReply:
    """What the server refused. Only its code is kept: its text can repeat the command's arguments.

    `target` is the rest of a redirection: slot and address.
    """

    __slots__ = ("code", "target")

    def __init__(self, text: str) -> None:
        self.code, _, rest = text.partition(" ")
        self.target = rest if self.code in ("ASK", "MOVED") else ""


class ReplyError(Exception):
    """Bytes that are no reply we can ask for."""


def refusal(code: str) -> StoreError:
    return StoreError(f"Redis store: the server refused the command ({code})")


def nonsense() -> StoreError:
    return StoreError("Redis store: the server answered nonsense")


def late() -> StoreError:
    return StoreError("Redis store: the server did not answer in time")


def pack(*words: Word) -> bytes:
    """A command as RESP: an array of bulk strings."""
    return pack_bytes(*[word if type(word) is bytes else str(word).encode() for word in words])


def pack_bytes(*words: bytes) -> bytes:
    """The same, without a look at the words' types."""
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))


# The usual replies to scripts, to a SET, and to a GET that finds nothing; no other is as short as that.
SHORT_REPLIES = {b":1\r\n": 1, b"+OK\r\n": b"OK", b"$-1\r\n": None}
SHORT = 5  # bytes


def whole_reply(data: bytes) -> Any:
    """The usual reply to a GET, quickly: one value that is all of `data`. PARTIAL for any other: a parser knows."""
    if data[:1] == b"$":
        end = data.find(b"\r\n", 1, _LENGTH)
        try:
            if end > 0 and int(data[1:end]) == len(data) - end - 4 >= 0 and data[-2:] == b"\r\n":
                return data[end + 2 : -2]
        except ValueError:
            pass
    return PARTIAL


class ReplyParser:
    """RESP2 replies from bytes as they come: scalars, and arrays of anything."""

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._begun: list[tuple[list[Any], int]] = []  # arrays, outermost first, and how many items each shall have

    @property
    def between(self) -> bool:
        """True if nothing of a further reply has come."""
        return not self._begun and self._at == len(self._buffer)

    def feed(self, data: bytes) -> Iterable[Any]:
        """The replies that `data` completes. Raises ReplyError."""
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0
        while (item := self._next()) is not PARTIAL:
            if not self._begun:
                yield item
            elif (whole := self._collected(item)) is not PARTIAL:
                yield whole

    def _collected(self, item: Any) -> Any:
        """Put `item` into the innermost array; the outermost one, if that completes it."""
        while self._begun:
            items, count = self._begun[-1]
            items.append(item)
            if len(items) < count:
                return PARTIAL
            self._begun.pop()
            item = items
        return item

    def _next(self) -> Any:
        """The next scalar, or empty array. Any other array is only begun."""
        while True:
            buffer, at = self._buffer, self._at
            end = buffer.find(b"\r\n", at)
            if end < 0:
                return PARTIAL
            try:
                if buffer[at] == _BULK:
                    return self._bulk(int(buffer[at + 1 : end]), end + 2)
                kind, line = buffer[at : at + 1], buffer[at + 1 : end]
                self._at = end + 2
                item = self._array(int(line)) if kind == b"*" else _scalar(kind, line)
            except ValueError:
                raise ReplyError("a length is no number") from None
            if item is not PARTIAL:
                return item

    def _bulk(self, size: int, start: int) -> Any:
        if size < 0:
            self._at = start
            return None
        stop = start + size
        if len(self._buffer) < stop + 2:
            return PARTIAL
        if self._buffer[stop : stop + 2] != b"\r\n":
            raise ReplyError("a length is wrong")
        self._at = stop + 2
        return self._buffer[start:stop]

    def _array(self, count: int) -> Any:
        if count < 0:
            return None
        if count == 0:
            return []
        if len(self._begun) == _DEEPEST:
            raise ReplyError("arrays in arrays without end")
        self._begun.append(([], count))
        return PARTIAL


def _scalar(kind: bytes, line: bytes) -> Any:
    if kind == b"+":
        return line
    if kind == b":":
        return int(line)
    if kind == b"-":
        return ErrorReply(line.decode(errors="replace"))
    raise ReplyError("not a reply")
