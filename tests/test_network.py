"""The streams below httpcore, over real sockets: what they read, what they refuse, and when they give up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import ModuleType

import httpcore
import httpcore2
import httpx
import httpx2
import pytest
import uvloop

from unsticky._transport import network
from unsticky._transport.network import Backend, Stream

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LIBRARIES = [httpcore, httpcore2]


@asynccontextmanager
async def connected(serve: Client, core: ModuleType = httpcore, host: str = "127.0.0.1") -> AsyncGenerator[Stream]:
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        stream = await Backend(core, core.AnyIOBackend()).connect_tcp(host, port, timeout=5)
        try:
            yield stream
        finally:
            await stream.aclose()


async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo one line, and close."""
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_is_written_comes_back_in_parts_and_then_nothing(run: Callable[..., None], host: str) -> None:
    """On both event loops, to an address and to a name of several; nothing is the end."""

    async def main() -> None:
        async with connected(say, host=host) as stream:
            assert stream.get_extra_info("server_addr")[0] == "127.0.0.1"
            assert not stream.get_extra_info("is_readable")
            await stream.write(b"")
            await stream.write(b"abcdef\n", timeout=5)
            assert await stream.read(4, timeout=5) == b"abcd"
            assert await stream.read(4, timeout=5) == b"ef\n"
            assert await stream.read(4, timeout=5) == b""
            assert stream.get_extra_info("is_readable")

    run(main())


@pytest.mark.parametrize("core", LIBRARIES)
def test_silence_is_a_read_timeout_of_the_library(core: ModuleType) -> None:
    """And the stream can still be read afterwards, as after a read that was cancelled."""

    async def main() -> None:
        async with connected(say, core) as stream:
            with pytest.raises(core.ReadTimeout):
                await stream.read(10, timeout=0.01)
            reading = asyncio.ensure_future(stream.read(10))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            await stream.write(b"a\n")
            assert await stream.read(10, timeout=5) == b"a\n"

    asyncio.run(main())


@pytest.mark.parametrize("core", LIBRARIES)
def test_a_peer_that_takes_nothing_is_a_write_timeout(core: ModuleType) -> None:
    """Writing waits when more is under way than the connection holds."""
    stop = asyncio.Event()

    async def take_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.close()

    async def main() -> None:
        async with connected(take_nothing, core) as stream:
            with pytest.raises(core.WriteTimeout):
                await stream.write(b"x" * 30_000_000, timeout=0.05)
            stop.set()

    asyncio.run(main())


def test_a_peer_that_sends_much_waits_until_it_is_read() -> None:
    """No more is kept than a quarter of a megabyte, and what is read is whole."""
    size = 20_000_000

    async def send_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * size)
        await writer.drain()
        writer.close()

    async def main() -> None:
        async with connected(send_much) as stream:
            await asyncio.sleep(0.05)
            assert stream._size < 1_000_000
            got = 0
            while data := await stream.read(65536, timeout=5):
                got += len(data)
            assert got == size

    asyncio.run(main())


def test_a_reset_is_an_error_for_who_reads_and_who_writes() -> None:
    """Nothing is taken for an end that is none."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def main() -> None:
        async with connected(reset) as stream:
            with pytest.raises(httpcore.ReadError):
                await stream.read(10, timeout=5)
            with pytest.raises(httpcore.WriteError):
                await stream.write(b"a")
            assert stream.get_extra_info("is_readable")

    asyncio.run(main())


@pytest.mark.parametrize("core", LIBRARIES)
def test_who_does_not_connect_is_named_as_the_library_names_it(core: ModuleType) -> None:
    """A refused connection, and one that nobody answers: a listener whose queue is full."""

    async def main() -> None:
        backend = Backend(core, core.AnyIOBackend())
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with pytest.raises(core.ConnectError):
                await backend.connect_tcp("127.0.0.1", bound.getsockname()[1], timeout=5)
        with socket.socket() as full, socket.socket() as one, socket.socket() as two:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for waiting in (one, two):
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            with pytest.raises(core.ConnectTimeout):
                await backend.connect_tcp("127.0.0.1", full.getsockname()[1], timeout=0.1)

    asyncio.run(main())


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_transports_take_it_and_others_are_left_alone(library: ModuleType) -> None:
    """If a version of the library keeps its backend elsewhere, this fails, and users only lose speed."""
    straight = library.AsyncHTTPTransport()
    network.use(straight)
    assert isinstance(straight._pool._network_backend, Backend)
    through = library.AsyncHTTPTransport(proxy="http://127.0.0.1:1")
    network.use(through)
    assert not isinstance(through._pool._network_backend, Backend)
    network.use(library.MockTransport(lambda request: library.Response(200)))
