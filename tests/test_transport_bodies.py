"""Bodies that are read before they are handed out: one that breaks off is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest
import trio

from support.pools import LIBRARIES, both, in_flight, pools_over
from support.upstream import Upstream, upstreams
from unsticky import errors
from unsticky.pools import Pools

NOWAIT = {"backoff": 0, "buffer_body": 10_000}
drivers = pytest.mark.parametrize("driver", ["sync", "asyncio", "trio"])


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


def first_then_second(two: list[Upstream]) -> list[Any]:
    return [{"url": two[0].url}, {"url": two[1].url, "priority": 1}]


def send(pools: Pools, driver: str, method: str = "GET", **given: Any) -> Any:
    """One call, as a stream that is then read."""

    async def main() -> Any:
        async with pools.async_client() as client, client.stream(method, "http://catalog/", **given) as response:
            before = in_flight(pools)
            await response.aread()
            return response, before

    if driver != "sync":
        return asyncio.run(main()) if driver == "asyncio" else trio.run(main)
    with pools.client() as client, client.stream(method, "http://catalog/", **given) as response:
        before = in_flight(pools)
        response.read()
        return response, before


@both
@drivers
def test_a_broken_body_is_tried_again(library: str, driver: str, two: list[Upstream]) -> None:
    """On another endpoint; the first one has it counted once, beside headers that were fine."""
    two[0].behave("truncated")
    with pools_over(library, first_then_second(two), retry=NOWAIT) as pools:
        response, before = send(pools, driver)
        assert response.json()["port"] == two[1].port
        assert response.extensions["unsticky"]["attempts"] == 2
        assert before == in_flight(pools) == 0  # all of it was there when it was handed out
        states = pools._pools["catalog"]._states
        assert [state.broken_bodies for state in states.values()] == [1, 0]


@both
@drivers
def test_without_the_option_it_is_the_callers_trouble(library: str, driver: str, two: list[Upstream]) -> None:
    """And for what can't be repeated, or is asked not to be."""
    two[0].behave("truncated")
    with pools_over(library, first_then_second(two), retry=NOWAIT) as pools:
        for method, extensions in (("POST", {}), ("GET", {"buffer_body": 0}), ("GET", {"retry": False})):
            with pytest.raises(LIBRARIES[library].RemoteProtocolError):
                send(pools, driver, method, extensions={"unsticky": extensions})
        assert in_flight(pools) == 0
    with pools_over(library, first_then_second(two)) as pools:
        response, _ = send(pools, driver, extensions={"unsticky": {"buffer_body": 10_000}})
        assert response.extensions["unsticky"]["attempts"] == 2


@both
@drivers
@pytest.mark.parametrize(("limit", "held"), [(1000, 0), (100, 0), (99, 1), (25, 1)])
def test_longer_bodies_are_handed_out_as_they_come(
    library: str, driver: str, limit: int, held: int, two: list[Upstream]
) -> None:
    """Its length says so before, here."""
    two[0].behave("slow", seconds=0.01)
    with pools_over(library, [two[0].url], retry={**NOWAIT, "buffer_body": limit}) as pools:
        response, before = send(pools, driver)
        assert response.content == b"x" * 100
        assert (before, in_flight(pools)) == (held, 0)


@both
@drivers
@pytest.mark.parametrize(("limit", "held"), [(1000, 0), (25, 1)])
def test_bodies_of_unknown_length(library: str, driver: str, limit: int, held: int, two: list[Upstream]) -> None:
    """What was read of a longer one comes first, then the rest, which is not there yet."""
    two[0].behave("chunked", chunks=10, seconds=0.01)
    with pools_over(library, [two[0].url], retry={**NOWAIT, "buffer_body": limit}) as pools:
        response, before = send(pools, driver)
        assert response.content == b"".join(b"%010d" % number for number in range(10))
        assert (before, in_flight(pools)) == (held, 0)


@both
@drivers
def test_streams_of_events_are_never_waited_for(library: str, driver: str, two: list[Upstream]) -> None:
    """Their reader wants the first event."""
    two[0].behave("chunked", chunks=3, headers={"Content-Type": "text/event-stream"})
    with pools_over(library, [two[0].url], retry=NOWAIT) as pools:
        _, before = send(pools, driver)
        assert before == 1


@both
@drivers
def test_deadlines_hold_while_reading(library: str, driver: str, two: list[Upstream]) -> None:
    """A body that drips is late for its attempt, and at last for the call."""
    two[0].behave("slow", seconds=0.1)
    with pools_over(library, first_then_second(two), retry={**NOWAIT, "attempt_timeout": "400ms"}) as pools:
        response, _ = send(pools, driver)
        assert response.json()["port"] == two[1].port
        two[1].behave("slow", seconds=0.1)
        with pytest.raises(errors.CallTimeout):
            send(pools, driver, extensions={"unsticky": {"timeout": 0.6}})
        assert in_flight(pools) == 0


@both
@drivers
def test_compressed_bodies_stay_as_they_are(library: str, driver: str, two: list[Upstream]) -> None:
    """The library decodes what it gets, as ever."""
    two[0].behave("gzip")
    with pools_over(library, [two[0].url], retry=NOWAIT) as pools:
        response, before = send(pools, driver)
        assert (response.text, before) == ("unpacked", 0)
