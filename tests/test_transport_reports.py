"""Load reports in the headers of real responses, through both clients."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from support.pools import both, pools_over
from support.upstream import upstreams
from support.waiting import eventually
from unsticky.pools import Pools

REPORTS = {"enabled": True, "blackout": 0, "update_period": "100ms"}


def weights(pools: Pools) -> list[float]:
    return [round(status.weight, 2) for status in pools.status()["catalog"]]


def calls(pools: Pools, count: int = 30) -> list[int]:
    """How many each endpoint got, in the pool's order."""
    with pools.client() as client:
        seen = Counter(client.get("http://catalog/").extensions["unsticky"]["endpoint"] for _ in range(count))
    return [seen[status.endpoint.address] for status in pools.status()["catalog"]]


@both
@pytest.mark.parametrize(
    "headers",
    [
        [{"endpoint-load-metrics": "TEXT cpu_utilization=0.2, rps_fractional=90"},
         {"endpoint-load-metrics": "TEXT cpu_utilization=0.4, rps_fractional=90"}],
        [{"Endpoint-Load-Metrics": 'JSON {"cpu_utilization": 0.25, "rps_fractional": 100}'},
         {"endpoint-load-metrics-bin": "CQAAAAAAAOA/MQAAAAAAAFlA", "endpoint-load-metrics": "junk"}],
    ],
    ids=["text", "json and legacy"],
)  # fmt: skip
def test_reports_weigh_endpoints(library: str, headers: list[dict[str, str]]) -> None:
    """The one that carries twice as much gets two of three calls."""
    with upstreams(2) as two:
        two.sort(key=lambda one: one.address)
        for one, sent in zip(two, headers, strict=True):
            one.behave("status", status=200, headers=sent)
        urls = [one.url for one in two]
        with pools_over(library, urls, balancer="weighted_round_robin", load_report=REPORTS) as pools:
            eventually(lambda: calls(pools, 2) and weights(pools) == [1.33, 0.67])
            for one in two:
                one.behave("echo")
            assert calls(pools) == [20, 10]


@both
def test_loops_hear_reports_too(library: str) -> None:
    """The async driver hands them on as well."""

    async def run(pools: Pools) -> None:
        async with pools.async_client() as client:
            async with asyncio.timeout(10):
                while weights(pools) != [1.33, 0.67]:
                    await client.get("http://catalog/")

    with upstreams(2) as two:
        two.sort(key=lambda one: one.address)
        for one, cpu in zip(two, (0.2, 0.4), strict=True):
            said = {"endpoint-load-metrics": f"TEXT cpu_utilization={cpu},rps_fractional=100"}
            one.behave("status", status=200, headers=said)
        with pools_over(
            library, [one.url for one in two], balancer="weighted_round_robin", load_report=REPORTS
        ) as pools:
            asyncio.run(run(pools))


@both
@pytest.mark.parametrize("wanted", [True, False])
def test_reports_are_asked_for(library: str, wanted: bool) -> None:
    """With `ask`, by the header that vLLM and our own middlewares know."""
    with upstreams(1) as [one]:
        options: dict[str, Any] = {"balancer": "least_request", "load_report": {**REPORTS, "ask": wanted}}
        with pools_over(library, [one.url], **options) as pools, pools.client() as client:
            sent = {name.lower(): value for name, value in client.get("http://catalog/").json()["headers"].items()}
    assert sent.get("endpoint-load-metrics-format") == ("text" if wanted else None)


@both
def test_junk_harms_no_call(library: str) -> None:
    """Whatever is in the headers, the response arrives as it is."""
    with upstreams(1) as [one]:
        one.behave("status", status=200, headers={"endpoint-load-metrics": "JSON " + "[" * 3000})
        with (
            pools_over(library, [one.url], balancer="weighted_round_robin", load_report=REPORTS) as pools,
            pools.client() as client,
        ):
            for _ in range(5):
                answer = client.get("http://catalog/")
                assert answer.headers["endpoint-load-metrics"].startswith("JSON [")
            assert weights(pools) == [1]
