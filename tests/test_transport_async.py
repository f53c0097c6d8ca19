"""Calls from event loops over pools of real servers. What is decided is tested with the sync driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest
import trio

from support.pools import LIBRARIES, in_flight, pools_over, wires, wires_and_loops
from support.ports import free_port
from support.upstream import Upstream, upstreams
from support.waiting import eventually
from unsticky import errors
from unsticky.worker import Worker

NOWAIT = {"backoff": 0}


def run(loop: str, main: Any) -> Any:
    return asyncio.run(main()) if loop == "asyncio" else trio.run(main)


@pytest.fixture
def three() -> Generator[list[Upstream]]:
    with upstreams(3) as found:
        yield found


@wires_and_loops
def test_calls_are_spread(library: str, loop: str, three: list[Upstream]) -> None:
    """Every endpoint serves its share, and other hosts are passed through."""

    async def main() -> None:
        async with pools.async_client() as client:
            answers = [await client.get("http://catalog/items") for _ in range(6)]
            assert sorted(answer.json()["port"] for answer in answers) == sorted([one.port for one in three] * 2)
            assert str(answers[0].request.url) == "http://catalog/items"
            assert answers[0].extensions["unsticky"]["attempts"] == 1
            assert (await client.get(f"{three[1].url}/")).json()["port"] == three[1].port
        assert in_flight(pools) == 0

    with pools_over(library, [one.url for one in three], balancer="round_robin") as pools:
        run(loop, main)


@wires_and_loops
def test_broken_endpoints(library: str, loop: str, three: list[Upstream]) -> None:
    """Killed, dropping and busy endpoints cost a retry; a POST that was sent is not repeated."""

    async def main() -> None:
        async with pools.async_client() as client:
            for mode, options in (("drop", {}), ("garbage", {}), ("status", {"status": 503})):
                three[0].behave(mode, **options)
                answer = await client.get("http://catalog/")
                assert answer.json()["port"] == three[1].port
                assert answer.extensions["unsticky"]["attempts"] == 2
            three[0].behave("drop")
            with pytest.raises(LIBRARIES[library].RemoteProtocolError):
                await client.post("http://catalog/", content=b"x")
            three[0].kill()
            assert (await client.post("http://catalog/", content=parts())).json()["body"] == "ab"
        assert in_flight(pools) == 0

    async def parts() -> AsyncGenerator[bytes]:
        yield b"a"
        yield b"b"

    urls = [{"url": three[0].url}, {"url": three[1].url, "priority": 1}]
    with pools_over(library, urls, retry=NOWAIT) as pools:
        run(loop, main)


@wires_and_loops
def test_timeouts(library: str, loop: str, three: list[Upstream]) -> None:
    """An attempt that takes too long is left for another endpoint; the whole call ends in time."""

    async def main() -> None:
        async with pools.async_client() as client:
            answer = await client.get("http://catalog/")
            assert answer.json()["port"] == three[1].port
            with pytest.raises(LIBRARIES[library].ReadTimeout):
                await client.post("http://catalog/")
            three[1].pause()
            with pytest.raises(errors.CallTimeout) as caught:
                await client.get("http://catalog/", extensions={"unsticky": {"timeout": 0.4}})
            assert isinstance(caught.value, LIBRARIES[library].TimeoutException)
            assert 1 <= len(caught.value.attempts) <= 2
        assert in_flight(pools) == 0

    three[0].pause()
    urls = [{"url": three[0].url}, {"url": three[1].url, "priority": 1}]
    with pools_over(library, urls, retry={**NOWAIT, "attempt_timeout": "300ms"}) as pools:
        run(loop, main)


@wires_and_loops
def test_dripping_headers_end_in_time(library: str, loop: str) -> None:
    """A server that sends its headers byte by byte does not outlive the attempt's timeout."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        try:
            for _ in range(200):
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve() -> asyncio.Server:
        return await asyncio.start_server(drip, "127.0.0.1", 0)

    async def main() -> None:
        async with pools.async_client() as client:
            with pytest.raises(errors.CallTimeout):
                await client.get("http://catalog/")

    worker = Worker()
    hold = worker.hold()
    server = worker.submit(serve()).result(5)
    port = server.sockets[0].getsockname()[1]
    with pools_over(library, [f"http://127.0.0.1:{port}"], timeout="500ms") as pools:
        run(loop, main)
    worker.call_soon(server.close)
    hold.release()
    worker.close()


@wires_and_loops
def test_bodies(library: str, loop: str, three: list[Upstream]) -> None:
    """Streams keep their lease until closed; truncated ones raise, give it back and count against the endpoint."""

    async def main() -> None:
        async with pools.async_client() as client:
            three[0].behave("slow", seconds=0.4, chunks=2)
            assert (await client.get("http://catalog/")).text == "x" * 20
            async with client.stream("GET", "http://catalog/") as response:
                assert in_flight(pools) == 1
                if loop == "asyncio":  # under trio the libraries' own generators warn when they are left in the middle
                    chunks = response.aiter_raw()
                    assert await anext(chunks) == b"x" * 10
                    assert in_flight(pools) == 1
                    await chunks.aclose()
            assert in_flight(pools) == 0
            three[0].behave("truncated")
            for _ in range(2):
                with pytest.raises(LIBRARIES[library].RemoteProtocolError):
                    await client.get("http://catalog/")
            assert in_flight(pools) == 0
            assert (await client.get("http://catalog/")).json()["port"] == three[1].port

    urls = [{"url": three[0].url}, {"url": three[1].url, "priority": 1}]
    ejection = {"consecutive_failures": 2, "maximum_percent": 100}
    with pools_over(library, urls, retry={"attempt_timeout": "300ms"}, ejection=ejection) as pools:
        run(loop, main)


@wires
def test_all_endpoints_down(library: str) -> None:
    """One exception of both families names every attempt."""

    async def main() -> None:
        async with pools.async_client() as client:
            with pytest.raises(errors.AttemptsFailed) as caught:
                await client.get("http://catalog/x")
            assert isinstance(caught.value, LIBRARIES[library].ConnectError)
            assert len(caught.value.attempts) == 3

    with pools_over(library, [f"http://127.0.0.1:{free_port()}" for _ in range(3)], retry=NOWAIT) as pools:
        asyncio.run(main())


@wires
def test_a_transport_of_the_callers_own(library: str) -> None:
    """MockTransport as the innermost hop."""
    names = LIBRARIES[library]

    async def main() -> None:
        transport = names.MockTransport(lambda request: names.Response(200, json={"url": str(request.url)}))
        async with pools.async_client(transport=transport) as client:
            assert (await client.get("http://catalog/x")).json() == {"url": "http://a:1/x"}
        assert in_flight(pools) == 0

    with pools_over(library, ["http://a:1"]) as pools:
        asyncio.run(main())


@wires
def test_one_client_serves_several_loops(library: str, three: list[Upstream]) -> None:
    """Each event loop has connections of its own, and they end with it."""

    async def main() -> None:
        assert (await client.get("http://catalog/")).status_code == 200
        assert (await client.get("http://catalog/")).status_code == 200

    with pools_over(library, [three[0].url]) as pools:
        client = pools.async_client()
        for _ in range(3):
            asyncio.run(main())
            eventually(lambda: three[0].seen()["connections"] == 0)
        if "over" not in library:
            trio.run(main)
        else:
            with pytest.raises(RuntimeError, match="needs asyncio"):
                trio.run(main)
        eventually(lambda: three[0].seen()["connections"] == 0)
        assert three[0].seen()["requests"] == (6 if "over" in library else 8)
        assert not client._transport._loops.inner


@wires
def test_kill_one_of_three_under_200_concurrent_calls(library: str, three: list[Upstream]) -> None:
    """SIGKILL in the middle of 200 concurrent idempotent calls: none fails."""
    for one in three:
        one.behave("echo", delay=0.02)

    async def main() -> None:
        async with pools.async_client(timeout=60) as client:
            done = 0

            async def call() -> None:
                nonlocal done
                for _ in range(5):
                    assert (await client.get("http://catalog/")).status_code == 200
                    done += 1

                    if done == 100:
                        three[0].kill()

            await asyncio.gather(*(call() for _ in range(200)))
            assert done == 1000
        assert in_flight(pools) == 0

    with pools_over(library, [one.url for one in three]) as pools:
        asyncio.run(main())
