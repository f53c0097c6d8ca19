"""Endpoints that cost as little as they can: `python -m routing_costs.upstream AMOUNT` prints their ports.

One process serves them all. `GET /_accepted` tells how many connections they accepted.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.request import urlopen

from routing_costs.nothing import BODY

ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    + BODY
)


@dataclass(frozen=True, slots=True)
class Upstreams:
    ports: list[int]

    @property
    def origins(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def accepted(self) -> int:
        """Connections by now, but for those of this question."""
        with urlopen(f"{self.origins[0]}/_accepted") as response:
            return int(response.read())


@contextmanager
def upstreams(amount: int) -> Generator[Upstreams]:
    command = [sys.executable, "-m", "routing_costs.upstream", str(amount)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield Upstreams(json.loads(process.stdout.readline()))
        finally:
            process.terminate()


class _Answering(asyncio.Protocol):
    accepted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._received = b""
        _Answering.accepted += 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            if head.startswith(b"GET /_accepted"):
                _Answering.accepted -= 1
                told = b"%d" % _Answering.accepted
                self._transport.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told))
                self._transport.close()
            else:
                self._transport.write(ANSWER)


async def _serve(amount: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(_Answering, "127.0.0.1", 0, backlog=1024) for _ in range(amount)]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    run(_serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
