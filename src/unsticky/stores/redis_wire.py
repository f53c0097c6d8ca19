"""One connection per event loop, shared by all its callers: RESP2 commands out, replies back in their order.

The commands of one tick of the loop are written together, so sixty-four callers cost one system call, not sixty-four.
A waiter that is cancelled keeps its place in the queue: its reply is read and dropped, and no other one moves up.
A connection whose replies can't be trusted (late, broken, too many) is dropped with all that wait for it.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from ..errors import StoreError

_STALL = 0.005  # seconds; an event loop that is later than this itself can't tell yet that the server is late
_MORE = object()
_BULK = ord("$")
_DEEPEST = 8  # arrays in arrays; CLUSTER SLOTS has four

Word = bytes | str | int

# What poll reports about a peer that hung up; unread data alone is no sign of it (TLS sends some by itself).
_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class LostError(StoreError):
    """The connection broke. `sent`: the command may have reached the server."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Command:
    """Packed bytes; `whole` packs the same with the script's text, for a server that does not know the script."""

    packed: bytes
    whole: Callable[[], bytes] | None = None
    repeatable: bool = False  # doing it twice is as good as once


class ErrorReply:
    """What the server refused. Only its code is kept: its text can repeat the command's arguments."""

    __slots__ = ("code",)

    def __init__(self, text: str) -> None:
        self.code = text.split(" ", 1)[0]


class ReplyError(Exception):
    """Bytes that are no reply we can ask for."""


def pack(*words: Word) -> bytes:
    """A command as RESP: an array of bulk strings."""
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if type(word) is bytes else str(word).encode()
        out.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(out)


class ReplyParser:
    """RESP2 replies from bytes as they come: scalars, and arrays of anything."""

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._begun: list[tuple[list[Any], int]] = []  # arrays, outermost first, and how many items each shall have

    def feed(self, data: bytes) -> Iterable[Any]:
        """The replies that `data` completes. Raises ReplyError."""
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0
        while (item := self._next()) is not _MORE:
            if not self._begun:
                yield item
            elif (whole := self._collected(item)) is not _MORE:
                yield whole

    def _collected(self, item: Any) -> Any:
        """Put `item` into the innermost array; the outermost one, if that completes it."""
        while self._begun:
            items, count = self._begun[-1]
            items.append(item)
            if len(items) < count:
                return _MORE
            self._begun.pop()
            item = items
        return item

    def _next(self) -> Any:
        """The next scalar, or array that was read at once. Of any other array this only begins it."""
        while True:
            buffer, at = self._buffer, self._at
            end = buffer.find(b"\r\n", at)
            if end < 0:
                return _MORE
            kind, line = buffer[at : at + 1], buffer[at + 1 : end]
            try:
                if kind == b"$":
                    return self._bulk(int(line), end + 2)
                self._at = end + 2
                item = self._array(int(line)) if kind == b"*" else _scalar(kind, line)
            except ValueError:
                raise ReplyError("a length is no number") from None
            if item is not _MORE:
                return item

    def _bulk(self, size: int, start: int) -> Any:
        if size < 0:
            self._at = start
            return None
        stop = start + size
        if len(self._buffer) < stop + 2:
            return _MORE
        if self._buffer[stop : stop + 2] != b"\r\n":
            raise ReplyError("a length is wrong")
        self._at = stop + 2
        return self._buffer[start:stop]

    def _array(self, count: int) -> Any:
        if count < 0:
            return None
        items = self._bulks(count)
        if items is None:
            if len(self._begun) == _DEEPEST:
                raise ReplyError("arrays in arrays without end")
            self._begun.append(([], count))
            return _MORE
        return items

    def _bulks(self, count: int) -> list[bytes] | None:
        """The usual array at once: bulk strings that are all here. None for any other, which comes item by item."""
        buffer, at, items = self._buffer, self._at, []
        try:
            for _ in range(count):
                end = buffer.index(b"\r\n", at)
                size = int(buffer[at + 1 : end])
                if buffer[at] != _BULK or size < 0:
                    return None
                at = end + 2 + size
                items.append(buffer[end + 2 : at])
                at += 2
        except ValueError:
            return None
        if at > len(buffer):
            return None
        self._at = at
        return items


def _scalar(kind: bytes, line: bytes) -> Any:
    if kind == b"+":
        return line
    if kind == b":":
        return int(line)
    if kind == b"-":
        return ErrorReply(line.decode(errors="replace"))
    raise ReplyError("not a reply")


class Opened(Protocol):
    """A connection after its handshake."""

    @property
    def transport(self) -> asyncio.Transport:
        """Ours to take over."""
        ...

    async def close(self) -> None: ...

    def abandon(self) -> None:
        """Its loop is closed, its socket too: forget them without a word."""
        ...


class Wire(asyncio.Protocol):
    """The shared connection of one event loop. It opens itself; once `closed`, it stays so.

    `connect` does the handshake; `timeout` is in seconds, for connecting as for each reply.
    """

    def __init__(self, connect: Callable[[], Awaitable[Opened]], timeout: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self._connect = connect
        self._timeout = timeout
        self._opened: Opened | None = None
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._parser = ReplyParser()
        self._unsent: list[bytes] = []
        self._waiters: deque[tuple[asyncio.Future[Any], float]] = deque()  # in the order of their commands
        self._alarm: asyncio.TimerHandle | None = None
        self._flush_due = False
        self._over = self.loop.create_future()
        self._task = self.loop.create_task(self._live())

    def ask(self, command: bytes) -> asyncio.Future[Any]:
        """Queue a packed command. The future's result is the reply (or an ErrorReply); it fails with StoreError."""
        waiter: asyncio.Future[Any] = self.loop.create_future()
        deadline = self.loop.time() + self._timeout
        self._unsent.append(command)
        self._waiters.append((waiter, deadline))
        if self._transport is not None:
            if not self._flush_due:
                self._flush_due = True
                self.loop.call_soon(self._flush)
            if self._alarm is None:
                self._alarm = self.loop.call_at(deadline, self._on_alarm)
        return waiter

    def end(self) -> asyncio.Task[None]:
        """Close it; all that wait fail. Returns the task to wait for."""
        self._end("the store was closed")
        if self._transport is None:
            self._task.cancel()
        return self._task

    # What follows is called by the event loop.

    async def _live(self) -> None:
        """Connect, and last as long as the connection does: asyncio.run() cancels this task, and so closes it."""
        reason = "the connection was lost"
        try:
            async with asyncio.timeout(self._timeout):
                self._opened = await self._connect()
            self._take_over(self._opened.transport)
            reason = await self._over
        except TimeoutError:
            reason = "connecting took too long"
        except StoreError as error:
            reason = str(error)
        finally:
            self._end(reason)
            if self._opened is not None:
                await self._opened.close()

    def _take_over(self, transport: asyncio.Transport) -> None:
        if self.closed:
            return
        self._transport = transport
        transport.set_protocol(self)
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(transport.get_extra_info("socket").fileno(), _HUNG_UP)
        if self._unsent:
            self._flush()
        if self._waiters:
            self._alarm = self.loop.call_at(self._waiters[0][1], self._on_alarm)

    def _flush(self) -> None:
        self._flush_due = False
        if self.closed or self._transport is None:
            return
        if len(self._unsent) == len(self._waiters) and self._poll is not None and self._poll.poll(0):
            # The server left while nothing was asked, and the loop has not heard yet: nothing is sent into the void.
            self._end("the connection was lost")
            return
        data = b"".join(self._unsent)
        self._unsent.clear()
        self._transport.write(data)

    def _on_alarm(self, extended: bool = False) -> None:
        self._alarm = None
        if not self._waiters:
            return
        deadline = self._waiters[0][1]
        lateness = self.loop.time() - deadline
        if lateness < 0:
            self._alarm = self.loop.call_at(deadline, self._on_alarm)
        elif lateness > _STALL and not extended:  # perhaps the command has only now been written
            self._alarm = self.loop.call_later(min(lateness, self._timeout), self._on_alarm, True)
        else:
            self._end("the server did not answer in time", late=True)

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        try:
            for reply in self._parser.feed(data):
                waiter = self._waiters.popleft()[0]
                if not waiter.done():
                    waiter.set_result(reply)
        except (ReplyError, IndexError):
            self._end("the server answered nonsense", late=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("the connection was lost")

    def _end(self, reason: str, late: bool = False) -> None:
        """Fail all that wait. `late`: asking again would only take as long again."""
        if self.closed:
            return
        self.closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        sent = len(self._waiters) - len(self._unsent)
        connected = self._transport is not None
        for place, (waiter, _) in enumerate(self._waiters):
            if not waiter.done():
                waiter.set_exception(_failure(reason, place < sent, connected and not late))
        self._waiters.clear()
        self._unsent.clear()
        if self._transport is not None:
            self._transport.abort()
        if not self._over.done():
            self._over.set_result(reason)

    def bury(self) -> None:
        """Free what this holds after its loop was closed around it, as `end` and asyncio.run() would have done.

        Nothing public of asyncio works any more by then; what is private here only silences its complaints.
        """
        self.closed = True
        self._task._log_destroy_pending = False  # type: ignore[attr-defined]
        if self._transport is None or self._opened is None:
            return
        inner = getattr(getattr(self._transport, "_ssl_protocol", None), "_transport", self._transport)
        for close in (self._transport.abort, inner.abort, partial(_close_socket, inner)):
            with suppress(Exception):
                close()
        self._opened.abandon()
        self._opened = None


def _failure(reason: str, sent: bool, again: bool) -> StoreError:
    message = f"Redis store: {reason}"
    return LostError(message, sent=sent) if again else StoreError(message)


def _close_socket(transport: Any) -> None:
    transport._call_connection_lost(None)
