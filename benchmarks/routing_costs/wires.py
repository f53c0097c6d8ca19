"""Calls over real connections: clients beside each other, and how their cost grows with calls and endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count, cycle
from operator import truediv
from statistics import median
from typing import Any

import aiohttp
import httpx

from routing_costs.functions import functions
from routing_costs.measure import Effort, Figures, Work, interleaved, middle
from routing_costs.upstream import Upstreams, upstreams
from unsticky import Pools

CONCURRENT = 64
PLAIN, WIDE = "httpx.AsyncClient", "httpx.AsyncClient, limits of 256"
DEFAULT, AIOHTTP = "unsticky", 'unsticky, wire = "aiohttp"'
AIOHTTP_ALONE = 'unsticky, wire = "aiohttp", not over a pool'
PEER_AIOHTTP = "aiohttp (not httpx)"
NUMBERS = (1, 4, 16, 64, 256)  # calls at the same time
SIZES = (1, 3, 10, 100)  # endpoints

Get = Callable[[], Awaitable[object]]


def run(effort: Effort, figures: Figures) -> None:
    with upstreams(3) as servers:
        asyncio.run(_beside_each_other(servers, effort, figures))


def run_flat(effort: Effort, figures: Figures) -> None:
    with upstreams(max(SIZES)) as servers:
        asyncio.run(_growing(servers, effort, figures))


async def _beside_each_other(servers: Upstreams, effort: Effort, figures: Figures) -> None:
    async with AsyncExitStack() as stack:
        gets = {
            PLAIN: rotating(await stack.enter_async_context(httpx.AsyncClient()), servers.origins),
            WIDE: rotating(await stack.enter_async_context(httpx.AsyncClient(limits=_WIDE)), servers.origins),
            DEFAULT: await stack.enter_async_context(pooled(servers.origins)),
            AIOHTTP: await stack.enter_async_context(pooled(servers.origins, wire="aiohttp")),
            AIOHTTP_ALONE: await stack.enter_async_context(_alone(servers.origins, wire="aiohttp")),
            PEER_AIOHTTP: await stack.enter_async_context(_aiohttp(servers.origins)),
        }
        works = [Work(name, concurrently(get, CONCURRENT)) for name, get in gets.items()]
        taken = await interleaved(works, effort, "calls")
        figures["calls"], figures["calls, wall"] = middle(taken), middle(taken, "wall")
        figures["connects"] = {
            name: await _connects(servers, get, int(effort.slice * 10_000)) for name, get in gets.items()
        }


_WIDE = httpx.Limits(max_connections=256, max_keepalive_connections=256)


async def _connects(servers: Upstreams, get: Get, amount: int) -> float:
    """New connections per call, of a client that was at it already.

    That is steady when no endpoint gets more calls at once than ever before: which of them are busy is chance, so that
    twice as many calls at a time go first.
    """
    run = concurrently(get, CONCURRENT)
    await concurrently(get, 2 * CONCURRENT)(amount)
    await run(amount)
    before = await asyncio.to_thread(servers.accepted)
    await run(amount)
    return (await asyncio.to_thread(servers.accepted) - before) / amount


async def _growing(servers: Upstreams, effort: Effort, figures: Figures) -> None:
    """Connections that wait for their client's turn are kept: five seconds are soon over on a busy machine."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60)
    figures["flat"], figures["flat, functions"] = {}, {}
    for wire in ("default", "aiohttp"):
        async with AsyncExitStack() as stack:
            gets = {}
            for n in SIZES:
                one = pooled(servers.origins[:n], wire=wire, limits=limits)
                gets[n] = await stack.enter_async_context(one)
            works = [Work(f"{wire}, {endpoints(n)}", concurrently(get, CONCURRENT)) for n, get in gets.items()]
            figures["flat"] |= await _steady(works, effort)
            figures["flat, functions"] |= {work.name: await functions(work.run) for work in works}
            works = [Work(f"{wire}, {calls(n)}", concurrently(gets[3], n)) for n in NUMBERS]
            figures["flat"] |= await _steady(works, effort)


async def _steady(works: list[Work], effort: Effort) -> dict[str, float]:
    """The first in microseconds, and the others by what they take beside it in the same round.

    A slow phase of the machine is longer than a round, and makes all of it slower.
    """
    for work in works:
        await work.run(int(effort.slice * 10_000))  # to have the connections that it needs
    taken = await interleaved(works, effort, "flat")
    first = taken[works[0].name].cpu
    times = {name: median(map(truediv, one.cpu, first)) for name, one in taken.items()}
    return {name: median(first) * more for name, more in times.items()}


def endpoints(number: int) -> str:
    return f"{number} endpoint{'s'[: number != 1]}"


def calls(number: int) -> str:
    return f"{number} call{'s'[: number != 1]}"


def concurrently(get: Get, number: int) -> Callable[[int], Awaitable[None]]:
    """`number` tasks share the calls."""

    async def run(amount: int) -> None:
        left = count(amount, -1)

        async def some() -> None:
            while next(left) > 0:
                await get()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(number, amount)):
                group.create_task(some())

    return run


def rotating(client: httpx.AsyncClient, origins: list[str]) -> Get:
    urls = cycle([f"{origin}/items" for origin in origins])

    async def get() -> None:
        (await client.get(next(urls))).raise_for_status()

    return get


@asynccontextmanager
async def pooled(origins: list[str], **options: Any) -> AsyncGenerator[Get]:
    """Calls over a pool with nothing but its endpoints in the settings."""
    settings = {"pools": {"catalog": {"endpoints": origins}}}
    with Pools.from_settings(settings) as pools:
        async with pools.async_client(**options) as client:
            yield rotating(client, ["http://catalog"])


@asynccontextmanager
async def _alone(origins: list[str], **options: Any) -> AsyncGenerator[Get]:
    """Through the same transport to hosts that are in no pool: all of it but the pool."""
    settings = {"pools": {"catalog": {"endpoints": ["http://10.0.0.1:8000"]}}}
    with Pools.from_settings(settings) as pools:
        async with pools.async_client(**options) as client:
            yield rotating(client, origins)


@asynccontextmanager
async def _aiohttp(origins: list[str]) -> AsyncGenerator[Get]:
    urls = cycle([f"{origin}/items" for origin in origins])
    async with aiohttp.ClientSession() as session:

        async def get() -> None:
            async with session.get(next(urls)) as response:
                response.raise_for_status()
                await response.read()

        yield get
