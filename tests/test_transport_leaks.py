"""Nothing is left of calls that are cancelled, or whose responses are dropped: no lease, no connection, no task."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Generator
from random import Random
from typing import Any

import anyio
import pytest

from support.pools import LIBRARIES, both, busy, in_flight, pools_over, wires, wires_and_loops
from support.upstream import Upstream, upstreams
from support.waiting import eventually
from unsticky.pools import Pools
from unsticky.worker import worker


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


def below(client: Any) -> Any:
    """What is below the only event loop's transport."""
    ((inner, _),) = client._transport._loops.inner.values()
    return inner


def drop_unread(client: Any, number: int) -> None:
    client.send(client.build_request("GET", "http://catalog/"), stream=True)


def drop_half_read(client: Any, number: int) -> None:
    response = client.send(client.build_request("GET", "http://catalog/"), stream=True)
    if number % 3:
        next(response.iter_raw(4))


@both
@pytest.mark.parametrize("drop", [drop_unread, drop_half_read])
def test_2000_responses_dropped_unread(library: str, drop: Callable[[Any, int], None], two: list[Upstream]) -> None:
    """Responses that nobody closes give everything back when they are garbage collected, without another call."""
    with pools_over(library, [one.url for one in two]) as pools, pools.client() as client:
        for number in range(2000):
            drop(client, number)
        gc.collect()
        transport: Any = client._transport
        eventually(lambda: in_flight(pools) == 0)
        eventually(lambda: not transport._bodies.open)
        eventually(lambda: not busy(transport._inner))
        idle = len(transport._inner.idle())
        eventually(lambda: sum(one.seen()["connections"] for one in two) <= idle)
        assert idle < 10
    assert not worker.running


@both
def test_a_body_that_breaks_off(library: str, two: list[Upstream]) -> None:
    """Its caller lets the error go without closing, or keeps it: all is given back at once."""
    two[0].behave("truncated")
    with pools_over(library, [two[0].url]) as pools, pools.client() as client:
        response = client.send(client.build_request("POST", "http://catalog/"), stream=True)
        with pytest.raises(LIBRARIES[library].RemoteProtocolError):
            response.read()
        assert in_flight(pools) == 0
        assert not client._transport._bodies.open
        assert not busy(client._transport._inner)


@wires
def test_a_body_that_breaks_off_on_a_loop(library: str, two: list[Upstream]) -> None:
    two[0].behave("truncated")

    async def main() -> None:
        async with pools.async_client() as client:
            response = await client.send(client.build_request("POST", "http://catalog/"), stream=True)
            with pytest.raises(LIBRARIES[library].RemoteProtocolError):
                await response.aread()
            assert in_flight(pools) == 0
            assert not client._transport._open
            assert not busy(below(client))

    with pools_over(library, [two[0].url]) as pools:
        asyncio.run(main())


@both
def test_dropped_in_threads(library: str, two: list[Upstream]) -> None:
    """The garbage collector may run in any thread, in the middle of another call, without a deadlock."""
    with pools_over(library, [one.url for one in two]) as pools, pools.client() as client:
        before = gc.get_threshold()
        gc.set_threshold(7)  # as often as possible, so that it runs inside of every lock

        def call() -> None:
            for number in range(100):
                drop_half_read(client, number)

        threads = [threading.Thread(target=call, daemon=True) for _ in range(8)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
        finally:
            gc.set_threshold(*before)
        gc.collect()
        transport: Any = client._transport
        eventually(lambda: in_flight(pools) == 0 and not transport._bodies.open and not busy(transport._inner))


@both
def test_a_dropped_client(library: str, two: list[Upstream]) -> None:
    """A client that is dropped without being closed does not keep the worker's thread."""
    with pools_over(library, [two[0].url]) as pools:
        client = pools.client()
        assert client.get("http://catalog/").status_code == 200
        assert worker.running
        for transport in client._transport._inner.end():  # the sockets would warn
            transport.close()
        del transport
        del client
        gc.collect()
        eventually(lambda: not worker.running)


async def cancelled_calls(client: Any, pools: Pools, seed: int, calls: int) -> None:
    """`calls` calls, each cancelled at some moment between before its start and after its end."""
    random = Random(seed)
    gate = asyncio.Semaphore(40)

    async def call(number: int) -> None:
        method = random.choice(["GET", "PUT", "POST"])
        async with client.stream(method, "http://catalog/", content=b"x" * random.choice([0, 10])) as response:
            if number % 4:
                await response.aread()

    async def cancelled(number: int) -> None:
        async with gate:
            task = asyncio.create_task(call(number))
            for _ in range(random.choice([0, 1, 2, 3, 5, 8, 13, 21, 34, 55])):
                await asyncio.sleep(0)
            if random.random() < 0.5:
                await asyncio.sleep(random.random() * 0.05)
            task.cancel()
            await asyncio.wait([task])

    await asyncio.gather(*(cancelled(number) for number in range(calls)))


async def settled(condition: Callable[[], object]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("still not so")


@wires
@pytest.mark.parametrize("options", [{}, {"timeout": "40ms", "retry": {"attempt_timeout": "15ms", "backoff": "2ms"}}])
def test_2000_calls_cancelled_at_random_moments(library: str, options: dict[str, Any], two: list[Upstream]) -> None:
    """Wherever a call is cancelled, nothing of it is left: no lease, no connection, no task."""
    two[0].behave("echo", delay=0.005)
    two[1].behave("slow", seconds=0.002)

    async def main() -> None:
        async with pools.async_client() as client:
            await cancelled_calls(client, pools, seed=9, calls=2000)
            transport: Any = client._transport
            await settled(lambda: len(asyncio.all_tasks()) == 1)
            gc.collect()
            assert in_flight(pools) == 0
            assert not transport._open
            inner = below(client)
            assert not busy(inner)
            for one in two:
                one.behave("echo")
            assert (await client.get("http://catalog/", extensions={"unsticky": {"timeout": 5}})).status_code == 200
        await settled(lambda: len(asyncio.all_tasks()) == 1)

    with pools_over(library, [one.url for one in two], **options) as pools:
        asyncio.run(main())
    eventually(lambda: sum(one.seen()["connections"] for one in two) == 0)


@wires_and_loops
def test_calls_cancelled_by_scopes(library: str, loop: str, two: list[Upstream]) -> None:
    """Cancel scopes, which cancel again and again until they are left, leave nothing behind either."""
    two[0].behave("echo", delay=0.005)
    two[1].behave("slow", seconds=0.002)
    random = Random(7)

    async def main() -> None:
        async with pools.async_client() as client:
            gate = anyio.Semaphore(20)

            async def call() -> None:
                async with gate:
                    with anyio.move_on_after(random.random() * 0.05):
                        await client.request(random.choice(["GET", "PUT", "POST"]), "http://catalog/")

            async with anyio.create_task_group() as group:
                for _ in range(400):
                    group.start_soon(call)
            transport: Any = client._transport
            inner = below(client)
            with anyio.fail_after(20):
                while busy(inner) or in_flight(pools) or transport._open:  # noqa: ASYNC110 - left tasks have no event
                    await anyio.sleep(0.005)

    with pools_over(library, [one.url for one in two]) as pools:
        anyio.run(main, backend=loop)


@wires
def test_async_responses_dropped_unread(library: str, two: list[Upstream]) -> None:
    """Dropped responses are closed in their event loop."""

    async def main() -> None:
        async with pools.async_client() as client:
            for number in range(300):
                response = await client.send(client.build_request("GET", "http://catalog/"), stream=True)
                if number % 3 == 0:
                    chunks = response.aiter_raw(4)
                    await anext(chunks)
                    await chunks.aclose()
                del response
            gc.collect()
            transport: Any = client._transport
            await settled(lambda: len(asyncio.all_tasks()) == 1 and not transport._open)
            assert in_flight(pools) == 0
            inner = below(client)
            assert not busy(inner)

    with pools_over(library, [one.url for one in two]) as pools:
        asyncio.run(main())


@wires
def test_an_abandoned_call_has_an_end(library: str, two: list[Upstream]) -> None:
    """A cancelled call to an endpoint that never answers leaves no task behind, even without any timeout."""
    two[0].pause()

    async def main() -> None:
        async with pools.async_client(timeout=None) as client:
            task = asyncio.create_task(client.get("http://catalog/"))
            await settled(lambda: in_flight(pools) == 1)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert in_flight(pools) == 0
            await settled(lambda: len(asyncio.all_tasks()) == 1)
            inner = below(client)
            assert not busy(inner)

    with pools_over(library, [two[0].url]) as pools:
        asyncio.run(main())


@wires
@pytest.mark.parametrize("steps", range(4))
def test_a_close_that_is_cancelled(library: str, steps: int, two: list[Upstream]) -> None:
    """A body that is half read is closed by somebody who is cancelled meanwhile: its connection is not lost."""
    two[0].behave("slow", seconds=0.2)

    async def main() -> None:
        async with pools.async_client() as client:
            response = await client.send(client.build_request("GET", "http://catalog/"), stream=True)
            await anext(response.aiter_raw())
            closing = asyncio.create_task(response.aclose())
            for _ in range(steps):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            if not steps:  # it did not begin
                await response.aclose()
            with anyio.fail_after(10):
                while busy(below(client)) or in_flight(pools):  # noqa: ASYNC110 - closing has no event
                    await asyncio.sleep(0.01)
            assert not client._transport._open

    with pools_over(library, [two[0].url]) as pools:
        asyncio.run(main())
