"""Connections to Redis or Valkey: a few per process for threads, one per event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any, Protocol, cast

import redis
from redis.asyncio import Connection as AsyncConnection
from redis.asyncio import SSLConnection as AsyncSSLConnection
from redis.connection import Connection, SSLConnection

from ..errors import StoreError
from .redis_wire import Command, ErrorReply, LostError, ReplyError, ReplyParser, Wire
from .urls import RedisTarget

_IDLE = 64  # connections kept by the threads of one process
_READ = 65536  # bytes
_Redis = (redis.RedisError, OSError, ValueError)  # ValueError: the driver's parser met a length that is no number
_NONSENSE = (redis.exceptions.InvalidResponse, ValueError)
_inherited: list[object] = []  # of a parent process: closing them here could disturb it


class _Connection(Protocol):
    """What we use of the driver's connection, which is untyped."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def can_read(self, timeout: float) -> bool: ...


class RedisPool:
    """Connections for threads, each used by one thread at a time; the one used last is used next."""

    def __init__(self, target: RedisTarget, timeout: float) -> None:
        self._kind = SSLConnection if target.tls else Connection
        self._options = _options(target, timeout)
        self._idle: list[_Connection] = []
        self._pid = os.getpid()
        self._epoch = 0  # raised by close(): connections in use then are not kept

    def ask(self, command: Command) -> Any:
        """The reply. Raises StoreError."""
        (reply,) = self._ask_once(command.packed, command.repeatable)
        if type(reply) is ErrorReply and reply.code == "NOSCRIPT" and command.whole is not None:
            (reply,) = self._ask_once(command.whole(), False)
        if type(reply) is ErrorReply:
            raise refusal(reply.code)
        return reply

    def ask_all(self, packed: bytes, count: int) -> list[Any]:
        """The replies, some perhaps ErrorReply, to `count` commands that change nothing. Raises StoreError."""
        return self._ask_once(packed, True, count)

    def close(self) -> None:
        self._epoch += 1
        while (connection := self._pop()) is not None:
            connection.disconnect()

    def _ask_once(self, packed: bytes, again: bool, count: int = 1) -> list[Any]:
        epoch = self._epoch
        connection, used_before = self._take()
        try:
            replies = _exchange(connection, packed, count)
        except BaseException as error:
            connection.disconnect()
            # It broke after it had been idle. A command that may be repeated gets one fresh connection.
            if again and used_before and isinstance(error, LostError):
                self.close()
                return self._ask_once(packed, again=False, count=count)
            raise
        self._give(connection, epoch)
        return replies

    def _take(self) -> tuple[_Connection, bool]:
        """A connection, and whether it was used before. One that the server has closed meanwhile is not taken."""
        while (connection := self._pop()) is not None:
            if not _stale(connection):
                return connection, True
            connection.disconnect()
        fresh: _Connection = self._kind(**self._options)
        try:
            fresh.connect()
        except _Redis as error:
            fresh.disconnect()
            raise refused(error) from _shown(error)
        except BaseException:
            fresh.disconnect()
            raise
        return fresh, False

    def _pop(self) -> _Connection | None:
        if self._pid != os.getpid():  # after a fork; the driver closes the old sockets without a word to the server
            self._idle, self._pid = [], os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _give(self, connection: _Connection, epoch: int) -> None:
        if epoch == self._epoch and len(self._idle) < _IDLE:
            self._idle.append(connection)
        else:
            connection.disconnect()


def _exchange(connection: Any, packed: bytes, count: int) -> list[Any]:
    """Send commands and read their replies: ours, because the driver's parser takes a load ten times as long."""
    parser = ReplyParser()
    replies: list[Any] = []
    peer: socket.socket = connection._sock
    try:
        peer.sendall(packed)
        while len(replies) < count:
            data = peer.recv(_READ)
            if not data:
                raise LostError("Redis store: the connection was lost", sent=True)
            replies.extend(parser.feed(data))
    except TimeoutError:
        raise StoreError("Redis store: the server did not answer in time") from None
    except OSError as error:
        raise LostError("Redis store: the connection was lost", sent=True) from error
    except ReplyError:
        raise nonsense() from None
    if len(replies) > count:
        raise nonsense()
    return replies


class AsyncRedisPool:
    """One shared connection for each event loop that asks."""

    def __init__(self, target: RedisTarget, timeout: float) -> None:
        self._kind = AsyncSSLConnection if target.tls else AsyncConnection
        self._options = _options(target, timeout)
        self._timeout = timeout
        self._wires: dict[asyncio.AbstractEventLoop, Wire] = {}
        self._pid = os.getpid()

    async def ask(self, command: Command) -> Any:
        """The reply. Raises StoreError."""
        reply = await self._ask_once(command.packed, command.repeatable)
        if type(reply) is ErrorReply and reply.code == "NOSCRIPT" and command.whole is not None:
            reply = await self._ask_once(command.whole(), False)
        if type(reply) is ErrorReply:
            raise refusal(reply.code)
        return reply

    async def aclose(self) -> None:
        """Close the connections of all loops; waits for this loop's own."""
        here = asyncio.get_running_loop()
        for loop in tuple(self._wires):
            wire = self._wires.pop(loop, None)
            if wire is None:
                continue
            if loop.is_closed():
                wire.bury()
            elif loop is here:
                await asyncio.wait([wire.end()])
            else:
                loop.call_soon_threadsafe(wire.end)

    async def _ask_once(self, packed: bytes, again: bool) -> Any:
        try:
            return await self._wire().ask(packed)
        except LostError as error:
            if error.sent and not again:
                raise
        return await self._wire().ask(packed)

    def _wire(self) -> Wire:
        loop = asyncio.get_running_loop()
        wire = self._wires.get(loop)
        if wire is None or wire.closed or self._pid != os.getpid():
            wire = self._renew(loop)
        return wire

    def _renew(self, loop: asyncio.AbstractEventLoop) -> Wire:
        if self._pid != os.getpid():
            _inherited.append(self._wires)
            self._wires, self._pid = {}, os.getpid()
        for other in tuple(self._wires):
            if other.is_closed() and (wire := self._wires.pop(other, None)) is not None:
                wire.bury()
        wire = self._wires[loop] = Wire(self._connect, self._timeout)
        return wire

    async def _connect(self) -> _Opened:
        connection: Any = self._kind(**self._options)
        try:
            await connection.connect()
        except _Redis as error:
            await connection.disconnect(nowait=True)
            raise refused(error) from _shown(error)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return _Opened(connection)


class _Opened:
    """The driver did TLS and the handshake; from here on the transport is the wire's."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    @property
    def transport(self) -> asyncio.Transport:
        writer: Any = self._connection._writer
        return cast(asyncio.Transport, writer.transport)

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)

    def abandon(self) -> None:
        self._connection._reader = self._connection._writer = None


def _stale(connection: _Connection) -> bool:
    """True if there is something to read, though nothing was asked: the end of the stream, or a stray reply."""
    try:
        return bool(connection.can_read(0))
    except _Redis:
        return True


def _options(target: RedisTarget, timeout: float) -> dict[str, Any]:
    """For both drivers. No `retry`: a bare connection of theirs has none unless told."""
    options: dict[str, Any] = {
        "host": target.host,
        "port": target.port,
        "db": target.db,
        "username": target.username,
        "password": None if target.password is None else str(target.password),
        "client_name": target.client_name,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "protocol": 2,  # one form of reply, whatever the driver's default is
    }
    if target.tls:
        options |= target.tls_options
        options["ssl_check_hostname"] = target.tls_options.get("ssl_cert_reqs") != "none"
    return options


def refused(error: Exception) -> StoreError:
    """The driver's errors of connections name host and port only; others can repeat what was sent or received."""
    if isinstance(error, (redis.AuthenticationError, redis.exceptions.AuthorizationError)):
        return StoreError("Redis store: the server refused our name or password")
    if isinstance(error, redis.ResponseError):
        return refusal(type(error).__name__)
    if isinstance(error, _NONSENSE):
        return nonsense()
    return StoreError(f"Redis store: {error}")


def refusal(code: str) -> StoreError:
    return StoreError(f"Redis store: the server refused the command ({code})")


def nonsense() -> StoreError:
    return StoreError("Redis store: the server answered nonsense")


def _shown(error: Exception) -> Exception | None:
    """The cause to show in a traceback: none, if it can hold what was sent or received."""
    return None if isinstance(error, (redis.ResponseError, *_NONSENSE)) else error
