"""The wire `aiohttp`: what comes and goes looks as over the library's own connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from support.pools import LIBRARIES, in_flight, pools_over, wires
from support.upstream import upstream
from unsticky import Pools
from unsticky.errors import SettingsError

ANSWER = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    b"HTTP/1.1 200 Very Well\r\nX-Case: 1\r\nx-case: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
    b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
)


async def served(answer: bytes, call: Callable[[str], Awaitable[None]]) -> bytes:
    """What one call to a server that answers so has sent."""
    seen = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen = await reader.readuntil(b"\r\n\r\n")
        if b"chunked" in seen.lower():
            seen += await reader.readuntil(b"0\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        await call(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    return seen


@wires
def test_headers_as_they_are(library: str) -> None:
    """Order and doubles stay, up and down; interim responses are passed over; nothing is added or decoded."""

    async def call(url: str) -> None:
        with pools_over(library, [url]) as pools:
            async with pools.async_client() as client:
                headers = [("X-Mine", "1"), ("x-mine", "2"), ("Cookie", "c=3")]
                async with client.stream("GET", "http://catalog/a%2Fb?q=%7E", headers=headers) as response:
                    raw = b"".join([chunk async for chunk in response.aiter_raw()])
                assert (raw, response.status_code, response.reason_phrase) == (b"abc", 200, "Very Well")
                assert response.http_version == "HTTP/1.1"
                assert response.headers.raw[:2] == [(b"X-Case", b"1"), (b"x-case", b"2")]
                assert dict(response.cookies) == {"a": "1", "b": "2"}

    sent = asyncio.run(served(ANSWER, call))
    assert sent.startswith(b"GET /a%2Fb?q=%7E HTTP/1.1\r\n")
    assert b"x-mine: 1\r\nx-mine: 2\r\ncookie: c=3\r\n" in sent.lower()
    names = [line.partition(b":")[0].lower() for line in sent.split(b"\r\n")[1:-2]]
    ours = b"traceparent"  # where another test has set up an SDK
    assert sorted(name for name in names if name != ours) == sorted(
        [b"host", b"accept", b"accept-encoding", b"connection", b"user-agent", b"x-mine", b"x-mine", b"cookie"]
    )


@wires
def test_a_body_in_parts(library: str) -> None:
    """It is chunked, and said so once; one with a length is not."""

    async def parts() -> AsyncGenerator[bytes]:
        yield b"ab"
        yield b"c"

    async def call(url: str) -> None:
        with pools_over(library, [url]) as pools:
            async with pools.async_client() as client:
                answer = await client.post("http://catalog/", content=parts())
                assert (answer.status_code, answer.content) == (204, b"")

    sent = asyncio.run(served(b"HTTP/1.1 204 No Content\r\n\r\n", call))
    assert sent.lower().count(b"transfer-encoding: chunked") == 1
    assert sent.endswith(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")


@wires
def test_calls_of_all_kinds(library: str) -> None:
    """HEAD has no body; an empty POST says so; a failing generator's exception comes out; one connection does it."""

    async def failing() -> AsyncGenerator[bytes]:
        yield b"a"
        raise ZeroDivisionError

    async def main() -> None:
        async with pools.async_client() as client:
            head = await client.head("http://catalog/")
            assert (head.status_code, head.content) == (200, b"")
            assert (await client.post("http://catalog/")).json()["headers"]["content-length"] == "0"
            assert (await client.put("http://catalog/", content=b"x" * 300_000)).json()["body"] == "x" * 300_000
            assert one.seen()["connections"] == 1
            with pytest.raises(ZeroDivisionError):
                await client.put("http://catalog/", content=failing())
            with pytest.raises(LIBRARIES[library].LocalProtocolError):
                await client.get("http://catalog/", headers={"x": "a\nb"})
            one.behave("redirect", to="/there")
            assert (await client.get("http://catalog/here")).status_code == 302
            assert (await client.get(f"{one.url}/there")).status_code == 200
        assert in_flight(pools) == 0

    with upstream() as one, pools_over(library, [one.url], retry={"attempts": 1}) as pools:
        asyncio.run(main())


@pytest.mark.parametrize("client", ["httpx", "httpx2"])
def test_what_the_wire_can_not_do(client: str) -> None:
    """It is said where the client is made; sync clients have no other wire."""
    names = LIBRARIES[client]
    settings: dict[str, Any] = {"client": client, "pools": {"catalog": {"endpoints": ["http://a:1"]}}}
    with Pools.from_settings(settings) as pools:
        for options in ({"http2": True}, {"proxy": "http://p:1"}, {"limits": names.Limits(max_connections=1)}):
            with pytest.raises(ValueError, match=f'{next(iter(options))}: .*wire = "aiohttp"'):
                pools.async_client(wire="aiohttp", **options)
        with pytest.raises(ValueError, match='expected "default" or "aiohttp"'):
            pools.async_client(wire="tin")
    with Pools.from_settings({**settings, "wire": "aiohttp"}) as pools:
        pools.client(limits=names.Limits(max_connections=1)).close()
    with pytest.raises(SettingsError, match="wire"):
        Pools.from_settings({**settings, "wire": "tin"})


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"])
@wires
def test_an_upload_that_is_given_up_does_not_linger(library: str, answer: bytes) -> None:
    """Its connection is cut at once, before an answer or during one: what is not sent yet is not sent to the end."""
    size, received = 50_000_000, 0
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        begun.set()
        await go_on.wait()
        try:
            while part := await reader.read(1_000_000):
                received += len(part)
        except ConnectionError:
            pass
        finally:
            ended.set()
            writer.transport.abort()

    async def parts() -> AsyncGenerator[bytes]:
        yield b"x" * size

    async def upload(client: Any) -> None:
        async with client.stream("POST", "http://catalog/", content=parts()) as response:
            await response.aread()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pools_over(library, [url], retry={"attempts": 1}) as pools:
                async with pools.async_client() as client:
                    task = asyncio.create_task(upload(client))
                    await begun.wait()
                    await asyncio.sleep(0.1)  # by now all buffers on the way are full
                    task.cancel()
                    await asyncio.wait([task])
                    assert task.cancelled()
                    go_on.set()
                    await asyncio.wait_for(ended.wait(), 30)
                assert in_flight(pools) == 0

    asyncio.run(main())
    assert received < size
