"""Which calls are tried again, as requests and responses say, over real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from support.pools import both, in_flight, pools_over
from support.upstream import Upstream, upstreams
from unsticky.pools import Pools

NOWAIT = {"backoff": 0}
drivers = pytest.mark.parametrize("driver", ["sync", "async"])


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


def first_then_second(two: list[Upstream]) -> list[Any]:
    return [{"url": two[0].url}, {"url": two[1].url, "priority": 1}]


def send(pools: Pools, driver: str, method: str, **given: Any) -> Any:
    async def main() -> Any:
        async with pools.async_client() as client:
            return await client.request(method, "http://catalog/", **given)

    if driver == "async":
        return asyncio.run(main())
    with pools.client() as client:
        return client.request(method, "http://catalog/", **given)


@both
@drivers
@pytest.mark.parametrize(
    ("method", "headers", "extensions", "retry", "status"),
    [
        ("POST", {}, {}, {}, 503),
        ("POST", {"idempotency-key": '"8e03978e"'}, {}, {}, 200),
        ("PATCH", {"Idempotency-Key": "8e03978e"}, {}, {}, 200),
        ("POST", {"Idempotency-Key": ""}, {}, {}, 503),
        ("POST", {"Idempotency-Key": "8e03978e"}, {}, {"idempotency_key": False}, 503),
        ("POST", {"Idempotency-Key": "8e03978e"}, {"idempotent": False}, {}, 503),
        ("POST", {}, {"idempotent": True}, {}, 200),
        ("GET", {}, {"idempotent": False}, {}, 503),
    ],
)
def test_what_counts_as_idempotent(
    library: str, driver: str, method: str, headers: Any, extensions: Any, retry: Any, status: int, two: list[Upstream]
) -> None:
    """The method, the Idempotency-Key header, or what the call says."""
    two[0].behave("status", status=503)
    with pools_over(library, first_then_second(two), retry={**NOWAIT, **retry}) as pools:
        answer = send(pools, driver, method, headers=headers, content=b"x", extensions={"unsticky": extensions})
        assert answer.status_code == status
        assert answer.extensions["unsticky"]["attempts"] == (2 if status == 200 else 1)
        assert in_flight(pools) == 0


@both
@drivers
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Retry-After": "9"}, 503),
        ({"X-Envoy-RateLimited": "true"}, 503),
        ({"Grpc-Retry-Pushback-Ms": "-1"}, 503),
        ({"Grpc-Retry-Pushback-Ms": "1"}, 200),
        ({"X-RateLimit-Reset": "9"}, 503),
        ({"X-RateLimit-Reset": "0"}, 200),
    ],
)
def test_what_servers_say(library: str, driver: str, headers: Any, status: int, two: list[Upstream]) -> None:
    """Headers in any case, of either library."""
    two[0].behave("status", status=503, headers=headers)
    retry = {**NOWAIT, "reset_headers": ["X-RateLimit-Reset"]}
    with pools_over(library, first_then_second(two), retry=retry) as pools:
        assert send(pools, driver, "GET").status_code == status
