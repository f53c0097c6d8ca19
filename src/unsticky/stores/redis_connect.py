"""How a connection to a Redis server begins: TCP, TLS, and a greeting that says who we are."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from ..errors import StoreError
from .redis_access import Access
from .redis_link import Link
from .redis_resp import LostError, ReplyError, ReplyParser, nonsense
from .redis_route import Node
from .tcp import connected, connected_async, seconds_left, send_at_once

# A peer that is gone without a word, behind a router that forgot us, is noticed while we are idle.
_ALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 3))


def _lost(node: Node, error: Exception) -> LostError:
    reason = getattr(error, "strerror", None) or type(error).__name__
    message = f"Redis store: can't connect to {node.host}:{node.port}: {reason}"
    return LostError(message, sent=False, opening=True)


def connect(node: Node, access: Access, deadline: float) -> Link:
    """An open connection, by `deadline`. Raises StoreError."""
    context = access.tls(node)
    try:
        raw = connected(node.host, node.port, deadline, _tune)
    except TimeoutError:
        raise StoreError("Redis store: connecting took too long") from None
    except (OSError, UnicodeError) as error:
        raise _lost(node, error) from error
    try:
        link = Link(raw if context is None else _wrapped(raw, context, node, deadline))
    except BaseException:
        raw.close()
        raise
    try:
        _greet(link, node, access, deadline)
    except BaseException:
        link.close()
        raise
    return link


def _wrapped(raw: socket.socket, context: ssl.SSLContext, node: Node, deadline: float) -> socket.socket:
    try:
        raw.settimeout(seconds_left(deadline))
        return context.wrap_socket(raw, server_hostname=node.host)
    except TimeoutError:
        raise StoreError("Redis store: connecting took too long") from None
    except (OSError, ValueError) as error:
        raise _lost(node, error) from error


def _greet(link: Link, node: Node, access: Access, deadline: float) -> None:
    lines = access.greeting(node)
    if lines:
        packed = b"".join(line.packed for line in lines)
        try:
            replies = link.exchange(packed, len(lines), deadline)
        except LostError as error:  # of the caller's command nothing was sent yet
            raise _lost(node, error) from error
        access.greeted(node, lines, replies)


def _tune(peer: Any) -> None:
    send_at_once(peer)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE:
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class _Greeter(asyncio.Protocol):
    """Waits for the replies to a greeting; afterwards the transport is handed on."""

    def __init__(self, expected: int) -> None:
        self.replies: list[Any] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected = expected
        self._parser = ReplyParser()

    def data_received(self, data: bytes) -> None:
        try:
            self.replies.extend(self._parser.feed(data))
        except ReplyError:
            self._end(nonsense())
        if len(self.replies) > self._expected:
            self._end(nonsense())
        elif len(self.replies) == self._expected:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionResetError(104, "Connection closed by server"))

    def _end(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # nobody may be waiting any more


async def open_transport(node: Node, access: Access, patience: float) -> asyncio.Transport:
    """An open connection whose protocol is to be replaced at once. Takes as long as it takes. Raises StoreError.

    `patience`: seconds that addresses which do not answer may take, if there are others.
    """
    context, lines = access.tls(node), access.greeting(node)
    greeter = _Greeter(len(lines))
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": node.host}
    try:
        peer = await connected_async(node.host, node.port, patience, _tune)
    except (OSError, UnicodeError) as error:
        raise _lost(node, error) from error
    try:
        transport, _ = await loop.create_connection(lambda: greeter, sock=peer, **options)
    except BaseException as error:
        peer.close()
        if isinstance(error, (OSError, ValueError)):
            raise _lost(node, error) from error
        raise
    try:
        if lines:
            transport.write(b"".join(line.packed for line in lines))
            await greeter.done
        access.greeted(node, lines, greeter.replies)
    except OSError as error:
        transport.abort()
        raise _lost(node, error) from error
    except BaseException:
        transport.abort()
        raise
    return transport
