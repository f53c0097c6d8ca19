"""Cookies of the clients over pools are those of the library's own clients."""

from __future__ import annotations

from types import ModuleType

import httpx
import httpx2
import pytest

from unsticky import Pools
from unsticky.jar import Jar


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_cookies_are_kept_sent_and_expire(library: ModuleType) -> None:
    """A response that sets one is noticed among those that set none."""
    sent: list[str | None] = []
    answers = iter([{}, {"Set-Cookie": "a=1"}, {}, {"set-cookie": "a=1; Max-Age=0"}, {}])

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("cookie"))
        found: httpx.Response = library.Response(200, headers=next(answers))
        return found

    settings = {"client": library.__name__, "pools": {"catalog": {"endpoints": ["http://10.0.0.1:8000"]}}}
    with Pools.from_settings(settings) as pools, pools.client(transport=library.MockTransport(answer)) as client:
        assert isinstance(client.cookies.jar, Jar)
        for _ in range(5):
            client.get("http://catalog/items")
    assert sent == [None, None, "a=1", "a=1", None]
    assert dict(client.cookies) == {}


def test_cookies_of_the_caller_stay_the_callers() -> None:
    """They replace the jar, as with any client."""
    settings = {"pools": {"catalog": {"endpoints": ["http://10.0.0.1:8000"]}}}
    with Pools.from_settings(settings) as pools, pools.client(cookies={"a": "1"}) as client:
        assert not isinstance(client.cookies.jar, Jar)
        assert dict(client.cookies) == {"a": "1"}
