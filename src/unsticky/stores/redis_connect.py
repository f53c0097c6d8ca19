"""How a connection to a Redis server begins: TCP, TLS, and a greeting that says who we are."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, cast

from ..errors import StoreError
from .redis_access import Access
from .redis_link import Link, seconds_left
from .redis_resp import LostError, ReplyError, ReplyParser, nonsense
from .redis_route import Node

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
        raw = _tcp(node, deadline)
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


def _tcp(node: Node, deadline: float) -> socket.socket:
    """Connect to the first address of the name that answers; each but the last gets half of the time that is left."""
    error: OSError = OSError("no address")
    addresses = _addresses(node, deadline)
    for place, (family, kind, protocol, _, address) in enumerate(addresses, 1):
        peer = socket.socket(family, kind, protocol)
        try:
            peer.settimeout(seconds_left(deadline) / (1 if place == len(addresses) else 2))
            peer.connect(address)
            _tune(peer)
            return peer
        except OSError as failed:
            error = failed
            peer.close()
        except BaseException:
            peer.close()
            raise
    raise error


def _tune(peer: Any) -> None:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE:
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _addresses(node: Node, deadline: float) -> Sequence[Any]:
    """A name is looked up in a thread: getaddrinfo takes as long as it likes."""
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    with suppress(socket.gaierror):
        return socket.getaddrinfo(node.host, node.port, type=socket.SOCK_STREAM, flags=flags)
    answer: SimpleQueue[Any] = SimpleQueue()

    def look_up() -> None:
        try:
            answer.put(socket.getaddrinfo(node.host, node.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.put(error)

    try:
        Thread(target=look_up, name="unsticky-lookup", daemon=True).start()
    except RuntimeError:  # the interpreter ends: no thread can be started any more
        look_up()
    try:
        found = answer.get(timeout=seconds_left(deadline))
    except Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        raise found
    return cast(Sequence[Any], found)


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


async def open_transport(node: Node, access: Access) -> asyncio.Transport:
    """An open connection whose protocol is to be replaced at once. Takes as long as it takes. Raises StoreError."""
    context, lines = access.tls(node), access.greeting(node)
    greeter = _Greeter(len(lines))
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": node.host}
    try:
        transport, _ = await loop.create_connection(lambda: greeter, node.host, node.port, **options)
    except (OSError, UnicodeError, ValueError) as error:
        raise _lost(node, error) from error
    try:
        _tune(transport.get_extra_info("socket"))
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
