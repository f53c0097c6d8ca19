"""A load client: `python -m session_costs.load PORT PATH COOKIES CONNECTIONS SECONDS`.

COOKIES: one for all connections, or several, separated by spaces, which they share out among them.

Prints answers of status 200 per second, and how many requests failed: were answered otherwise, or not at all. Raw
asyncio protocols that keep their connections, so that the client costs less than any server it asks.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from itertools import cycle, islice
from time import perf_counter
from typing import cast


class Asking(asyncio.Protocol):
    """One connection: the next request leaves when the response before is complete."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.done = self.failed = 0
        self.trouble = ""  # the last one
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, and no subclass
        self._transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self._received = b""
        if head.startswith(b"HTTP/1.1 200"):
            self.done += 1
        else:
            self._fail(head.split(b"\r\n")[0].decode())
        self._transport.write(self.request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"connection lost: {exc}")

    def _fail(self, trouble: str) -> None:
        self.failed += 1
        self.trouble = trouble


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n")[0])


async def load(port: int, path: str, cookies: list[str], connections: int, seconds: float) -> tuple[float, int]:
    """Answers per second, after a fifth of the time as a warm-up, and how many failed in all of it."""
    heads = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode() for cookie in cookies]
    loop = asyncio.get_running_loop()
    protocols = [partial(Asking, head) for head in islice(cycle(heads), connections)]
    opened = [await loop.create_connection(protocol, "127.0.0.1", port) for protocol in protocols]
    asking = [protocol for _, protocol in opened]
    await asyncio.sleep(seconds / 5)
    before, started = sum(one.done for one in asking), perf_counter()
    await asyncio.sleep(seconds)
    rate = (sum(one.done for one in asking) - before) / (perf_counter() - started)
    failed = sum(one.failed for one in asking)
    troubles = [one.trouble for one in asking if one.trouble]
    for transport, _ in opened:
        transport.abort()
    if not rate:
        raise SystemExit(f"no good answer came: {troubles[0] if troubles else 'nor any other'}")
    return rate, failed


def main() -> None:
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    port, path, cookies, connections, seconds = sys.argv[1:]
    print(*run(load(int(port), path, cookies.split(), int(connections), float(seconds))))


if __name__ == "__main__":
    main()
