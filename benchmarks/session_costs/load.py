"""A load client: `python -m session_costs.load PORT PATH COOKIE CONNECTIONS SECONDS` prints requests per second.

Raw asyncio protocols that keep their connections, so that the client costs less than any server it asks.
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter
from typing import cast


class Asking(asyncio.Protocol):
    """One connection: the next request leaves when the response before is complete."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.done = 0
        self.failed: str | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, and no subclass
        self._transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.failed = head.split(b"\r\n")[0].decode()
            self._transport.close()
            return
        self._received = b""
        self.done += 1
        self._transport.write(self.request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed = self.failed or f"connection lost: {exc}"


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n")[0])


async def load(port: int, path: str, cookie: str, connections: int, seconds: float) -> float:
    """Requests per second, after a fifth of the time as a warm-up."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: Asking(head), "127.0.0.1", port) for _ in range(connections)]
    asking = [protocol for _, protocol in opened]
    await asyncio.sleep(seconds / 5)
    before, started = sum(one.done for one in asking), perf_counter()
    await asyncio.sleep(seconds)
    rate = (sum(one.done for one in asking) - before) / (perf_counter() - started)
    failures = [one.failed for one in asking if one.failed]
    for transport, _ in opened:
        transport.abort()
    if not rate:
        failures.append("no answer came")
    if failures:
        raise SystemExit(f"{len(failures)} of {connections} connections failed: {failures[0]}")
    return rate


def main() -> None:
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    port, path, cookie, connections, seconds = sys.argv[1:]
    print(run(load(int(port), path, cookie, int(connections), float(seconds))))


if __name__ == "__main__":
    main()
