"""Connections per endpoint: how many there are, when they are used again, and when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest

from support.pools import LIBRARIES, both, pools_over
from support.speaker import speaker
from support.upstream import Upstream, upstream, upstreams
from support.waiting import eventually
from unsticky._transport.connections import KEEP, SWEEP, Maker, OneEach, OneForAll
from unsticky.pools import Pools
from unsticky.testing import FakeClock


def test_a_stack_of_transports() -> None:
    """The last one that was given back is the next; what is below is spare once it was not needed for a while."""
    made = iter("abcdef")
    stock = OneEach(lambda: next(made))
    assert [stock.take() for _ in range(3)] == ["a", "b", "c"]
    assert stock.busy() == 3
    assert all(stock.give_back(one, whole=True) for one in "abc")
    assert stock.take() == "c"
    assert stock.spare() == []
    assert not stock.give_back("c", whole=False), "a response that was not read whole"
    assert (stock.take(), stock.take()) == ("b", "a")
    assert all(stock.give_back(one, whole=True) for one in "ab")
    assert stock.spare() == []
    assert stock.take() == "b"
    assert stock.spare() == ["a"], "not needed since"
    assert stock.end() == ["b"]
    assert not stock.give_back("b", whole=True), "it ended meanwhile"


def test_one_transport_for_all() -> None:
    """It is spare when nobody used it for a while."""
    made = iter(("a", "b"))
    stock = OneForAll(lambda: next(made))
    assert (stock.take(), stock.take()) == ("a", "a")
    assert stock.give_back("a", whole=False)
    assert (stock.spare(), stock.spare()) == ([], []), "one is under way"
    assert stock.give_back("a", whole=True)
    assert stock.spare() == ["a"]
    assert stock.take() == "b"
    assert stock.end() == ["b"]
    assert not stock.give_back("b", whole=True)


@pytest.mark.parametrize("name", ["HTTPTransport", "AsyncHTTPTransport"])
@both
def test_how_long_a_connection_rests(library: str, name: str) -> None:
    """Until it is swept, unless the caller has it otherwise: those of a peak of calls are not made anew."""
    ours = import_module(f"unsticky.{library}").PoolTransport.library
    assert Maker(ours, name, {})(secure=False)()._pool._keepalive_expiry == KEEP >= 2 * SWEEP
    limits = LIBRARIES[library].Limits(keepalive_expiry=2)
    assert Maker(ours, name, {"limits": limits})(secure=False)()._pool._keepalive_expiry == 2


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


@contextmanager
def pools_with_clock(library: str, endpoints: list[Upstream], clock: FakeClock) -> Generator[Pools]:
    urls = [one.url for one in endpoints]
    options = {"endpoints": urls, "balancer": "round_robin"}
    with Pools.from_settings({"client": library, "pools": {"catalog": options}}) as pools:
        pools.clock = clock
        yield pools


def open_now(one: Upstream) -> int:
    found: int = one.seen()["connections"]
    return found


@both
def test_no_new_connection_in_steady_state(library: str, two: list[Upstream]) -> None:
    """Calls one after another use one connection per endpoint, in threads and on event loops."""

    async def main(pools: Pools) -> None:
        async with pools.async_client() as client:
            for _ in range(20):
                assert (await client.get("http://catalog/")).status_code == 200
            assert [open_now(one) for one in two] == [1, 1]

    with pools_with_clock(library, two, FakeClock()) as pools:
        with pools.client() as client:
            for _ in range(20):
                assert client.get("http://catalog/").status_code == 200
            assert [open_now(one) for one in two] == [1, 1]
        for one in two:
            eventually(lambda one=one: open_now(one) == 0)  # type: ignore[misc]
        asyncio.run(main(pools))


@both
def test_an_endpoint_that_left(library: str, two: list[Upstream]) -> None:
    """Its connections are closed by later calls to others; also those that many calls at a time needed."""
    clock = FakeClock()

    async def main(pools: Pools) -> None:
        async with pools.async_client() as client:
            for one in two:
                one.behave("echo", delay=0.05)
            await asyncio.gather(*(client.get("http://catalog/") for _ in range(20)))
            served = pools.find("http", "catalog", None)
            assert served is not None
            with served.pool.lock:
                served.pool.replace([one for one in served.pool.endpoints if one.url == two[1].url])
            for _ in range(3):
                clock.advance(11)
                await client.get("http://catalog/")
            eventually(lambda: open_now(two[0]) == 0)
            eventually(lambda: open_now(two[1]) == 1)

    with pools_with_clock(library, two, clock) as pools:
        asyncio.run(main(pools))


@both
def test_limits_are_per_endpoint(library: str) -> None:
    """With limits of the caller's own, each endpoint has so many connections."""
    names = LIBRARIES[library]
    options: dict[str, Any] = {"endpoints": [], "balancer": "round_robin", "retry": {"attempts": 1}}

    async def main(pools: Pools) -> None:
        async with pools.async_client(limits=names.Limits(max_connections=2), timeout=20) as client:
            await asyncio.gather(*(client.get("http://catalog/") for _ in range(12)))

    with upstream() as first, upstream() as second:
        options["endpoints"] = [first.url, second.url]
        for one in (first, second):
            one.behave("echo", delay=0.02)
        with Pools.from_settings({"client": library, "pools": {"catalog": options}}) as pools:
            asyncio.run(main(pools))
        assert [one.seen()["requests"] for one in (first, second)] == [6, 6]
        assert all(one.seen()["accepted"] <= 6 for one in (first, second))


STRAY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"


def says_too_much(request: bytes) -> bytes:
    """The answer, with the last word of the request, and a whole one that nobody asked for."""
    word = request.split(b"\r\n", 1)[0].split(b"/")[1].split(b" ")[0]
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(word), word) + STRAY


@both
def test_an_answer_to_nobody_is_not_the_next_callers(library: str) -> None:
    """A length that is too short, or a second answer, is not taken for the response to the next request."""
    with speaker(says_too_much) as port, pools_over(library, [f"http://127.0.0.1:{port}"]) as pools:
        with pools.client() as client:
            assert [client.get(f"http://catalog/{word}").text for word in "abc"] == list("abc")

        async def main() -> None:
            async with pools.async_client() as client:
                assert [(await client.get(f"http://catalog/{word}")).text for word in "abc"] == list("abc")

        asyncio.run(main())
