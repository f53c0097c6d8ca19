"""One connection per event loop, shared by all its callers: commands out, replies back in their order.

A command that finds nothing in flight goes at once: a turn of the loop is a good part of a round trip. All others of
one tick are written together, so sixty-four callers cost two system calls, not sixty-four.
A waiter that is cancelled keeps its place in the queue: its reply is read and dropped, and no other one moves up.
A connection whose replies can't be trusted (late, broken, too many) is dropped with all that wait for it.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from ..errors import StoreError
from .redis_resp import (
    PARTIAL,
    SHORT,
    SHORT_REPLIES,
    LostError,
    ReplyError,
    ReplyParser,
    late,
    nonsense,
    pack,
    whole_reply,
)

_READ = 65536  # bytes
_STALL = 0.005  # seconds; an event loop that is later than this itself can't tell yet that the server is late
_TICK = 0.12  # seconds; a server notices ten times a second that a WAIT has taken long enough

# What poll reports about a peer that hung up; unread data alone is no sign of it (TLS sends some by itself).
_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class Wire(asyncio.BufferedProtocol):
    """The shared connection of one event loop. It opens itself; once `closed`, it stays so.

    `connect` does the handshake; `timeout` is in seconds, for connecting.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[asyncio.Transport]], timeout: float, *, gathers: bool = False
    ) -> None:
        """`gathers`: nothing goes at once, for a WAIT follows what is asked."""
        self._gathers = gathers
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self._connect = connect
        self._timeout = timeout
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._parser = ReplyParser()
        self._buffer = memoryview(bytearray(_READ))  # ours: asyncio would allocate 256 kB for each reply
        self._unsent: list[bytes] = []
        self._waiters: deque[tuple[asyncio.Future[Any], float]] = deque()  # in the order of their commands
        self._acknowledged: tuple[asyncio.Future[Any], int, float] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._flush_due = False
        self._retired = False
        self._over = self.loop.create_future()
        self._task = self.loop.create_task(self._live())

    def ask(self, command: bytes, deadline: float) -> asyncio.Future[Any]:
        """Queue a packed command. The future's result is the reply (or an ErrorReply); it fails with StoreError.

        `deadline` is a time of the loop.
        """
        waiter: asyncio.Future[Any] = self.loop.create_future()
        self._unsent.append(command)
        self._waiters.append((waiter, deadline))
        if self._transport is not None:
            if self._alarm is None:
                self._alarm = self.loop.call_at(deadline, self._on_alarm)
            if len(self._waiters) == 1 and not self._flush_due and not self._gathers:
                self._flush()
            elif not self._flush_due:
                self._flush_due = True
                self.loop.call_soon(self._flush)
        return waiter

    def acknowledged(self, replicas: int, deadline: float) -> asyncio.Future[Any]:
        """How many replicas have all that was asked in this tick: one WAIT for all callers. Shield it from them."""
        if self._acknowledged is None:
            waiter: asyncio.Future[Any] = self.loop.create_future()
            waiter.add_done_callback(_seen)
            self._acknowledged = (waiter, replicas, deadline)
        return self._acknowledged[0]

    def end(self) -> asyncio.Task[None]:
        """Close it; all that wait fail. Returns the task to wait for."""
        self._end(StoreError("Redis store: the store was closed"))
        if self._transport is None:
            self._task.cancel()
        return self._task

    def retire(self) -> None:
        """Close it when all that wait have their replies."""
        self._retired = True
        if not self._waiters:
            self.end()

    # What follows is called by the event loop.

    async def _live(self) -> None:
        """Connect, and last as long as the connection does: asyncio.run() cancels this task, and so closes it."""
        error: StoreError = _lost()
        try:
            async with asyncio.timeout(self._timeout):
                transport = await self._connect()
            self._take_over(transport)
            await self._over
        except TimeoutError:
            error = StoreError("Redis store: connecting took too long")
        except StoreError as failed:
            error = failed
        finally:
            self._end(error)

    def _take_over(self, transport: asyncio.Transport) -> None:
        if self.closed:
            transport.abort()
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
            self._end(_lost())
            return
        if self._acknowledged is not None:
            self._append_wait(*self._acknowledged)
        data = b"".join(self._unsent)
        self._unsent.clear()
        self._transport.write(data)

    def _append_wait(self, waiter: asyncio.Future[Any], replicas: int, deadline: float) -> None:
        self._acknowledged = None
        self._unsent.append(wait_command(replicas, deadline - self.loop.time()))
        self._waiters.append((waiter, deadline))

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
            self._end(late())

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.closed:
            return
        data = bytes(self._buffer[:nbytes])
        try:
            whole = PARTIAL
            if self._parser.between:
                whole = SHORT_REPLIES.get(data, PARTIAL) if nbytes <= SHORT else whole_reply(data)
            for reply in self._parser.feed(data) if whole is PARTIAL else (whole,):
                waiter = self._waiters.popleft()[0]
                if not waiter.done():
                    waiter.set_result(reply)
        except (ReplyError, IndexError):
            self._end(nonsense())
        if self._retired and not self._waiters:
            self._end(_lost())

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(_lost())

    def _end(self, error: StoreError) -> None:
        """Fail all that wait, each with a copy of `error`. A LostError says: it may be asked again."""
        if self.closed:
            return
        self.closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        sent = len(self._waiters) - len(self._unsent)
        if self._acknowledged is not None:
            self._waiters.append(self._acknowledged[::2])
        for place, (waiter, _) in enumerate(self._waiters):
            if not waiter.done():
                waiter.set_exception(_copy(error, place < sent))
        self._waiters.clear()
        self._unsent.clear()
        self._acknowledged = None
        if self._transport is not None:
            self._transport.abort()
        if not self._over.done():
            self._over.set_result(None)

    def bury(self) -> None:
        """Free what this holds after its loop was closed around it, as `end` and asyncio.run() would have done.

        Nothing public of asyncio works any more by then; what is private here only silences its complaints.
        """
        self.closed = True
        self._task._log_destroy_pending = False  # type: ignore[attr-defined]
        if self._transport is None:
            return
        inner = getattr(getattr(self._transport, "_ssl_protocol", None), "_transport", self._transport)
        for close in (self._transport.abort, inner.abort, partial(_close_socket, inner)):
            with suppress(Exception):
                close()
        self._transport = None


def wait_command(replicas: int, left: float) -> bytes:
    """WAIT for as long as its reply still comes in the time that is `left`. Never 0: that would be for ever."""
    return pack("WAIT", replicas, max(1, int(1000 * max(left / 2, left - _TICK))))


def _lost() -> LostError:
    return LostError("Redis store: the connection was lost", sent=True)


def _copy(error: StoreError, sent: bool) -> StoreError:
    if isinstance(error, LostError):
        return LostError(str(error), sent=sent, opening=error.opening)
    return StoreError(str(error))


def _seen(waiter: asyncio.Future[Any]) -> None:
    """Those who share it may all have left: then nobody looks at its exception."""
    if not waiter.cancelled():
        waiter.exception()


def _close_socket(transport: Any) -> None:
    transport._call_connection_lost(None)
