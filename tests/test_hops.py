"""Across hops: the deadline of the inbound request bounds its outbound calls, and retries are not multiplied."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from support.hop_apps import make_flask, make_starlette, make_wsgi
from support.pools import both, pools_over
from support.ports import free_port
from support.upstream import Upstream, upstream
from unsticky import DeadlineExceeded
from unsticky.context import Arrival, RequestState, current
from unsticky.routing.hops import deadline_header

LATE = "The deadline of this request has passed."
ENVOY = "x-envoy-expected-rq-timeout-ms"
ATTEMPT = "x-envoy-attempt-count"
OURS = {ENVOY, ATTEMPT, "grpc-timeout", "grpc-previous-rpc-attempts"}
every = pytest.mark.parametrize("host", ["flask", "wsgi", "starlette"])


class Hop:
    """A client of an app that calls an upstream."""

    def __init__(self, get: Callable[..., httpx.Response]) -> None:
        self._get = get

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self._get(path, headers=headers or {})

    def sent(self, headers: dict[str, str] | None = None, path: str = "/next/x") -> dict[str, str]:
        """The headers that arrive at the upstream."""
        answer = self.get(path, headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, str] = answer.json()["headers"]
        return found

    def time_sent(self, inbound: str | None, header: str = ENVOY) -> float | None:
        """The seconds that the upstream is told, for an inbound request that says `inbound`."""
        text = self.sent({"grpc-timeout": inbound} if inbound else {}).get(header)
        return None if text is None else deadline_header(header).read(text)

    def in_flight(self) -> int:
        return int(self.get("/see").json()["in_flight"])


@contextmanager
def hop(host: str, *urls: str, inbound: Any = None, **pool: Any) -> Iterator[Hop]:
    settings = {
        "session": {"store": "memory://"},
        "inbound": inbound or {},
        "pools": {"next": {"endpoints": list(urls), "retry": {"backoff": 0}, **pool}},
    }
    if host == "starlette":
        with TestClient(make_starlette(settings)) as client:
            yield Hop(client.get)
        return
    made: Any = make_flask(settings) if host == "flask" else make_wsgi(settings)
    with httpx.Client(transport=httpx.WSGITransport(made), base_url="http://app") as client:
        yield Hop(client.get)
    (made.extensions["unsticky"] if host == "flask" else made).close()


@pytest.fixture
def one() -> Generator[Upstream]:
    with upstream() as found:
        yield found


def requests(one: Upstream) -> int:
    return int(one.seen().get("requests", 0))


@every
def test_the_deadline_goes_on_and_shrinks(host: str, one: Upstream) -> None:
    """The next hop learns what is left, less the reserve; the app can read it, too."""
    with hop(host, one.url) as app:
        for headers in ({"grpc-timeout": "20S"}, {ENVOY: "20000"}, {"grpc-timeout": "20S", ENVOY: "90000"}):
            assert 10_000 < int(app.sent(headers)[ENVOY]) <= 19_990
            assert 10 < app.get("/see", headers).json()["remaining"] <= 20
        assert app.get("/see").json()["remaining"] is None
        assert not OURS & app.sent().keys()
        assert not OURS - {"grpc-timeout"} & app.sent({"grpc-timeout": "twenty"}).keys()


@every
def test_the_sooner_deadline_wins(host: str, one: Upstream) -> None:
    """The pool's timeout, or what the inbound request leaves."""
    with hop(host, one.url, timeout="10s", propagate={"deadline": "grpc-timeout"}) as app:
        for inbound, most in ((None, 10), ("60S", 10), ("5S", 4.99)):
            found = app.time_sent(inbound, "grpc-timeout")
            assert found is not None
            assert most / 2 < found <= most


@every
def test_an_attempt_tells_its_own_time(host: str, one: Upstream) -> None:
    """An attempt_timeout is all that the next hop has; and with "off" it is told nothing."""
    with hop(host, one.url, retry={"attempt_timeout": "3s"}, propagate={"deadline": "X-Left:ms"}) as app:
        assert 1000 < int(app.sent({"grpc-timeout": "20S"})["x-left"]) <= 3000
    with hop(host, one.url, timeout="10s", propagate={"deadline": "off"}) as app:
        assert not OURS & app.sent({ENVOY: "20000"}).keys()


@every
def test_a_deadline_for_all_requests(host: str, one: Upstream) -> None:
    """`timeout` is for those without a header, and the most for those with one."""
    with hop(host, one.url, inbound={"timeout": "30s", "reserve": "1s", "deadline_headers": ["X-Timeout"]}) as app:
        assert 15_000 < int(app.sent()[ENVOY]) <= 29_000
        assert 15_000 < int(app.sent({"x-timeout": "100"})[ENVOY]) <= 29_000
        assert 5_000 < int(app.sent({"x-timeout": "11"})[ENVOY]) <= 10_000
        assert 15_000 < int(app.sent({"grpc-timeout": "5S"})[ENVOY]) <= 29_000


@every
def test_a_slow_next_hop(host: str, one: Upstream) -> None:
    """When the deadline passes, the app answers 504 though nothing of it handles that, and holds nothing."""
    one.behave("hang")
    with hop(host, one.url) as app:
        answer = app.get("/next/x", {"grpc-timeout": "250m"})
        assert (answer.status_code, LATE in answer.text) == (504, True)
        assert app.in_flight() == 0


@every
def test_expired_on_arrival(host: str, one: Upstream) -> None:
    """The app is not run; where it shall be, nothing is sent on."""
    with hop(host, one.url) as app:
        answer = app.get("/see", {"grpc-timeout": "0n"})
        assert (answer.status_code, LATE in answer.text) == (504, True)
    with hop(host, one.url, inbound={"reject_expired": False}) as app:
        assert app.get("/see", {"grpc-timeout": "0n"}).json()["remaining"] == 0
        assert app.get("/next/x", {"grpc-timeout": "0n"}).status_code == 504
        assert requests(one) == 0


@every
def test_after_the_response(host: str, one: Upstream) -> None:
    """What the app does when the response is complete has no deadline of anybody's."""
    with hop(host, one.url, inbound={"reject_expired": False}) as app:
        assert app.get("/later/x", {"grpc-timeout": "0n"}).text == "later"
        assert one.seen()["GET /x"] == 1
        assert app.in_flight() == 0


@every
def test_a_call_that_wants_none_of_it(host: str, one: Upstream) -> None:
    """`inbound: False` in its extensions."""
    with hop(host, one.url) as app:
        assert not OURS & app.sent({"grpc-timeout": "1S", ATTEMPT: "2"}, path="/detached/x").keys()


def test_calls_from_threads(one: Upstream) -> None:
    """A sync client in a thread pool of an ASGI app has the same deadline."""
    with hop("starlette", one.url) as app:
        assert 10_000 < int(app.sent({"grpc-timeout": "20S"}, path="/thread/x")[ENVOY]) <= 19_990
        one.behave("hang")
        assert app.get("/thread/x", {"grpc-timeout": "250m"}).status_code == 504


@every
@pytest.mark.parametrize(("setting", "third"), [(ATTEMPT, "3"), ("grpc-previous-rpc-attempts", "2"), ("off", None)])
def test_retries_say_that_they_are(host: str, setting: str, third: str | None, one: Upstream) -> None:
    """From the second attempt on, and no header before."""
    with hop(host, one.url, propagate={"attempt": setting}) as app:
        assert not OURS & app.sent().keys()
        one.behave("status", status=503, times=2)
        assert app.sent().get(setting) == third


@every
@pytest.mark.parametrize("header", [{ATTEMPT: "2"}, {"grpc-previous-rpc-attempts": "1"}])
def test_a_retry_is_not_retried(host: str, header: dict[str, str], one: Upstream) -> None:
    """Its calls are made once, and tell the next hop so; what could not connect is made again all the same."""
    with hop(host, one.url) as app:
        assert app.sent(header)[ATTEMPT] == "2"
        before = requests(one)
        one.behave("status", status=503)
        assert app.get("/next/x", header).status_code == 503
        assert requests(one) == before + 1
        assert app.get("/next/x").status_code == 503
        assert requests(one) == before + 4
        assert app.get("/next/x", {ATTEMPT: "1"}).status_code == 503
        assert requests(one) == before + 7
    one.behave("echo")
    dead = f"http://127.0.0.1:{free_port()}"
    with hop(host, {"url": one.url, "priority": 1}, dead) as app:  # type: ignore[arg-type]
        assert app.sent(header)[ATTEMPT] == "3"


@every
def test_retries_on_retries(host: str, one: Upstream) -> None:
    """Where that is wanted."""
    one.behave("status", status=503)
    with hop(host, one.url, inbound={"retry_on_retry": True}) as app:
        assert app.get("/next/x", {ATTEMPT: "2"}).status_code == 503
        assert requests(one) == 3


class Late(RequestState):
    """A request whose time is over."""

    def __init__(self) -> None:
        self.arrival = Arrival()
        self.arrival.latest = 0.0


@both
def test_the_error_says_whose_deadline_it_was(library: str, one: Upstream) -> None:
    """It is a CallTimeout and a timeout of the library, with the caller's request."""
    token = current.set(Late())
    try:
        with pools_over(library, [one.url], timeout="5s") as pools, pools.client() as client:
            with pytest.raises(DeadlineExceeded) as caught:
                client.get("http://catalog/items")
            assert requests(one) == 0
            assert client.get("http://catalog/", extensions={"unsticky": {"inbound": False}}).status_code == 200
    finally:
        current.reset(token)
    assert str(caught.value) == "pool 'catalog': the inbound request's deadline left no more time, after 0 attempts"
    assert type(caught.value).__module__ == f"unsticky.{library}"
    assert str(caught.value.request.url) == "http://catalog/items"  # type: ignore[attr-defined]
