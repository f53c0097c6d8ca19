"""Pools over upstreams, for both client libraries."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
import httpx2
import pytest

from unsticky._transport.aiohttp_wire import AiohttpTransport
from unsticky.pools import Pools

LIBRARIES = {"httpx": httpx, "httpx2": httpx2, "httpx over aiohttp": httpx, "httpx2 over aiohttp": httpx2}
both = pytest.mark.parametrize("library", ["httpx", "httpx2"])
wires = pytest.mark.parametrize("library", list(LIBRARIES))  # for asyncio
wires_and_loops = pytest.mark.parametrize(
    ("library", "loop"),
    [
        (library, loop)
        for library in LIBRARIES
        for loop in ("asyncio", "trio")
        if loop != "trio" or "over" not in library
    ],
)


@contextmanager
def pools_over(library: str, endpoints: list[Any], **options: Any) -> Generator[Pools]:
    """One pool, "catalog", whose `options` are as in the settings file."""
    client, _, wire = library.partition(" over ")
    settings = {"client": client, "wire": wire or "default", "pools": {"catalog": {"endpoints": endpoints, **options}}}
    with Pools.from_settings(settings) as pools:
        yield pools


def in_flight(pools: Pools) -> int:
    """Leases that are not given back."""
    return sum(status.in_flight for statuses in pools.status().values() for status in statuses)


def busy(inner: Any) -> list[str]:
    """Calls under way, connections that are not idle, and requests that wait for one."""
    found = ["a call"] * inner.busy()
    if isinstance(inner, AiohttpTransport):
        return found + [repr(one) for one in inner._session.connector._acquired]  # type: ignore[union-attr]
    for transport in inner.idle():
        pool = transport._pool
        found += [repr(one) for one in pool.connections if not one.is_idle()] + [repr(one) for one in pool._requests]
    return found
