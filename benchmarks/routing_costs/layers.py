"""What a pool adds to a call, over a transport that answers at once; beside what others add for retries alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from itertools import count
from typing import Any

import counting
import httpx
from httpx_retries import RetryTransport
from opentelemetry import context
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from routing_costs.functions import functions
from routing_costs.measure import Effort, Figures, Work, interleaved, least
from routing_costs.nothing import answered_at_once
from unsticky import Pools
from unsticky.routing.call import Attempt, Call, Outcome
from unsticky.routing.classify import classify
from unsticky.routing.flow import route
from unsticky.routing.pool import Pool

BARE, POOL, NEW_URL = "httpx.AsyncClient alone", "unsticky", "unsticky, every URL for the first time"
SYNC_BARE, SYNC_POOL = "httpx.Client alone", "unsticky, threads"
RETRIES, TENACITY = "httpx-retries", "tenacity"
FLOW, PICK = "of it: the flow (pick, retries, budget)", "the same call without retries and budget"
COUNTS = "counts for metrics, of a call with a retry"
URL = "http://catalog/items"
SETTINGS = {"pools": {"catalog": {"endpoints": [f"http://10.0.0.{n}:8000" for n in (1, 2, 3)]}}}


@contextmanager
def untraced() -> Generator[None]:
    """Tracing is measured by itself."""
    token = context.attach(context.set_value(context._SUPPRESS_HTTP_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        context.detach(token)


def run(effort: Effort, figures: Figures) -> None:
    with answered_at_once(), untraced(), Pools.from_settings(SETTINGS) as pools:
        figures["layers"] = asyncio.run(_measured(pools, effort))
        figures["layers, functions"] = {POOL: asyncio.run(_functions(pools))}
    counted = counting.measure(rounds=max(1, effort.rounds // 20), calls=2000)
    figures["layers"][COUNTS] = counted["counted, with a retry"] / 1000


async def _measured(pools: Pools, effort: Effort) -> dict[str, float]:
    bare, pooled = httpx.AsyncClient(), pools.async_client()
    retrying = httpx.AsyncClient(transport=RetryTransport(httpx.AsyncHTTPTransport()))
    with httpx.Client() as in_threads, pools.client() as pool_in_threads:
        async with bare, pooled, retrying:
            works = [
                Work(BARE, _calls(bare)),
                Work(POOL, _calls(pooled)),
                Work(NEW_URL, _calls(pooled, new=True)),
                Work(RETRIES, _calls(retrying)),
                Work(TENACITY, _by_tenacity(bare)),
                Work(SYNC_BARE, _sync_calls(in_threads)),
                Work(SYNC_POOL, _sync_calls(pool_in_threads)),
                Work(FLOW, _flows(_alone(pools))),
                Work(PICK, _picks(_alone(pools))),
                Work("new URL alone", _calls(bare, new=True)),
            ]
            return _added(least(await interleaved(works, effort, "layers")))


async def _functions(pools: Pools) -> float:
    """What the pool adds to the client."""
    async with httpx.AsyncClient() as bare, pools.async_client() as pooled:
        return await functions(_calls(pooled)) - await functions(_calls(bare))


def _added(best: dict[str, float]) -> dict[str, float]:
    """Microseconds over the client alone, where it is not the client."""
    over = dict.fromkeys((POOL, RETRIES, TENACITY), BARE) | {SYNC_POOL: SYNC_BARE, NEW_URL: "new URL alone"}
    found = {name: taken - best.get(over.get(name, ""), 0.0) for name, taken in best.items()}
    del found["new URL alone"]
    return found


def _alone(pools: Pools) -> Pool:
    return next(iter(pools._pools.values()))


def _calls(client: httpx.AsyncClient, *, new: bool = False) -> Callable[[int], Awaitable[None]]:
    numbers = count()

    async def run(amount: int) -> None:
        for _ in range(amount):
            await client.get(f"{URL}/{next(numbers)}" if new else URL)

    return run


def _sync_calls(client: httpx.Client) -> Callable[[int], Awaitable[None]]:
    def calls(amount: int) -> None:
        for _ in range(amount):
            client.get(URL)

    async def run(amount: int) -> None:
        calls(amount)

    return run


def _by_tenacity(client: httpx.AsyncClient) -> Callable[[int], Awaitable[None]]:
    retrying = AsyncRetrying(stop=stop_after_attempt(3), retry=retry_if_exception_type(httpx.TransportError))

    async def run(amount: int) -> None:
        for _ in range(amount):
            await retrying(client.get, URL)

    return run


def _flows(pool: Pool) -> Callable[[int], Awaitable[None]]:
    """As a driver goes through it, with nothing sent."""

    async def run(amount: int) -> None:
        for _ in range(amount):
            flow: Any = route(pool, Call("GET", deadline=pool.clock.monotonic() + 1))
            with pool.lock:
                command = flow.send(None)
            try:
                with pool.lock:
                    flow.send(Outcome(command.attempt, 200))
            except StopIteration as end:
                end.value.attempt.lease.release()

    return run


def _picks(pool: Pool) -> Callable[[int], Awaitable[None]]:
    """The least that a pool can be: a call is picked for, and its outcome is noted."""

    async def run(amount: int) -> None:
        for _ in range(amount):
            call = Call("GET", deadline=pool.clock.monotonic() + 1)
            now = pool.clock.monotonic()
            with pool.lock:
                lease = pool.lease(call.key, [], now)
            outcome = Outcome(Attempt(lease.state.endpoint, 0, call.deadline, lease), 200)
            with pool.lock:
                pool.observe(lease, classify(outcome, pool.options.retry.statuses), pool.clock.monotonic())
            outcome.attempt.lease.release()

    return run
