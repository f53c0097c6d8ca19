"""Across hops, with real servers: gunicorn and uvicorn in processes of their own, each calling the next."""

from __future__ import annotations

from collections.abc import Generator

import httpx
import pytest

from support.hop_chain import chain
from support.upstream import Upstream, upstream

ENVOY = "x-envoy-expected-rq-timeout-ms"
mixed = pytest.mark.parametrize("kinds", [("flask", "starlette", "flask"), ("starlette", "flask", "starlette")])


@pytest.fixture
def last() -> Generator[Upstream]:
    with upstream() as found:
        yield found


@mixed
def test_three_hops(kinds: tuple[str, ...], last: Upstream) -> None:
    """Each hop has less time than the one before; a hang is answered early; attempts add up and do not multiply."""
    with (
        chain(last.url, *kinds, POOLS__NEXT__RETRY__BACKOFF="0", INBOUND__RESERVE="100ms") as first,
        httpx.Client(base_url=first, timeout=30) as client,
    ):
        asked = {"grpc-timeout": "20S"}
        seen = [client.get(f"{'/next' * hops}/see", headers=asked).json() for hops in range(3)]
        at_last = client.get("/next/next/next/x", headers=asked).json()["headers"]
        left = [*(one["remaining"] for one in seen), int(at_last[ENVOY]) / 1000]
        assert all(10 < seconds <= 20 - 0.1 * hops for hops, seconds in enumerate(left))

        last.behave("hang")
        answer = client.get("/next/next/next/x", headers={"grpc-timeout": "1500m"})
        assert answer.status_code == 504
        assert [client.get(f"{'/next' * hops}/see").json()["in_flight"] for hops in range(3)] == [0, 0, 0]

        last.behave("status", status=503)
        before = last.seen()["requests"]
        assert client.get("/next/next/next/x").status_code == 503
        assert last.seen()["requests"] - before == 7  # of 3 * 3 * 3
