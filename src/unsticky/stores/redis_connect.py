"""How a connection to a Redis server begins: TCP, TLS, and a greeting that says who we are."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, cast

from ..clock import SystemClock
from ..errors import StoreError
from .redis_resp import (
    PARTIAL,
    SHORT,
    SHORT_REPLIES,
    ErrorReply,
    LostError,
    ReplyError,
    ReplyParser,
    late,
    nonsense,
    pack,
    refusal,
    whole_reply,
)
from .redis_route import Node
from .redis_url import RedisTarget

_READ = 65536  # bytes
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
# A peer that is gone without a word, behind a router that forgot us, is noticed while we are idle.
_ALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 3))
_monotonic = SystemClock.monotonic  # deadlines of sockets: the system keeps them, whatever Clock is given
_log = logging.getLogger("unsticky.stores")


@dataclass(frozen=True, slots=True)
class Line:
    """A part of the greeting. What is `asked` must not be refused; the rest is good to know."""

    packed: bytes
    asked: bool = True
    secret: bool = False


class Access:
    """Who we are, and whom we trust, for every server that one URL leads to."""

    def __init__(self, target: RedisTarget) -> None:
        self._target = target
        self._context: ssl.SSLContext | None = None
        self._inspected: set[Node] = set()

    def greeting(self, node: Node) -> list[Line]:
        """What is said first, in one write."""
        target = self._target
        if node.sentinel:
            return _credentials(target.sentinel_username, target.sentinel_password)
        lines = _credentials(target.username, target.password)
        if target.db:
            lines.append(Line(pack("SELECT", target.db)))
        if target.client_name:
            lines.append(Line(pack("CLIENT", "SETNAME", target.client_name)))
        if node not in self._inspected:
            lines.append(Line(pack("INFO", "memory"), asked=False))
        return lines

    def greeted(self, node: Node, lines: Sequence[Line], replies: Sequence[Any]) -> None:
        """Judge the replies to a greeting. Raises StoreError."""
        if len(lines) != len(replies):
            raise nonsense()
        for line, reply in zip(lines, replies, strict=True):
            if line.asked and type(reply) is ErrorReply:
                if line.secret:
                    raise StoreError("Redis store: the server refused our name or password")
                raise refusal(reply.code)
            if not line.asked:
                self._inspected.add(node)
                _warn_of_eviction(reply)

    def tls(self, node: Node) -> ssl.SSLContext | None:
        """None: plain TCP. The files are read at first use. Raises StoreError."""
        if not (self._target.sentinel_tls if node.sentinel else self._target.tls):
            return None
        if self._context is None:
            try:
                self._context = _context(self._target.tls_options)
            except (OSError, ValueError) as error:  # SSLError is an OSError
                name = type(error).__name__
                raise StoreError(f"Redis store: a file of the TLS options can't be used ({name})") from error
        return self._context


def _credentials(username: str | None, password: str | None) -> list[Line]:
    if password is None:
        return []
    words = ["AUTH", password] if username is None else ["AUTH", username, password]
    return [Line(pack(*map(str, words)), secret=True)]


def _context(options: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    verify = options.get("ssl_cert_reqs", "required")
    context.check_hostname = verify != "none" and options.get("ssl_check_hostname", "yes") == "yes"
    context.verify_mode = _VERIFY[verify]
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context


def _warn_of_eviction(reply: Any) -> None:
    """All sessions have an expiry, so every policy but one may drop them. INFO may be forbidden: then we don't know."""
    _, found, rest = reply.partition(b"\nmaxmemory_policy:") if type(reply) is bytes else (b"", b"", b"")
    policy = rest.split(b"\r", 1)[0]
    if found and policy != b"noeviction":
        _log.warning(
            'Redis store: the server has maxmemory-policy "%s": short of memory, it drops sessions of users who are '
            'logged in. Set it to "noeviction"',
            policy.decode(errors="replace"),
        )


def _lost(node: Node, error: Exception) -> LostError:
    reason = getattr(error, "strerror", None) or type(error).__name__
    message = f"Redis store: can't connect to {node.host}:{node.port}: {reason}"
    return LostError(message, sent=False, opening=True)


def _left(deadline: float) -> float:
    """Seconds until `deadline`, a time of SystemClock.monotonic. Raises TimeoutError when there are none."""
    left = deadline - _monotonic()
    if left <= 0:
        raise TimeoutError
    return left


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
            self._peer.settimeout(_left(deadline))
        elif not self._poll.poll(ceil(_left(deadline) * 1000)):  # type: ignore[union-attr]
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
            self._peer.settimeout(_left(deadline))
            return self._peer.send(data)
        try:
            return self._peer.send(data)
        except BlockingIOError:
            room = select.poll()
            room.register(self._peer, select.POLLOUT)
            room.poll(ceil(_left(deadline) * 1000))
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
        raw.settimeout(_left(deadline))
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
            peer.settimeout(_left(deadline) / (1 if place == len(addresses) else 2))
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
        found = answer.get(timeout=_left(deadline))
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
