"""Memcached's text protocol, and connections to its servers, for threads and event loops alike.

What a verb says is a *talk*: a generator that yields what to ask and receives the replies. The whole of it has one
connection, that nobody else uses meanwhile, and one deadline. A connection goes back only after a talk that ended well:
who is cancelled or too late takes his with him, so that no reply is ever read by another. Idle sockets belong to no
thread and no event loop.

The protocol is ours in a few lines, because no driver has a deadline for a whole verb (pymemcache's is per socket
operation), and none of the async ones is kept up: so threads and event loops share one parser that accepts nothing odd.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import finalize

from ..clock import SystemClock
from ..errors import StoreError
from .memcached_url import HostPort

T = TypeVar("T")

_IDLE = 64  # connections kept by one process to one server
_AT_ONCE = 16  # connections that one event loop uses at once to one server: a server has 1,024 unless told otherwise
_READ = 262144  # bytes
_LINE = 512  # bytes of a reply's first line: a key has 250 at most
_WORDS = frozenset((b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND", b"DELETED", b"END"))


class LostError(StoreError):
    """The connection broke after something was sent."""


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
        if missing < 0 or self._data[end:] != b"\r\nEND\r\n":
            raise nonsense()
        return Reply("VALUE", bytes(self._data[start:end]), seen)


def nonsense() -> StoreError:
    return StoreError("Memcached store: the server answered nonsense")


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
            return _tuned(socket.create_connection(self._address, timeout=_left(deadline)))
        except OSError as error:
            raise self._unreachable(error) from error

    async def _connect_async(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM)
            for family, kind, protocol, _, address in found[:-1]:
                try:
                    return await _connected(loop, socket.socket(family, kind, protocol), address)
                except OSError:  # the next address, or the error of the last one
                    continue
            family, kind, protocol, _, address = found[-1]
            return await _connected(loop, socket.socket(family, kind, protocol), address)
        except OSError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: OSError) -> StoreError:
        if isinstance(error, TimeoutError):
            return _late()
        return StoreError(f"Memcached store: can't connect to {self._address}: {error.strerror or error}")

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
        peer.settimeout(_left(deadline))
        peer.sendall(ask.packed)
        while True:
            peer.settimeout(_left(deadline))
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


async def _connected(loop: asyncio.AbstractEventLoop, peer: socket.socket, address: Any) -> socket.socket:
    try:
        peer.setblocking(False)
        await loop.sock_connect(peer, address)
        return _tuned(peer)
    except BaseException:
        peer.close()
        raise


def _tuned(peer: socket.socket) -> socket.socket:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def _left(deadline: float) -> float:
    left = deadline - SystemClock.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


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
