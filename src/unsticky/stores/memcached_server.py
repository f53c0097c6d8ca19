"""Connections to a Memcached server, for threads and event loops alike.

The whole talk of a verb has one connection, that nobody else uses meanwhile, and one deadline. A connection goes back
only after a talk that ended well: who is cancelled or too late takes his with him, so that no reply is ever read by
another. Idle sockets belong to no thread and no event loop.

The wire is ours, because no driver has a deadline for a whole verb (pymemcache's is per socket operation), and so
threads and event loops share one parser. A cas needs the connection of its gets: a server that restarts in between
would count anew.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable
from typing import TypeVar
from weakref import finalize

from ..clock import SystemClock
from ..errors import StoreError
from .memcached_url import HostPort
from .memcached_wire import Ask, Reply, ReplyReader, Talk
from .tcp import connected, connected_async, seconds_left

T = TypeVar("T")

_IDLE = 64  # connections kept by one process to one server
_AT_ONCE = 16  # connections that one event loop uses at once to one server: a server has 1,024 unless told otherwise
_READ = 262144  # bytes


class LostError(StoreError):
    """The connection broke after something was sent."""


class Server:
    """Connections to one server. A talk takes at most `timeout` seconds, connecting included."""

    def __init__(self, address: HostPort, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._idle: list[socket.socket] = []
        self._pid = os.getpid()
        self._epoch = 0  # raised by close(): connections in use then are not kept
        self._turns: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        finalize(self, _close_all, self._idle)

    def talk(self, talk: Talk[T]) -> T:
        """What the talk returns. Raises StoreError."""
        deadline, epoch = SystemClock.monotonic() + self._timeout, self._epoch
        peer, reply = self._begin(next(talk), deadline)
        try:
            while True:
                reply = _exchange(peer, talk.send(reply), deadline)
        except StopIteration as end:
            self._give(peer, epoch)
            result: T = end.value
            return result
        except BaseException:
            peer.close()
            raise

    async def talk_async(self, talk: Talk[T]) -> T:
        """The same, on any event loop."""
        try:
            async with asyncio.timeout(self._timeout), self._turn():
                return await self._talk_async(talk)
        except TimeoutError:
            raise _late() from None

    def close(self) -> None:
        self._epoch += 1
        self._own()
        _close_all(self._idle)

    def _begin(self, ask: Ask, deadline: float) -> tuple[socket.socket, Reply]:
        """A connection, and the reply to the first command. One that broke while idle costs no error, if it may not."""
        while (peer := self._take()) is not None:
            try:
                return peer, _exchange(peer, ask, deadline)
            except BaseException as error:
                self._broken(peer, ask, error)
        peer = self._connect(deadline)
        try:
            return peer, _exchange(peer, ask, deadline)
        except BaseException:
            peer.close()
            raise

    async def _talk_async(self, talk: Talk[T]) -> T:
        epoch = self._epoch
        peer, reply = await self._begin_async(next(talk))
        try:
            while True:
                reply = await _exchange_async(peer, talk.send(reply))
        except StopIteration as end:
            self._give(peer, epoch)
            result: T = end.value
            return result
        except BaseException:
            peer.close()
            raise

    async def _begin_async(self, ask: Ask) -> tuple[socket.socket, Reply]:
        while (peer := self._take()) is not None:
            try:
                return peer, await _exchange_async(peer, ask)
            except BaseException as error:
                self._broken(peer, ask, error)
        peer = await self._connect_async()
        try:
            return peer, await _exchange_async(peer, ask)
        except BaseException:
            peer.close()
            raise

    def _broken(self, peer: socket.socket, ask: Ask, error: BaseException) -> None:
        """Close it and what was idle beside it; raise `error` unless the command may be repeated."""
        peer.close()
        if not (ask.repeatable and isinstance(error, LostError)):
            raise error
        _close_all(self._idle)

    def _turn(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if (turn := self._turns.get(loop)) is None:
            for other in tuple(self._turns):  # a semaphore that was waited for keeps its loop
                if other.is_closed():
                    self._turns.pop(other, None)
            turn = self._turns[loop] = asyncio.Semaphore(_AT_ONCE)
        return turn

    def _connect(self, deadline: float) -> socket.socket:
        try:
            return connected(*self._address, deadline)
        except (OSError, UnicodeError) as error:
            raise self._unreachable(error) from error

    async def _connect_async(self) -> socket.socket:
        try:
            return await connected_async(*self._address, self._timeout)
        except (OSError, UnicodeError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: OSError | UnicodeError) -> StoreError:
        if isinstance(error, TimeoutError):
            return _late()
        reason = getattr(error, "strerror", None) or error
        return StoreError(f"Memcached store: can't connect to {self._address}: {reason}")

    def _take(self) -> socket.socket | None:
        """An idle connection. One that the server has closed, or that has something to read unasked, is not taken."""
        self._own()
        while True:
            try:
                peer = self._idle.pop()
            except IndexError:
                return None
            if not _readable(peer):
                return peer
            peer.close()

    def _give(self, peer: socket.socket, epoch: int) -> None:
        if epoch == self._epoch and len(self._idle) < _IDLE:
            self._idle.append(peer)
        else:
            peer.close()

    def _own(self) -> None:
        if self._pid != os.getpid():  # after a fork: closing our copies says nothing to the server
            self._pid = os.getpid()
            _close_all(self._idle)


def _exchange(peer: socket.socket, ask: Ask, deadline: float) -> Reply:
    reader = ReplyReader(ask.key)
    try:
        peer.settimeout(seconds_left(deadline))
        peer.sendall(ask.packed)
        while True:
            peer.settimeout(seconds_left(deadline))
            if (reply := reader.feed(_some(peer.recv(_READ)))) is not None:
                return reply
    except TimeoutError:
        raise _late() from None
    except OSError as error:
        raise _lost() from error


async def _exchange_async(peer: socket.socket, ask: Ask) -> Reply:
    loop, reader = asyncio.get_running_loop(), ReplyReader(ask.key)
    try:
        peer.setblocking(False)
        await loop.sock_sendall(peer, ask.packed)
        while True:
            if (reply := reader.feed(_some(await loop.sock_recv(peer, _READ)))) is not None:
                return reply
    except OSError as error:
        raise _lost() from error


def _some(data: bytes) -> bytes:
    if not data:
        raise _lost()
    return data


def _late() -> StoreError:
    return StoreError("Memcached store: the server did not answer in time")


def _lost() -> LostError:
    return LostError("Memcached store: the connection was lost")


def _select_readable(peer: socket.socket) -> bool:
    return bool(select.select([peer], [], [], 0)[0])


def _poll_readable(peer: socket.socket) -> bool:
    poll = select.poll()
    poll.register(peer, select.POLLIN)
    return bool(poll.poll(0))


# select() can't watch descriptors past 1,023; Windows has no poll().
_readable: Callable[[socket.socket], bool] = _poll_readable if hasattr(select, "poll") else _select_readable


def _close_all(idle: list[socket.socket]) -> None:
    while idle:
        try:
            idle.pop().close()
        except IndexError:  # another thread took the last one
            return
