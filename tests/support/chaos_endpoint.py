"""An endpoint that misbehaves to the byte: a process of its own, to be told how, paused, killed and started again.

Every request is written to a file before anything is done about it, so that a kill loses no count. A request says who
it is in its `x-id` header, and what is answered says so again: an answer to another request is seen.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTROL = "/_control"
OK = b"HTTP/1.1 200 OK\r\n"
DRIPS, PAUSE = 30, 0.05  # bytes one by one, seconds between them; then it goes on as it should


class Endpoint:
    """The process, as tests see it."""

    def __init__(self, log: Path) -> None:
        from .ports import free_port  # the process that this file is has no packages

        self.port = free_port()
        self.paused = False
        self._log = log
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-S", __file__, str(self.port), str(self._log)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout
        assert self.process.stdout.readline(), "it did not start"

    def behave(self, *modes: str) -> None:
        """How to answer from now on: the names of `ANSWERS`, in turn. "asked": as the request's x-fault says."""
        self._control("POST", {"modes": modes})

    def connections(self) -> int:
        """Open now."""
        return int(self._control("GET", None)["connections"])

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    @contextmanager
    def stopped(self) -> Generator[None]:
        """SIGSTOP: the kernel accepts connections, and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _control(self, method: str, body: Any) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, CONTROL, json.dumps(body))
            found: dict[str, Any] = json.loads(connection.getresponse().read())
            return found
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Fleet:
    """Endpoints, and what they were asked."""

    endpoints: list[Endpoint]
    log: Path

    @property
    def urls(self) -> list[str]:
        return [one.url for one in self.endpoints]

    def sent(self) -> Counter[str]:
        """How often each "<METHOD> <x-id>" arrived, at any of them, killed ones included."""
        return Counter(self.log.read_text().splitlines())

    def connections(self) -> int:
        return sum(one.connections() for one in self.endpoints)


@contextmanager
def fleet(count: int, log: Path) -> Generator[Fleet]:
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            found.append(one := Endpoint(log))
            stack.callback(lambda one=one: one.kill())
        yield Fleet(found, log)


# The process ------------------------------------------------------------------


@dataclass
class Asked:
    """One request, and where its answer goes."""

    server: Server
    method: str
    path: str
    headers: Mapping[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def id(self) -> str:
        return self.headers.get("x-id", "")

    @property
    def body(self) -> bytes:
        return b"" if self.method == "HEAD" else json.dumps({"id": self.id, "port": self.server.port}).encode()

    @property
    def length(self) -> int:
        return len(json.dumps({"id": self.id, "port": self.server.port}))

    async def say(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def drip(self, data: bytes) -> None:
        for at in range(min(DRIPS, len(data))):
            await self.say(data[at : at + 1])
            await asyncio.sleep(PAUSE)
        await self.say(data[DRIPS:])

    async def silence(self) -> None:
        """Until the client gives up."""
        await self.reader.read()

    def reset(self) -> None:
        """RST, not FIN."""
        found: socket.socket = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def head(self, *headers: bytes) -> bytes:
        lines = headers or (b"Content-Length: %d" % self.length, b"Content-Type: application/json")
        return OK + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


Answer = Callable[[Asked], Awaitable[bool]]  # whether the connection may be used again
ANSWERS: dict[str, Answer] = {}


def answer(given: Answer) -> Answer:
    ANSWERS[given.__name__] = given
    return given


@answer
async def well(asked: Asked) -> bool:
    await asked.say(asked.head(), asked.body)
    return True


@answer
async def hints(asked: Asked) -> bool:
    """Twenty informational responses before the answer: right, and rare."""
    await asked.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 20, asked.head(), asked.body)
    return True


@answer
async def chunked(asked: Asked) -> bool:
    pieces = b"".join(b"1\r\n" + asked.body[at : at + 1] + b"\r\n" for at in range(len(asked.body)))
    end = b"" if asked.method == "HEAD" else b"0\r\n\r\n"
    await asked.say(asked.head(b"Transfer-Encoding: chunked"), pieces, end)
    return True


@answer
async def until_close(asked: Asked) -> bool:
    """Neither a length nor chunks: right, too."""
    await asked.say(asked.head(b"Connection: close"), asked.body)
    return False


@answer
async def reset_at_once(asked: Asked) -> bool:
    asked.reset()
    return False


@answer
async def reset_in_head(asked: Asked) -> bool:
    await asked.say(asked.head()[:30])
    asked.reset()
    return False


@answer
async def reset_in_body(asked: Asked) -> bool:
    await asked.say(asked.head(b"Content-Length: 5000"), b'{"id"' * 100)
    asked.reset()
    return False


@answer
async def close_at_once(asked: Asked) -> bool:
    return False


@answer
async def close_in_head(asked: Asked) -> bool:
    await asked.say(asked.head()[:30])
    return False


@answer
async def close_in_body(asked: Asked) -> bool:
    """A Content-Length that is too long."""
    await asked.say(asked.head(b"Content-Length: 5000"), asked.body)
    return False


@answer
async def close_in_chunk(asked: Asked) -> bool:
    await asked.say(asked.head(b"Transfer-Encoding: chunked"), b"ff\r\n{")
    return False


@answer
async def surplus(asked: Asked) -> bool:
    """A Content-Length that is too short: what follows is a whole answer to nobody, on a connection that is kept."""
    stray = b'{"id": "stray"}'
    await asked.say(asked.head(), asked.body, OK, b"Content-Length: %d\r\n\r\n" % len(stray), stray)
    return True


@answer
async def drip_head(asked: Asked) -> bool:
    await asked.drip(asked.head())
    await asked.say(asked.body)
    return True


@answer
async def drip_body(asked: Asked) -> bool:
    await asked.say(asked.head())
    await asked.drip(asked.body)
    return True


@answer
async def stall(asked: Asked) -> bool:
    await asked.silence()
    return False


@answer
async def stall_in_head(asked: Asked) -> bool:
    await asked.say(asked.head()[:30])
    await asked.silence()
    return False


@answer
async def stall_in_body(asked: Asked) -> bool:
    await asked.say(asked.head(), asked.body[:1])
    await asked.silence()
    return False


@answer
async def huge_header(asked: Asked) -> bool:
    await asked.say(OK, b"X-Huge: ", b"x" * (1 << 20), b"\r\nContent-Length: 0\r\n\r\n")
    return False


@answer
async def many_headers(asked: Asked) -> bool:
    await asked.say(OK, b"".join(b"X-%d: x\r\n" % n for n in range(50_000)), b"Content-Length: 0\r\n\r\n")
    return False


@answer
async def drip_hints(asked: Asked) -> bool:
    """Informational responses, one by one."""
    for _ in range(DRIPS):
        await asked.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await asyncio.sleep(PAUSE)
    return await well(asked)


@answer
async def garbage(asked: Asked) -> bool:
    await asked.say(b"\x00\xff\xfe\x16\x03\x01 this is no HTTP \r\n\r\n" * 20)
    return False


@answer
async def bad_status(asked: Asked) -> bool:
    await asked.say(b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n")
    return False


@answer
async def bad_length(asked: Asked) -> bool:
    await asked.say(OK, b"Content-Length: -5x\r\n\r\n", asked.body)
    return False


@answer
async def bad_header(asked: Asked) -> bool:
    await asked.say(OK, b"X Bad\x00Name: 1\r\n\r\n")
    return False


@answer
async def bad_chunk(asked: Asked) -> bool:
    await asked.say(asked.head(b"Transfer-Encoding: chunked"), b"zz\r\n{}\r\n0\r\n\r\n")
    return False


@answer
async def storm(asked: Asked) -> bool:
    await asked.say(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\n")
    await asked.say(b"" if asked.method == "HEAD" else b"away")
    return True


class Server:
    def __init__(self, log: str) -> None:
        self.port = 0
        self.modes = ["well"]
        self.counts: Counter[str] = Counter()
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts["accepted"] += 1
        self.counts["connections"] += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.counts["connections"] -= 1
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, path, _ = first.split(" ")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(self, method, path, headers, reader, writer)
        if path == CONTROL:
            return await self._control(asked, body)
        os.write(self._log, f"{method} {asked.id}\n".encode())
        self.counts["requests"] += 1
        mode = self.modes[self.counts["requests"] % len(self.modes)]
        return await ANSWERS[headers.get("x-fault", "well") if mode == "asked" else mode](asked)

    async def _control(self, asked: Asked, body: bytes) -> bool:
        if asked.method == "POST":
            self.modes = json.loads(body)["modes"]
        counts = json.dumps({**self.counts, "connections": self.counts["connections"] - 1}).encode()
        await asked.say(asked.head(b"Content-Length: %d" % len(counts)), counts)
        return False

    async def run(self, port: int) -> None:
        self.port = port
        server = await asyncio.start_server(self.serve, "127.0.0.1", port, backlog=1024)
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(Server(sys.argv[2]).run(int(sys.argv[1])))
