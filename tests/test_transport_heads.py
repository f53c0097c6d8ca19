"""Responses whose head is cut off: that is no response, whatever is left to read of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import requests

from support.pools import both, in_flight, pools_over, wires
from support.speaker import speaker
from unsticky import Pools, errors
from unsticky.requests import PoolAdapter

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n"
cuts = pytest.mark.parametrize("cut", [*range(9, 20), 30, 41, 43, 50, 61, 62, 63])


def failed_attempts(error: errors.AttemptsFailed, pools: Pools) -> list[str]:
    assert in_flight(pools) == 0
    return [one.failure for one in error.attempts]


@cuts
def test_in_requests(cut: int) -> None:
    """Its http.client takes the end of the connection for the end of the head."""
    with speaker(lambda _: HEAD[:cut], once=True) as port:
        options = {"endpoints": [f"http://127.0.0.1:{port}"], "retry": {"backoff": 0, "attempts": 2}}
        with Pools.from_settings({"pools": {"catalog": options}}) as pools, requests.Session() as session:
            session.mount("http://", PoolAdapter(pools))
            with pytest.raises(errors.AttemptsFailed) as caught:
                session.get("http://catalog/")
            assert failed_attempts(caught.value, pools) == ["broken", "broken"]


def test_in_requests_through_a_proxy() -> None:
    """Which has connections of its own there."""
    with speaker(lambda _: HEAD[:30], once=True) as port:
        options = {"endpoints": ["http://127.0.0.1:9"], "retry": {"backoff": 0, "attempts": 2}}
        with Pools.from_settings({"pools": {"catalog": options}}) as pools, requests.Session() as session:
            session.mount("http://", PoolAdapter(pools))
            with pytest.raises(errors.AttemptsFailed) as caught:
                session.get("http://catalog/", proxies={"http": f"http://127.0.0.1:{port}"})
            assert failed_attempts(caught.value, pools) == ["broken", "broken"]


@wires
@cuts
def test_on_event_loops(library: str, cut: int) -> None:
    async def get(pools: Pools) -> Any:
        async with pools.async_client() as client:
            return await client.get("http://catalog/")

    with speaker(lambda _: HEAD[:cut], once=True) as port:
        retry = {"backoff": 0, "attempts": 2}
        with pools_over(library, [f"http://127.0.0.1:{port}"], retry=retry) as pools:
            with pytest.raises(errors.AttemptsFailed) as caught:
                asyncio.run(get(pools))
            assert failed_attempts(caught.value, pools) == ["broken", "broken"]


@both
@cuts
def test_in_threads(library: str, cut: int) -> None:
    with speaker(lambda _: HEAD[:cut], once=True) as port:
        retry = {"backoff": 0, "attempts": 2}
        with pools_over(library, [f"http://127.0.0.1:{port}"], retry=retry) as pools, pools.client() as client:
            with pytest.raises(errors.AttemptsFailed) as caught:
                client.get("http://catalog/")
            assert failed_attempts(caught.value, pools) == ["broken", "broken"]
