"""Plain TCP for the connections of httpcore and httpcore2 on asyncio, in place of anyio's streams.

httpcore reaches asyncio through anyio, whose scopes and checkpoints for each read and write are a fifth of what a call
costs. All else is the library's: its connections ask a network backend for streams, and this is one. TLS, Unix sockets,
proxies and trio keep the backend that they have.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from ipaddress import ip_address
from types import ModuleType
from typing import Any, cast

_MOST = 256 * 1024  # bytes that are kept unread before the peer has to wait
_SECOND_TRY = 0.25  # seconds until another address of a name is tried beside the first (RFC 8305)


def use(transport: Any) -> None:
    """Let an AsyncHTTPTransport of httpx or httpx2 that goes straight to its host use this."""
    pool: Any = getattr(transport, "_pool", None)
    core = import_module(type(pool).__module__.partition(".")[0])
    # Neither has a public way to choose the backend. Where the name is not there, nothing changes.
    if type(pool) is getattr(core, "AsyncConnectionPool", None) and hasattr(pool, "_network_backend"):
        pool._network_backend = Backend(core, pool._network_backend)


class Backend:
    """An AsyncNetworkBackend."""

    def __init__(self, core: ModuleType, other: Any) -> None:
        """`core`: httpcore or httpcore2, whose errors are raised; `other`: its own backend, for all but TCP."""
        self._core = core
        self.connect_unix_socket = other.connect_unix_socket
        self.sleep = other.sleep

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Stream:
        """Raises the ConnectError or ConnectTimeout of the library."""
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {}
        if not _is_address(host) and isinstance(loop, asyncio.BaseEventLoop):  # uvloop tries one after the other
            options["happy_eyeballs_delay"] = _SECOND_TRY
        local = None if local_address is None else (local_address, 0)
        timer = asyncio.timeout(timeout)
        try:
            async with timer:
                made = partial(Stream, self._core)
                stream: Stream
                _, stream = await loop.create_connection(made, host, port, local_addr=local, **options)
        except OSError as error:  # TimeoutError is one
            kind = self._core.ConnectTimeout if timer.expired() else self._core.ConnectError
            raise kind(str(error)) from error
        for option in socket_options or ():
            stream.get_extra_info("socket").setsockopt(*option)
        return stream


class Stream(asyncio.Protocol):
    """An AsyncNetworkStream over one connection, of which one task reads and writes."""

    def __init__(self, core: ModuleType) -> None:
        self._core = core
        self._received: deque[bytes] = deque()
        self._size = 0  # bytes in `_received`
        self._ended = False
        self._error: Exception | None = None
        self._full = False  # the peer takes no more
        self._waiter: asyncio.Future[None] | None = None

    # What asyncio calls -----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, and no subclass

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        self._size += len(data)
        if self._size > _MOST:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return True  # what is to be written still may be

    def connection_lost(self, error: Exception | None) -> None:
        self._ended, self._error = True, error
        self._wake()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake()

    # What httpcore calls ----------------------------------------------------

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        """At most so many; none at the end."""
        while not self._received:
            if self._error is not None:
                raise self._core.ReadError(str(self._error)) from self._error
            if self._ended:
                return b""
            await self._wait(timeout, self._core.ReadTimeout)
        data = self._received.popleft()
        if len(data) > max_bytes:
            self._received.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        if self._size > _MOST >= self._size - len(data):
            self._transport.resume_reading()
        self._size -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        if not buffer:
            return
        if self._error is not None or self._transport.is_closing():
            raise self._core.WriteError("the connection is closed") from self._error
        self._transport.write(buffer)
        while self._full:
            await self._wait(timeout, self._core.WriteTimeout)
            if self._error is not None or self._transport.is_closing():
                raise self._core.WriteError("the connection is closed") from self._error

    async def aclose(self) -> None:
        if not self._transport.is_closing():
            self._transport.close()
            await asyncio.sleep(0)
            self._transport.abort()  # what was not taken by then is not waited for

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # between two requests: the peer closed it, or says what nobody asked
            return self._ended or bool(self._received) or _is_readable(self._transport)
        name = {"client_addr": "sockname", "server_addr": "peername"}.get(info, info)
        return self._transport.get_extra_info(name)

    # Inside -------------------------------------------------------------------

    async def _wait(self, seconds: float | None, late: type[Exception]) -> None:
        """Until anything happens. Raises `late` when `seconds` passed first."""
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _expire, waiter, late)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _expire(waiter: asyncio.Future[None], late: type[Exception]) -> None:
    if not waiter.done():
        waiter.set_exception(late())


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _is_readable(transport: asyncio.Transport) -> bool:
    """Also what the event loop did not come to see yet."""
    found = transport.get_extra_info("socket")
    if found is None or found.fileno() < 0:
        return True
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([found.fileno()], [], [], 0)[0])
    asked = select.poll()
    asked.register(found.fileno(), select.POLLIN)
    return bool(asked.poll(0))
