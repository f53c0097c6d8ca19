"""A connection to a Redis server, for threads: commands go out, and their replies come in, by a deadline."""

from __future__ import annotations

import select
import socket
import ssl
from contextlib import suppress
from math import ceil
from typing import Any

from .redis_resp import (
    PARTIAL,
    SHORT,
    SHORT_REPLIES,
    LostError,
    ReplyError,
    ReplyParser,
    late,
    nonsense,
    whole_reply,
)
from .tcp import seconds_left

_READ = 65536  # bytes


class Link:
    """A connection for one thread at a time. A deadline is a time of SystemClock.monotonic."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._tls = isinstance(peer, ssl.SSLSocket)
        self._poll = None
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(peer, select.POLLIN)
        # A plain socket never waits itself: poll does. Its own timeouts would be four more system calls per command.
        self._polls = self._poll is not None and not self._tls
        if self._polls:
            peer.setblocking(False)

    def exchange(self, packed: bytes, count: int, deadline: float) -> list[Any]:
        """Send commands and read their `count` replies by `deadline`. Raises StoreError."""
        try:
            self._send(packed, deadline)
            data = self._receive(deadline)
            if count == 1:
                reply = SHORT_REPLIES.get(data, PARTIAL) if len(data) <= SHORT else whole_reply(data)
                if reply is not PARTIAL:
                    return [reply]
            return self._replies(data, count, deadline)
        except TimeoutError:
            raise late() from None
        except OSError as error:
            raise LostError("Redis store: the connection was lost", sent=True) from error
        except ReplyError:
            raise nonsense() from None

    def _replies(self, data: bytes, count: int, deadline: float) -> list[Any]:
        """Those in `data`, and in what is still to come."""
        parser = ReplyParser()
        replies = list(parser.feed(data))
        while len(replies) < count:
            replies.extend(parser.feed(self._receive(deadline)))
        if len(replies) > count or not parser.between:
            raise nonsense()
        return replies

    def _receive(self, deadline: float) -> bytes:
        if not self._polls:
            self._peer.settimeout(seconds_left(deadline))
        elif not self._poll.poll(ceil(seconds_left(deadline) * 1000)):  # type: ignore[union-attr]
            raise TimeoutError
        data = self._peer.recv(_READ)
        if not data:
            raise LostError("Redis store: the connection was lost", sent=True)
        return data

    def _send(self, packed: bytes, deadline: float) -> None:
        sent = self._sent(packed, deadline)
        while sent < len(packed):
            sent += self._sent(memoryview(packed)[sent:], deadline)

    def _sent(self, data: bytes | memoryview, deadline: float) -> int:
        """How many bytes of `data` could be sent."""
        if not self._polls:
            self._peer.settimeout(seconds_left(deadline))
            return self._peer.send(data)
        try:
            return self._peer.send(data)
        except BlockingIOError:
            room = select.poll()
            room.register(self._peer, select.POLLOUT)
            room.poll(ceil(seconds_left(deadline) * 1000))
            return 0

    def stale(self) -> bool:
        """True if there is something to read, though nothing was asked: the end of the stream, or a stray reply."""
        ready = self._poll.poll(0) if self._poll else select.select([self._peer], [], [], 0)[0]
        if not self._tls:
            return bool(ready)
        if not ready:
            return bool(self._peer.pending())  # type: ignore[attr-defined]
        try:  # TLS sends some by itself, such as tickets
            self._peer.settimeout(0)
            self._peer.recv(1)
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        with suppress(OSError):
            self._peer.close()

    def __del__(self) -> None:
        self.close()
