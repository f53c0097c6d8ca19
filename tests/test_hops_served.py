"""Across hops, with real servers: gunicorn and uvicorn in processes of their own, each calling the next."""

from __future__ import annotations

import socket
from collections.abc import Generator

import httpx
import pytest

from support.hop_chain import chain
from support.upstream import Upstream, upstream
from support.waiting import eventually

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


def leave(url: str, path: str, last: Upstream) -> None:
    """Ask for `path`, and go away when the last hop got it."""
    before = last.seen().get("requests", 0)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: hop\r\n\r\n".encode())
        eventually(lambda: last.seen().get("requests", 0) > before)


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_client_that_leaves(library: str, hops: int, last: Upstream) -> None:
    """Each hop on the way to the last one is told, cancels its call, and keeps nothing."""
    with (
        chain(last.url, *["starlette"] * hops, CLIENT=library) as first,
        httpx.Client(base_url=first, timeout=30) as client,
    ):
        ahead = [f"{'/next' * hop}" for hop in range(hops)]
        tasks = [client.get(f"{path}/tasks").json() for path in ahead]
        last.behave("hang")
        leave(first, f"{'/record' * hops}/x", last)
        last.behave("echo")
        for path, before in zip(ahead, tasks, strict=True):
            eventually(lambda path=path: client.get(f"{path}/outcomes").json() == ["ClientDisconnected"], 20)  # type: ignore[misc]
            eventually(lambda path=path, before=before: client.get(f"{path}/tasks").json() <= before, 20)  # type: ignore[misc]
            assert client.get(f"{path}/see").json()["in_flight"] == 0
        assert last.seen()["requests"] == 1
        eventually(lambda: last.seen()["connections"] == 0, 20)


def test_a_client_that_leaves_with_its_answer(last: Upstream) -> None:
    """What it started in the background goes on, though the server says that it is gone."""
    with chain(last.url, "starlette") as first, httpx.Client(base_url=first, timeout=30) as client:
        last.behave("status", status=200, delay=0.5)
        assert client.get("/later/x").text == "later"
        client.close()
        eventually(lambda: httpx.get(f"{first}/outcomes").json() == [""], 20)
