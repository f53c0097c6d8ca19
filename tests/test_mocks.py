"""The tools that users mock httpx and httpx2 with see each attempt, below routing and retries."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
import respx
from pytest_httpx import HTTPXMock

from support.pools import in_flight, pools_over
from unsticky import errors

FIRST, SECOND = "http://10.0.0.1:8000", "http://10.0.0.2:8000"
ENDPOINTS = [{"url": FIRST}, {"url": SECOND, "priority": 1}]
drivers = pytest.mark.parametrize("driver", ["sync", "async"])


def get(library: str, driver: str, url: str = "http://catalog/x") -> Any:
    """One call over both endpoints, the second of which is asked when the first fails."""

    async def main() -> Any:
        async with pools.async_client() as client:
            return await client.get(url)

    with pools_over(library, ENDPOINTS, retry={"backoff": 0}) as pools:
        try:
            if driver == "async":
                return asyncio.run(main())
            with pools.client() as client:
                return client.get(url)
        finally:
            assert in_flight(pools) == 0


@drivers
def test_pytest_httpx(driver: str, httpx_mock: HTTPXMock) -> None:
    """A status and an exception are retried; another host is mocked as well."""
    httpx_mock.add_response(url=f"{FIRST}/x", status_code=503)
    httpx_mock.add_response(url=f"{SECOND}/x", json={"n": 2})
    answer = get("httpx", driver)
    assert (answer.json(), answer.extensions["unsticky"]["attempts"]) == ({"n": 2}, 2)
    assert [request.url.host for request in httpx_mock.get_requests()] == ["10.0.0.1", "10.0.0.2"]
    httpx_mock.add_exception(httpx.ConnectError("refused"), url=f"{FIRST}/x")
    httpx_mock.add_response(url=f"{SECOND}/x", stream=_Parts())
    assert get("httpx", driver).text == "ab"
    httpx_mock.add_response(url="http://elsewhere/", text="there")
    assert get("httpx", driver, "http://elsewhere/").text == "there"


class _Parts(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __iter__(self) -> Any:
        yield from (b"a", b"b")

    async def __aiter__(self) -> Any:
        for part in (b"a", b"b"):
            yield part


@drivers
def test_pytest_httpx_without_an_answer(driver: str, httpx_mock: HTTPXMock) -> None:
    """What the mock raises for all endpoints comes out as ours and httpx's."""
    httpx_mock.add_exception(httpx.ConnectError("refused"), is_reusable=True)
    with pytest.raises(errors.AttemptsFailed) as caught:
        get("httpx", driver)
    assert isinstance(caught.value, httpx.ConnectError)


@drivers
def test_respx(driver: str) -> None:
    """Its default, which mocks httpcore."""
    with respx.mock() as router:
        first = router.get(f"{FIRST}/x").mock(side_effect=[httpx.Response(503), httpx.ConnectError("refused")])
        second = router.get(f"{SECOND}/x").respond(json={"n": 2})
        for _ in range(2):
            answer = get("httpx", driver)
            assert (answer.json(), answer.extensions["unsticky"]["attempts"]) == ({"n": 2}, 2)
        assert (first.call_count, second.call_count) == (2, 2)
        router.get("http://elsewhere/").respond(text="there")
        assert get("httpx", driver, "http://elsewhere/").text == "there"


@drivers
def test_pytest_httpx2(driver: str, httpx2_mock: respx.Router) -> None:
    """The same for httpx2."""
    first = httpx2_mock.get(f"{FIRST}/x").respond(503)
    second = httpx2_mock.get(f"{SECOND}/x").respond(json={"n": 2})
    answer = get("httpx2", driver)
    assert (answer.json(), answer.extensions["unsticky"]["attempts"]) == ({"n": 2}, 2)
    assert (first.call_count, second.call_count) == (1, 1)
    httpx2_mock.get("http://elsewhere/").respond(text="there")
    assert get("httpx2", driver, "http://elsewhere/").text == "there"
