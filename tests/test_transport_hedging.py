"""Hedged calls over real servers, on asyncio and trio: who answers, and that nothing is left of the losers."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Generator
from random import Random
from typing import Any

import anyio
import pytest
import trio

from support.otlp import Telemetry
from support.pools import LIBRARIES, both, in_flight, pools_over
from support.upstream import Upstream, upstreams
from support.waiting import eventually

loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])
SOON = {"after": "50ms"}


def run(loop: str, main: Any) -> Any:
    return asyncio.run(main()) if loop == "asyncio" else trio.run(main)


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


def first_then_second(two: list[Upstream]) -> list[Any]:
    return [{"url": two[0].url}, {"url": two[1].url, "priority": 1}]


def busy(client: Any) -> list[str]:
    """Calls under way, connections that are not idle, and requests that wait for one."""
    ((inner, _),) = client._transport._loops.inner.values()
    found = ["a call"] * inner.busy()
    for transport in inner.idle():
        pool = transport._pool
        found += [repr(one) for one in pool.connections if not one.is_idle()] + [repr(one) for one in pool._requests]
    return found


async def settle(client: Any, pools: Any) -> None:
    """What ends in the background has ended. httpx's sends go on for a while, so that no connection is lost."""
    with anyio.fail_after(20):
        while busy(client) or in_flight(pools) or client._transport._open:  # noqa: ASYNC110 - left tasks have no event
            await anyio.sleep(0.01)


@both
@loops
def test_a_slow_endpoint_is_hedged(library: str, loop: str, two: list[Upstream]) -> None:
    """The other endpoint answers long before; the loser is cancelled and nobody's fault."""
    two[0].behave("echo", delay=3)

    async def main() -> None:
        async with pools.async_client() as client:
            with anyio.fail_after(2.5):
                answer = await client.get("http://catalog/")
            assert answer.json()["port"] == two[1].port
            assert answer.extensions["unsticky"]["attempts"] == 2
            assert in_flight(pools) == 0
            await settle(client, pools)
        assert all(status.ejected_for == 0 for status in pools.status()["catalog"])

    ejection = {"consecutive_failures": 1}
    with pools_over(library, first_then_second(two), hedge=SOON, ejection=ejection) as pools:
        run(loop, main)


@both
@loops
def test_a_quick_endpoint_is_not(library: str, loop: str, two: list[Upstream]) -> None:
    """One request each."""

    async def main() -> None:
        async with pools.async_client() as client:
            for _ in range(5):
                assert (await client.get("http://catalog/")).extensions["unsticky"]["attempts"] == 1

    with pools_over(library, first_then_second(two), hedge={"after": "5s"}) as pools:
        run(loop, main)
    assert "requests" not in two[1].seen()


@both
@loops
def test_failures_while_another_is_in_flight(library: str, loop: str, two: list[Upstream]) -> None:
    """The hedge fails at once, and the slow first attempt is still the answer."""
    two[0].behave("echo", delay=0.6)

    async def main() -> None:
        async with pools.async_client() as client:
            for mode, options in (("drop", {}), ("status", {"status": 503}), ("status", {"status": 500})):
                two[1].behave(mode, **options)
                answer = await client.get("http://catalog/")
                assert (answer.status_code, answer.json()["port"]) == (200, two[0].port)
            await settle(client, pools)

    with pools_over(library, first_then_second(two), hedge=SOON, retry={"attempts": 2}) as pools:
        run(loop, main)


@both
@loops
def test_a_timeout_while_another_is_in_flight(library: str, loop: str, two: list[Upstream]) -> None:
    """Each attempt has its own time; the call's bounds both."""
    for one in two:
        one.pause()

    async def main() -> None:
        async with pools.async_client() as client:
            with pytest.raises(LIBRARIES[library].TimeoutException) as caught:
                await client.get("http://catalog/")
            assert len(caught.value.attempts) == 2  # type: ignore[attr-defined]
            assert in_flight(pools) == 0

    retry = {"attempts": 2, "attempt_timeout": "1s"}
    with pools_over(library, first_then_second(two), hedge=SOON, retry=retry, timeout="1200ms") as pools:
        run(loop, main)


@both
@loops
@pytest.mark.parametrize(
    "wanted", [{"content": "parts"}, {"files": "file"}, {"extensions": {"unsticky": {"hedge": False}}}]
)
def test_bodies_that_can_not_be_sent_twice_at_once(
    library: str, loop: str, wanted: dict[str, Any], two: list[Upstream], tmp_path: Any
) -> None:
    """Generators, and files, which have one position; nor a call that wants none."""
    two[0].behave("echo", delay=0.3)
    (tmp_path / "file").write_bytes(b"abc")

    async def parts() -> AsyncGenerator[bytes]:
        yield b"abc"

    async def main() -> None:
        with (tmp_path / "file").open("rb") as file:
            given = (
                {"content": parts()} if "content" in wanted else {"files": {"f": file}} if "files" in wanted else wanted
            )
            async with pools.async_client() as client:
                answer = await client.put("http://catalog/", **given)
                assert answer.extensions["unsticky"]["attempts"] == 1

    with pools_over(library, first_then_second(two), hedge=SOON) as pools:
        run(loop, main)
    assert "requests" not in two[1].seen()


@both
def test_sync_clients_do_not_hedge(library: str, two: list[Upstream]) -> None:
    """They can't wait for two sockets."""
    two[0].behave("echo", delay=0.3)
    with pools_over(library, first_then_second(two), hedge=SOON) as pools, pools.client() as client:
        assert client.get("http://catalog/").extensions["unsticky"]["attempts"] == 1


@both
@loops
def test_hedges_are_told_apart(library: str, loop: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """The second span says that it is a hedge, and the loser's that it was cancelled, which is no error."""
    two[0].behave("echo", delay=1)

    async def main() -> None:
        async with pools.async_client() as client:
            await client.get("http://catalog/")
            await settle(client, pools)

    with pools_over(library, first_then_second(two), hedge=SOON) as pools:
        run(loop, main)
    first, second = otlp.spans()
    assert (first.status, first.attributes["unsticky.cancelled"]) == ("UNSET", True)
    assert "unsticky.hedge" not in first.attributes
    assert (second.attributes["unsticky.hedge"], second.attributes["http.request.resend_count"]) == (True, 1)
    assert second.attributes["http.response.status_code"] == 200
    assert first.start < second.start < first.end


@both
@loops
def test_a_cancelled_call_takes_all_its_attempts_along(library: str, loop: str, two: list[Upstream]) -> None:
    """Both are in flight when the caller goes."""
    for one in two:
        one.behave("echo", delay=1)

    async def main() -> None:
        async with pools.async_client() as client:
            with anyio.move_on_after(0.5) as scope:
                await client.get("http://catalog/")
            assert scope.cancelled_caught
            assert in_flight(pools) == 0
            await settle(client, pools)

    with pools_over(library, first_then_second(two), hedge=SOON) as pools:
        run(loop, main)
    assert [one.seen()["requests"] for one in two] == [1, 1]


@both
@loops
def test_hundreds_of_hedged_calls_cancelled_at_random(library: str, loop: str, two: list[Upstream]) -> None:
    """Wherever a call is cut, nothing of it is left: no lease, no connection, no task."""
    two[0].behave("echo", delay=0.01)
    two[1].behave("slow", seconds=0.002, delay=0.004)
    random = Random(5)

    async def main() -> None:
        async with pools.async_client() as client:
            gate = anyio.Semaphore(20)

            async def call() -> None:
                async with gate:
                    with anyio.move_on_after(random.random() * 0.06):
                        options = {"unsticky": {"buffer_body": random.choice([0, 50, 1000])}}
                        await client.request(random.choice(["GET", "PUT"]), "http://catalog/", extensions=options)

            async with anyio.create_task_group() as group:
                for _ in range(400):
                    group.start_soon(call)
            await settle(client, pools)
            if loop == "asyncio":
                with anyio.fail_after(20):
                    while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            gc.collect()

    hedge = {"after": "5ms", "maximum": 2}
    with pools_over(library, [one.url for one in two], hedge=hedge, retry={"budget_per_second": 1000}) as pools:
        run(loop, main)
        assert pools._pools["catalog"].tally.hedges > 20
    eventually(lambda: sum(one.seen()["connections"] for one in two) == 0)
