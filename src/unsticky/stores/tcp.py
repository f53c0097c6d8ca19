"""TCP connections in time: names and addresses that do not answer take no more than their share of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, cast

from ..clock import SystemClock

_monotonic = SystemClock.monotonic  # deadlines of sockets: the system keeps them, whatever Clock is given


def seconds_left(deadline: float) -> float:
    """Seconds until `deadline`, a time of SystemClock.monotonic. Raises TimeoutError when there are none."""
    left = deadline - _monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def send_at_once(peer: socket.socket) -> None:
    """Commands are small, and whoever sends one waits for its reply."""
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def connected(
    host: str, port: int, deadline: float, tune: Callable[[socket.socket], None] = send_at_once
) -> socket.socket:
    """Connect to the first address of the name that answers; each but the last gets half of the time that is left.

    Raises TimeoutError, OSError, and UnicodeError for what is no name.
    """
    error: OSError = OSError("no address")
    found = addresses(host, port, deadline)
    for place, (family, kind, protocol, _, address) in enumerate(found, 1):
        try:
            with _made(family, kind, protocol) as peer:
                peer.settimeout(seconds_left(deadline) / (1 if place == len(found) else 2))
                peer.connect(address)
                tune(peer)
            return peer
        except OSError as failed:
            error = failed
    raise error


async def connected_async(
    host: str, port: int, patience: float, tune: Callable[[socket.socket], None] = send_at_once
) -> socket.socket:
    """The same, on an event loop: an address that is not the last one gets half of what is left of `patience` seconds.

    The last one has the time that whoever calls this gives it.
    """
    loop = asyncio.get_running_loop()
    error: OSError = OSError("no address")
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for place, (family, kind, protocol, _, address) in enumerate(found, 1):
        patience /= 2
        try:
            with _made(family, kind, protocol) as peer:
                peer.setblocking(False)
                async with asyncio.timeout(patience if place < len(found) else None):
                    await loop.sock_connect(peer, address)
                tune(peer)
            return peer
        except OSError as failed:  # TimeoutError is one
            error = failed
    raise error


@contextmanager
def _made(family: int, kind: int, protocol: int) -> Iterator[socket.socket]:
    """A socket, which is closed if the body fails."""
    peer = socket.socket(family, kind, protocol)
    try:
        yield peer
    except BaseException:
        peer.close()
        raise


def addresses(host: str, port: int | None, deadline: float) -> Sequence[Any]:
    """getaddrinfo's answer. A name is looked up in a thread: the resolver takes as long as it likes.

    Raises TimeoutError, OSError, UnicodeError.
    """
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    with suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    answer: SimpleQueue[Any] = SimpleQueue()

    def look_up() -> None:
        try:
            answer.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
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
