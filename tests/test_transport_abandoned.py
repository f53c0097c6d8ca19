"""Attempts on event loops that nobody waits for any more: what they may still do, and how they count."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from support.pools import LIBRARIES, both, in_flight, pools_over, wires
from support.upstream import Upstream, upstream

CHUNK = 10_000
ORIGINAL = b"".join(b"%05d" % number * (CHUNK // 5) for number in range(1200))


class Receiver:
    """A server that reads uploads once `gate` is set, with `pace` seconds between reads, and keeps what it got."""

    def __init__(self, buffer: int | None = None) -> None:
        self.gate = threading.Event()
        self.begins: Callable[[], None] = lambda: None  # called when it reads
        self.pace = 0.0
        self.bodies: list[bytes] = []
        self._closing = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        if buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)  # of connections, too
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                head, body = self._head(connection)
                if not head:
                    return
                self.bodies.append(self._rest(connection, head, body))

    def _head(self, connection: socket.socket) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(4096)):
                return b"", b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        return head.lower(), body

    def _rest(self, connection: socket.socket, head: bytes, begun: bytes) -> bytes:
        body = bytearray(begun)
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        self.gate.wait(30)
        self.begins()
        try:
            while len(body) < length and (more := connection.recv(65536)):
                body.extend(more)
                self._closing.wait(self.pace)
            if len(body) == length:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        except ConnectionError:
            pass
        return bytes(body)

    def close(self) -> None:
        self.gate.set()
        self._closing.set()
        socket.create_connection(self._socket.getsockname()).close()
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def receivers() -> Generator[list[Receiver]]:
    with ExitStack() as stack:
        found = [Receiver(1 << 16), Receiver()]  # the second one takes what it gets in few steps
        for one in found:
            stack.callback(one.close)
        yield found


@contextmanager
def blackhole() -> Generator[str]:
    """An endpoint whose backlog is full: connecting takes for ever."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def one() -> Generator[Upstream]:
    with upstream() as found:
        yield found


@wires
def test_a_retried_upload_arrives_whole(library: str, receivers: list[Receiver]) -> None:
    """The late attempt reads no more of the caller's file, which the next one sends from its start."""
    slow, fast = receivers

    def both_read() -> None:
        slow.pace = 0.002

    slow.pace, fast.pace = 0.1, 0.005  # too slow, until the other one reads
    fast.begins = both_read
    slow.gate.set()
    fast.gate.set()

    async def main(file: Any) -> None:
        async with pools.async_client() as client:
            answer = await client.put("http://catalog/", files={"f": file})
            assert answer.extensions["unsticky"]["attempts"] == 2
            async with asyncio.timeout(20):  # aiohttp's connections close when what was written is read
                while not (fast.bodies and slow.bodies):  # noqa: ASYNC110 - kept by threads, after they answered
                    await asyncio.sleep(0.01)
        assert in_flight(pools) == 0

    urls = [{"url": slow.url}, {"url": fast.url, "priority": 1}]
    retry = {"attempt_timeout": "8s", "attempts": 2, "backoff": 0}
    with tempfile.TemporaryFile() as file, pools_over(library, urls, retry=retry) as pools:
        file.write(ORIGINAL)
        file.seek(0)
        asyncio.run(main(file))
    assert ORIGINAL in fast.bodies[0]
    assert len(slow.bodies[0]) < len(ORIGINAL)


@wires
def test_nobody_reads_the_body_of_a_caller_who_left(library: str, receivers: list[Receiver]) -> None:
    """After a cancellation the caller's generator is asked for nothing."""
    pulled = 0

    async def parts() -> AsyncGenerator[bytes]:
        nonlocal pulled
        for _ in range(2000):
            pulled += 1
            yield b"x" * CHUNK

    async def main() -> None:
        async with pools.async_client() as client:
            headers = {"content-length": str(2000 * CHUNK)}
            call = asyncio.create_task(client.post("http://catalog/", content=parts(), headers=headers))
            before = 0
            while not pulled or pulled != before:  # until the buffers are full
                before = pulled
                await asyncio.sleep(0.1)
            call.cancel()
            await asyncio.wait([call])
            assert before < 2000
            receivers[0].gate.set()
            await asyncio.sleep(0.3)
            assert pulled == before
        assert in_flight(pools) == 0

    with pools_over(library, [receivers[0].url]) as pools:
        asyncio.run(main())


@wires
def test_a_body_that_waits_is_cancelled_with_its_caller(library: str, receivers: list[Receiver]) -> None:
    """A generator that awaits something of its own is interrupted at once."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def parts() -> AsyncGenerator[bytes]:
        try:
            yield b"x"
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def main() -> None:
        async with pools.async_client() as client:
            headers = {"content-length": "2"}
            call = asyncio.create_task(client.post("http://catalog/", content=parts(), headers=headers))
            await asyncio.wait_for(begun.wait(), 10)
            call.cancel()
            await asyncio.wait_for(ended.wait(), 1)
            await asyncio.wait([call])

    receivers[0].gate.set()
    with pools_over(library, [receivers[0].url]) as pools:
        asyncio.run(main())


@wires
def test_a_post_is_repeated_when_connecting_took_too_long(library: str, one: Upstream) -> None:
    """Nothing was sent, as with the sync client."""

    async def main() -> None:
        async with pools.async_client() as client:
            answer = await client.post("http://catalog/", content=b"x")
            assert (answer.json()["body"], answer.extensions["unsticky"]["attempts"]) == ("x", 2)

    with blackhole() as url:
        urls = [{"url": url}, {"url": one.url, "priority": 1}]
        with pools_over(library, urls, retry={"attempt_timeout": "200ms", "backoff": 0}) as pools:
            asyncio.run(main())
            with pools.client() as client:
                assert client.post("http://catalog/", content=b"x").extensions["unsticky"]["attempts"] == 2


@both
def test_want_of_local_connections_ejects_nobody(library: str, one: Upstream) -> None:
    """With `limits`, a call that gets no connection raises PoolTimeout, and the endpoint stays."""
    names = LIBRARIES[library]

    async def main() -> None:
        async with pools.async_client(limits=names.Limits(max_connections=1)) as client:
            async with client.stream("GET", "http://catalog/"):
                for _ in range(6):
                    with pytest.raises(names.PoolTimeout):
                        await client.get("http://catalog/")
            assert (await client.get("http://catalog/")).status_code == 200

    one.behave("slow", seconds=0.5, chunks=2, times=1)
    with pools_over(library, [one.url], retry={"attempt_timeout": "50ms", "attempts": 1}) as pools:
        asyncio.run(main())
        assert pools.status()["catalog"][0].ejected_for == 0


@both
def test_a_timeout_that_is_no_number(library: str) -> None:
    """NaN seconds are refused."""
    with (
        pools_over(library, ["http://a:1"]) as pools,
        pools.client() as client,
        pytest.raises(ValueError, match="abov"),
    ):
        client.get("http://catalog/", extensions={"unsticky": {"timeout": float("nan")}})
