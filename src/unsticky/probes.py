"""Active health checks: GET `health.path` of every endpoint, in the worker's loop. What they mean is routing's."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import Iterable
from functools import cache, partial

import httpx

from .routing.call import Endpoint
from .routing.pool import Pool
from .telemetry.otel import suppressed
from .telemetry.pool_events import report
from .worker import Hold, worker


class Probes:
    """Checks those of `pools` that have a health path, from now on until `close`."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self._periodic = [
            worker.every(pool.options.health.interval, _Round(pool)) for pool in pools if pool.options.health.path
        ]
        # Pools that were dropped without `close`. In the worker's thread: a finalizer must not take the worker's lock.
        self._dropped = weakref.finalize(self, worker.call_soon, partial(_release, self._periodic))
        self._dropped.atexit = False

    def close(self) -> None:
        self._dropped.detach()
        _release(self._periodic)


def _release(holds: Iterable[Hold]) -> None:
    for hold in holds:
        hold.release()


class _Round:
    """One check of every endpoint of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __call__(self) -> None:
        """A client per round: its connections are new, so that a server that stopped accepting is noticed."""
        endpoints = self._pool.endpoints
        timeout = self._pool.options.health.timeout
        with suppressed():
            async with httpx.AsyncClient(timeout=timeout, trust_env=False, verify=_tls(endpoints)) as client:
                await asyncio.gather(*(self._check(client, endpoint) for endpoint in endpoints))

    async def _check(self, client: httpx.AsyncClient, endpoint: Endpoint) -> None:
        ok = await self._answers(client, endpoint)
        with self._pool.lock:
            self._pool.report_health(endpoint, ok)
        report(self._pool)

    async def _answers(self, client: httpx.AsyncClient, endpoint: Endpoint) -> bool:
        options = self._pool.options.health
        try:
            async with asyncio.timeout(options.timeout):
                async with client.stream("GET", f"{endpoint.url}{options.path}") as response:
                    return response.status_code in options.statuses
        except (httpx.HTTPError, TimeoutError, OSError):
            return False


def _tls(endpoints: Iterable[Endpoint]) -> ssl.SSLContext | bool:
    return _tls_context() if any(endpoint.url.startswith("https:") for endpoint in endpoints) else False


@cache
def _tls_context() -> ssl.SSLContext:
    """Made once, as it takes 20 ms."""
    return httpx.create_ssl_context()
