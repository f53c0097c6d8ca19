"""Concurrency limits over real connections."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import unsticky
from support.pools import LIBRARIES, both, in_flight, pools_over, wires
from support.upstream import upstream
from support.waiting import eventually


@both
def test_a_call_too_many_fails_at_once(library: str) -> None:
    """Until a body is closed; the error is the library's PoolTimeout too, and nothing of the call was sent."""
    with (
        upstream() as one,
        pools_over(library, [one.url], limits={"maximum_in_flight": 1}) as pools,
        pools.client() as client,
    ):
        with client.stream("GET", "http://catalog/first"):
            with pytest.raises(unsticky.PoolOverflow, match=r"limits\.maximum_in_flight is reached") as caught:
                client.post("http://catalog/second")
            assert isinstance(caught.value, LIBRARIES[library].PoolTimeout)
            assert type(caught.value).__module__ == f"unsticky.{library}"
            assert str(caught.value.request.url) == "http://catalog/second"  # type: ignore[attr-defined]
        assert client.get("http://catalog/third").status_code == 200
        assert one.seen()["requests"] == 2
        assert in_flight(pools) == 0


@both
def test_fifty_threads_and_five_places(library: str) -> None:
    """Five calls are served, the others fail while those wait."""
    with (
        upstream() as one,
        pools_over(library, [one.url], limits={"maximum_in_flight_per_endpoint": 5}) as pools,
        pools.client() as client,
    ):
        one.behave("echo", delay=1)

        def call(_: int) -> int | str:
            try:
                return int(client.get("http://catalog/").status_code)
            except unsticky.PoolOverflow:
                return "full"

        with ThreadPoolExecutor(50) as threads:
            results = list(threads.map(call, range(50)))
        assert results.count(200) == 5 == one.seen()["requests"]
        assert results.count("full") == 45


@wires
def test_tasks_and_places(library: str) -> None:
    """The same on an event loop; a cancelled call gives its place back."""

    async def run(client: Any, pools: Any) -> None:
        async with client:
            waiting = asyncio.create_task(client.get("http://catalog/slow"))
            await asyncio.to_thread(eventually, lambda: in_flight(pools))
            with pytest.raises(unsticky.PoolOverflow):
                await client.get("http://catalog/")
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            one.behave("echo")
            assert (await client.get("http://catalog/")).status_code == 200

    with upstream() as one, pools_over(library, [one.url], limits={"maximum_in_flight": 1}) as pools:
        one.behave("hang")
        asyncio.run(run(pools.async_client(), pools))
        assert in_flight(pools) == 0
