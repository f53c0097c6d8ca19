"""Rules over real servers: where calls go, and what says so."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any
from uuid import uuid4

import pytest

from support.otlp import Telemetry, telemetry
from support.pools import both
from support.ports import free_port
from support.upstream import Upstream, upstreams
from unsticky import Pools

drivers = pytest.mark.parametrize("driver", ["sync", "async"])


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


def get(pools: Any, driver: str, url: str, **kwargs: Any) -> Any:
    async def main() -> Any:
        async with pools.async_client() as client:
            return await client.get(url, **kwargs)

    if driver == "async":
        return asyncio.run(main())
    with pools.client() as client:
        return client.get(url, **kwargs)


def pools_of(library: str, two: list[Upstream], rules: list[Any], **options: Any) -> Pools:
    first = {"endpoints": [two[0].url], "rules": rules, "retry": {"backoff": 0}, **options}
    return Pools.from_settings({"client": library, "pools": {"main": first, "spare": {"endpoints": [two[1].url]}}})


@both
@drivers
def test_another_pool(library: str, driver: str, two: list[Upstream]) -> None:
    """What is like the rule goes to the other pool, which the response names; all else does not."""
    when = {"method": ["GET"], "path": "/reports/*", "header": {"x-tenant": "big-*"}, "query": {"v": "2"}}
    with pools_of(library, two, [{"when": when, "use_pool": "spare", "name": "big"}]) as pools:
        answer = get(pools, driver, "http://main/reports/1?v=2", headers={"X-Tenant": "big-1"})
        assert answer.json()["port"] == two[1].port
        assert answer.extensions["unsticky"] == {
            "pool": "spare", "endpoint": two[1].address, "attempts": 1, "rule": "big",
        }  # fmt: skip
        assert answer.json()["headers"]["host"] == two[1].address
        other = get(pools, driver, "http://main/reports/1?v=2", headers={"X-Tenant": "small"})
        assert other.json()["port"] == two[0].port
        assert "rule" not in other.extensions["unsticky"]


@both
def test_an_origin_stays_the_host(library: str, two: list[Upstream]) -> None:
    """A call that came by a `match` origin is for that origin, whichever pool serves it."""
    rules = [{"when": {"path": "*"}, "use_pool": "spare"}]
    with pools_of(library, two, rules, match=["http://api.example.com"]) as pools:
        answer = get(pools, "sync", "http://api.example.com/x")
        assert (answer.json()["port"], answer.json()["headers"]["host"]) == (two[1].port, "api.example.com")


@both
@drivers
def test_by_health(library: str, driver: str, two: list[Upstream]) -> None:
    """With too few fit endpoints calls go elsewhere, until there are enough again."""
    endpoints = [f"http://127.0.0.1:{free_port()}", two[0].url]
    rules = [{"when": {"healthy_below": 60}, "use_pool": "spare"}]
    with pools_of(library, two, rules, endpoints=endpoints, ejection={"consecutive_failures": 1}) as pools:
        for _ in range(20):
            answer = get(pools, driver, "http://main/")
            if answer.extensions["unsticky"]["pool"] == "spare":
                break
        assert answer.json()["port"] == two[1].port
        assert [one.eligible for one in pools.explain("main")].count(True) == 1


@both
@drivers
def test_by_error_rate(library: str, driver: str, two: list[Upstream]) -> None:
    """After enough calls that failed; what the other pool answers is not the own pool's."""
    two[0].behave("status", status=500)
    rules = [{"when": {"error_rate_above": 50, "minimum_calls": 3}, "use_pool": "spare"}]
    with pools_of(library, two, rules) as pools:
        statuses = [get(pools, driver, "http://main/").status_code for _ in range(6)]
    assert statuses == [500, 500, 500, 200, 200, 200]


@both
@drivers
def test_an_endpoint_of_the_pool(library: str, driver: str, two: list[Upstream]) -> None:
    """First that one, then the others."""
    rules = [{"when": {"path": "/pinned"}, "use_endpoint": two[1].url}]
    with pools_of(library, two, rules, endpoints=[two[0].url, two[1].url], balancer="round_robin") as pools:
        ports = {get(pools, driver, "http://main/pinned").json()["port"] for _ in range(4)}
        assert ports == {two[1].port}
        two[1].behave("status", status=503)
        assert get(pools, driver, "http://main/pinned").json()["port"] == two[0].port


@both
@drivers
def test_telemetry(library: str, driver: str, two: list[Upstream]) -> None:
    """Each attempt's span says which rule, and a metric counts the calls of each."""
    name = f"rules-{uuid4().hex}"
    pool = {"endpoints": [two[0].url], "rules": [{"when": {"path": "/x"}, "use_pool": "spare"}]}
    settings = {"client": library, "pools": {name: pool, "spare": {"endpoints": [two[1].url]}}}

    def counted(otlp: Telemetry) -> list[Any]:
        points = otlp.points("unsticky.pool.rules")
        return [(p.attributes["unsticky.rule"], p.value) for p in points if p.attributes["unsticky.pool"] == name]

    with telemetry() as otlp, Pools.from_settings(settings) as pools:
        get(pools, driver, f"http://{name}/x")
        get(pools, driver, f"http://{name}/y")
        first, second = otlp.spans()
        assert counted(otlp) == [("0", 1)]
    assert (first.attributes["unsticky.rule"], first.attributes["unsticky.pool"]) == ("0", "spare")
    assert "unsticky.rule" not in second.attributes
