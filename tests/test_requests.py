"""Calls of requests over pools of real servers: what is retried, what is raised, and that nothing is left behind."""

from __future__ import annotations

import gc
import io
import os
import re
import signal
import ssl
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from urllib3.exceptions import InsecureRequestWarning

from support.otlp import Telemetry
from support.pools import in_flight
from support.ports import free_port
from support.tls import CERTIFICATE, tls_endpoint
from support.upstream import Upstream, upstreams
from support.waiting import eventually
from unsticky import Pools, errors
from unsticky._transport.requests_bodies import Undecoded
from unsticky.requests import PoolAdapter, _Driver, _of_requests, call_options
from unsticky.routing.call import Failure
from unsticky.worker import worker

NOWAIT = {"backoff": 0}


@pytest.fixture
def three() -> Generator[list[Upstream]]:
    with upstreams(3) as found:
        yield found


@contextmanager
def session_over(endpoints: list[Any], **options: Any) -> Iterator[tuple[Pools, requests.Session]]:
    """A session whose calls of every host go by one pool, "catalog", where it serves them."""
    settings = {"pools": {"catalog": {"endpoints": endpoints, **options}}}
    with Pools.from_settings(settings) as pools, requests.Session() as session:
        session.trust_env = False
        session.mount("http://", PoolAdapter(pools))
        session.mount("https://", PoolAdapter(pools))
        yield pools, session
        assert in_flight(pools) == 0


def first_then_second(three: list[Upstream]) -> list[Any]:
    return [{"url": three[0].url}, {"url": three[1].url, "priority": 1}]


def test_calls_are_spread_and_look_untouched(three: list[Upstream]) -> None:
    """Every endpoint serves its share; the response is one to the caller's request."""
    with session_over([one.url for one in three], balancer="round_robin") as (_, session):
        answers = [session.get("http://catalog/items", params={"q": "1 2"}) for _ in range(6)]
        ports = [answer.json()["port"] for answer in answers]
        assert sorted(ports) == sorted([one.port for one in three] * 2)
        assert answers[0].json()["path"] == "/items?q=1+2"
        assert answers[0].url == answers[0].request.url == "http://catalog/items?q=1+2"
        assert answers[0].json()["headers"]["host"] == f"127.0.0.1:{ports[0]}"
        assert answers[0].unsticky == {"pool": "catalog", "endpoint": f"127.0.0.1:{ports[0]}", "attempts": 1}  # type: ignore[attr-defined]
        assert [one.seen()["connections"] for one in three] == [1, 1, 1]
        assert session.get(f"{three[1].url}/x").json()["port"] == three[1].port
        with pytest.raises(requests.ConnectionError) as caught:
            session.get(f"http://127.0.0.1:{free_port()}/")
        assert not isinstance(caught.value, errors.RoutingError)


def test_cookies_and_redirects_are_the_sessions(three: list[Upstream]) -> None:
    """Cookies belong to the pool's name; a relative redirect goes over the pool again."""
    headers = {"Set-Cookie": "a=1", "Location": "/there"}
    three[0].behave("status", status=302, headers=headers, times=1)
    with session_over([three[0].url]) as (_, session):
        answer = session.get("http://catalog/here")
        assert (answer.json()["path"], answer.json()["headers"]["cookie"]) == ("/there", "a=1")
        assert [one.url for one in answer.history] == ["http://catalog/here"]
        assert [cookie.domain for cookie in session.cookies] == ["catalog.local"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_refused_connections_are_retried_for_any_method(method: str, three: list[Upstream]) -> None:
    """Nothing was sent to an endpoint that refuses, so that a POST goes to another one, generators and all."""
    three[0].kill()
    with session_over(first_then_second(three), retry=NOWAIT, ejection={"consecutive_failures": 99}) as (_, session):
        for body in (b"body", "body", io.BytesIO(b"body"), iter([b"bo", b"dy"])):
            answer = session.request(method, "http://catalog/", data=body)
            assert (answer.json()["body"], answer.unsticky["attempts"]) == ("body", 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["drop", "garbage"])
def test_broken_answers(mode: str, three: list[Upstream]) -> None:
    """A GET is repeated elsewhere when an endpoint breaks; a POST, or a body that can't be sent twice, is not."""
    three[0].behave(mode)
    with session_over(first_then_second(three), retry=NOWAIT, ejection={"consecutive_failures": 99}) as (_, session):
        assert session.get("http://catalog/").json()["port"] == three[1].port
        with pytest.raises(requests.ConnectionError) as caught:
            session.post("http://catalog/", data=b"x")
        assert not isinstance(caught.value, errors.RoutingError)
        with pytest.raises(requests.ConnectionError):
            session.put("http://catalog/", data=iter([b"a", b"b"]))
        assert three[1].seen()["requests"] == 1


def test_files_are_sent_again(three: list[Upstream], tmp_path: Path) -> None:
    """A file is rewound to where it was for each attempt; so is a form."""
    path = tmp_path / "upload"
    path.write_bytes(b"skipped content")
    three[0].behave("status", status=503)
    with session_over(first_then_second(three), retry=NOWAIT) as (_, session), path.open("rb") as file:
        file.seek(8)
        answer = session.put("http://catalog/", data=file)
        assert (answer.json()["body"], answer.unsticky["attempts"]) == ("content", 2)  # type: ignore[attr-defined]
        file.seek(0)
        assert "skipped content" in session.put("http://catalog/", files={"f": file}).json()["body"]


def test_timeouts(three: list[Upstream]) -> None:
    """An attempt's timeout costs one attempt, the call's ends everything, and the caller's own holds for each."""
    three[0].pause()
    retry = {**NOWAIT, "attempt_timeout": "300ms"}
    with session_over(first_then_second(three), retry=retry) as (_, session):
        assert session.get("http://catalog/").json()["port"] == three[1].port
        with pytest.raises(requests.ReadTimeout):
            session.post("http://catalog/")
        with call_options(timeout=0.15), pytest.raises(errors.CallTimeout) as caught:
            session.get("http://catalog/")
        assert isinstance(caught.value, requests.Timeout)
        assert caught.value.request.url == "http://catalog/"
        assert isinstance(caught.value.__cause__, requests.ReadTimeout)
    with session_over([three[0].url], retry={"attempts": 1}) as (_, session), pytest.raises(requests.ReadTimeout):
        session.get("http://catalog/", timeout=(1, 0.1))


def test_the_attempt_timeout_ends_at_the_headers(three: list[Upstream]) -> None:
    """A body may take longer than an attempt may; the caller's own timeout holds for it."""
    three[0].behave("slow", seconds=0.6, chunks=2)
    with session_over([three[0].url], retry={"attempt_timeout": "300ms"}, timeout="400ms") as (_, session):
        assert session.get("http://catalog/").text == "x" * 20
        with pytest.raises(requests.ConnectionError, match="Read timed out"):
            session.get("http://catalog/", timeout=0.3)


def test_the_last_response_is_the_callers(three: list[Upstream]) -> None:
    """When all attempts were answered with 503, the last answer is given; one attempt where the caller wants one."""
    for one in three:
        one.behave("status", status=503, body="busy")
    with session_over([one.url for one in three], retry=NOWAIT) as (_, session):
        answer = session.get("http://catalog/")
        assert (answer.status_code, answer.text, answer.unsticky["attempts"]) == (503, "busy", 3)  # type: ignore[attr-defined]
        with call_options(retry=False):
            assert session.get("http://catalog/").unsticky["attempts"] == 1  # type: ignore[attr-defined]


def test_all_endpoints_down() -> None:
    """One exception of both families names every attempt; one attempt raises its own."""
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    with session_over(urls, retry=NOWAIT) as (_, session):
        with pytest.raises(errors.AttemptsFailed) as caught:
            session.get("http://catalog/x?secret=1")
        error = caught.value
        assert isinstance(error, requests.ConnectionError)
        assert type(error).__qualname__ == "AttemptsFailedToConnect"
        assert all("could not connect" in str(line) for line in error.attempts)
        assert "secret" not in str(error)
        assert error.request is not None
        with call_options(retry=False), pytest.raises(requests.ConnectionError) as alone:
            session.get("http://catalog/")
        assert not isinstance(alone.value, errors.RoutingError)


def test_a_full_and_an_empty_pool(three: list[Upstream]) -> None:
    """Nothing is sent, and the errors are ConnectionErrors."""
    with session_over([three[0].url], limits={"maximum_in_flight": 1}) as (pools, session):
        with session.get("http://catalog/", stream=True):
            assert in_flight(pools) == 1
            with pytest.raises(errors.PoolOverflow) as full:
                session.get("http://catalog/")
            assert isinstance(full.value, requests.ConnectionError)
        pools.drain("catalog", three[0].url)
        with pytest.raises(errors.NoHealthyEndpoint) as empty:
            session.get("http://catalog/")
        assert isinstance(empty.value, requests.ConnectionError)


def test_a_truncated_body(three: list[Upstream]) -> None:
    """It raises requests' own error, counts against its endpoint, and gives all back."""
    three[0].behave("truncated")
    ejection = {"consecutive_failures": 2, "maximum_percent": 100}
    with session_over(first_then_second(three), ejection=ejection) as (pools, session):
        for _ in range(2):
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                session.get("http://catalog/")
        assert in_flight(pools) == 0
        assert session.get("http://catalog/").json()["port"] == three[1].port


def test_streams_keep_their_lease(three: list[Upstream]) -> None:
    """Until they are read to their end, closed, or dropped; connections are used again."""
    with session_over([three[0].url]) as (pools, session):
        for end in ("content", "close", "raw", "lines"):
            response = session.get("http://catalog/", stream=True)
            assert in_flight(pools) == 1
            if end == "content":
                assert response.json()["port"] == three[0].port
            elif end == "raw":
                assert response.raw.read().startswith(b"{")
            elif end == "lines":
                assert list(response.iter_lines())
            else:
                response.close()
            assert in_flight(pools) == 0
        assert session.head("http://catalog/").status_code == 200
        for number in range(50):
            response = session.get("http://catalog/", stream=True)
            if number % 2:
                next(response.iter_content(4))
            del response
        gc.collect()
        eventually(lambda: in_flight(pools) == 0)
        eventually(lambda: three[0].seen()["connections"] <= 1)
    eventually(lambda: three[0].seen()["connections"] == 0)
    eventually(lambda: not worker.running)


def test_an_interrupted_call_gives_all_back(three: list[Upstream]) -> None:
    """Ctrl-C in the middle of a call, or of a body."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with session_over([three[0].url]) as (pools, session):
            for options in ({"mode": "hang"}, {"mode": "slow", "seconds": 5}):
                three[0].behave(**options)
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(KeyboardInterrupt):
                    session.get("http://catalog/")
                gc.collect()
                eventually(lambda pools=pools: in_flight(pools) == 0)  # type: ignore[misc]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_kill_one_of_three_under_50_threads(three: list[Upstream]) -> None:
    """SIGKILL in the middle of concurrent idempotent calls: none fails."""
    killed = threading.Event()
    urls = [one.url for one in three]
    with session_over(urls, retry=NOWAIT) as (_, session), ThreadPoolExecutor(50) as threads:

        def call(_: int) -> int:
            after = 0
            while after < 3:
                after += killed.is_set()
                assert session.get("http://catalog/").status_code == 200
            return after

        results = threads.map(call, range(50))
        eventually(lambda: three[0].seen().get("requests", 0) > 20)
        three[0].kill()
        killed.set()
        assert sum(results) == 150


def test_tls(tmp_path: Path) -> None:
    """A `match` origin is verified by its own name, also when a connection to the endpoint is open already."""
    bundle = tmp_path / "ca.pem"
    bundle.write_text(CERTIFICATE)
    origins = ["https://api.example.com", "https://other.example.com"]
    with tls_endpoint() as endpoint, session_over([endpoint.url], match=origins, retry={"attempts": 1}) as (_, session):
        session.verify = str(bundle)
        assert session.get(origins[0]).status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            session.get(origins[1])
        assert session.get("https://catalog/").status_code == 200, "the endpoint's own address is in the certificate"
        with pytest.warns(InsecureRequestWarning):
            assert session.get(origins[1], verify=False).status_code == 200
        assert {"api.example.com", "other.example.com"} <= set(endpoint.names)


def test_hash_keys(three: list[Upstream]) -> None:
    """From the request, or from the call."""
    options: dict[str, Any] = {"balancer": "ring_hash", "hash": {"on": ["header:x-tenant"]}}
    with session_over([one.url for one in three], **options) as (_, session):

        def port(**headers: str) -> int:
            found: int = session.get("http://catalog/", headers=headers).json()["port"]
            return found

        assert len({port(**{"X-Tenant": "a"}) for _ in range(5)}) == 1
        assert len({port(**{"X-Tenant": str(n)}) for n in range(40)}) == 3
        with call_options(hash_key="u42"):
            assert len({port(**{"X-Tenant": str(n)}) for n in range(5)}) == 1


def test_a_span_for_each_attempt(otlp: Telemetry, three: list[Upstream]) -> None:
    """As with httpx; each endpoint receives its attempt's context."""
    three[0].behave("status", status=503)
    with session_over(first_then_second(three), retry=NOWAIT) as (_, session):
        answer = session.get("http://catalog/items")
    first, second = otlp.spans()
    assert {first.scope, second.scope} == {"unsticky"}
    assert second.attributes["http.request.resend_count"] == 1
    assert second.attributes["url.full"] == f"{three[1].url}/items"
    assert answer.json()["headers"]["traceparent"].split("-")[2] == second.span_id


def test_beside_contribs_instrumentation(otlp: Telemetry, three: list[Upstream]) -> None:
    """It wraps the session, so that its one span remains, with an event for each attempt."""
    three[0].behave("status", status=503)
    RequestsInstrumentor().instrument()
    try:
        with (
            session_over(first_then_second(three), retry=NOWAIT) as (_, session),
            trace.get_tracer("the app").start_as_current_span("caller"),
        ):
            answer = session.get("http://catalog/items")
    finally:
        RequestsInstrumentor().uninstrument()
    (span,) = otlp.spans()
    assert span.scope == "opentelemetry.instrumentation.requests"
    assert [name for name, _ in span.events].count("unsticky.attempt") == 2
    assert span.attributes["unsticky.pool"] == "catalog"
    assert answer.json()["headers"]["traceparent"].split("-")[2] == span.span_id


def test_fallbacks(three: list[Upstream]) -> None:
    """Another pool, and a response of the settings', are responses of requests like any other."""
    dead = [f"http://127.0.0.1:{free_port()}"]
    main = {"endpoints": dead, "fallback": {"pool": "spare"}, "retry": {"backoff": 0}}
    answer = {"status": 203, "headers": {"X-From": "settings"}, "json": '{"items": []}'}
    last = {"endpoints": dead, "fallback": answer, "retry": {"backoff": 0}}
    settings = {"pools": {"main": main, "spare": {"endpoints": [three[1].url]}, "last": last}}
    with Pools.from_settings(settings) as pools, requests.Session() as session:
        session.trust_env = False
        session.mount("http://", PoolAdapter(pools))
        found = session.post("http://main/x", data=b"body")
        assert (found.json()["port"], found.json()["body"]) == (three[1].port, "body")
        assert found.unsticky["fallback"] == "spare"  # type: ignore[attr-defined]
        found = session.get("http://last/x")
        assert (found.status_code, found.json(), found.headers["x-from"]) == (203, {"items": []}, "settings")
        assert found.headers["Content-Type"] == "application/json"
        assert isinstance(found.unsticky["error"], requests.ConnectionError)  # type: ignore[attr-defined]
        assert session.head("http://last/x").content == b""
        with session.get("http://last/x", stream=True) as streamed:
            assert b"".join(streamed.iter_content(4)) == b'{"items": []}'


def test_a_broken_body_is_tried_again(three: list[Upstream]) -> None:
    """With buffer_body, on another endpoint; without, it is the caller's trouble."""
    three[0].behave("truncated")
    with session_over(first_then_second(three), retry={**NOWAIT, "buffer_body": 10_000}) as (pools, session):
        answer = session.get("http://catalog/", stream=True)
        assert in_flight(pools) == 0
        assert (answer.json()["port"], answer.unsticky["attempts"]) == (three[1].port, 2)  # type: ignore[attr-defined]
        with call_options(buffer_body=0), pytest.raises(requests.RequestException):
            session.get("http://catalog/")
        with call_options(retry=False), pytest.raises(requests.RequestException):
            session.get("http://catalog/")


def test_a_body_that_is_late_is_tried_again(three: list[Upstream]) -> None:
    """An attempt's time covers what is read first of its body."""
    three[0].behave("slow", seconds=30)
    retry = {**NOWAIT, "buffer_body": 10_000, "attempt_timeout": "500ms"}
    with session_over(first_then_second(three), retry=retry) as (_, session):
        assert session.get("http://catalog/").json()["port"] == three[1].port


@pytest.mark.parametrize("limit", [10_000, 5, 0])
@pytest.mark.parametrize("stream", [True, False])
def test_errors_in_bodies_are_those_of_requests(stream: bool, limit: int, three: list[Upstream]) -> None:
    """The same whether the body is read first, begun, or not; and none is taken for one of connecting."""
    three[0].behave("truncated")
    with session_over([three[0].url], retry={**NOWAIT, "buffer_body": limit, "attempts": 2}) as (pools, session):
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            _ = session.get("http://catalog/", stream=stream).content
        with call_options(retry=False), pytest.raises(requests.exceptions.ChunkedEncodingError):
            _ = session.get("http://catalog/", stream=stream).content
        assert in_flight(pools) == 0


def test_errors_without_another_attempt(three: list[Upstream]) -> None:
    """A body that was read first and may not be tried again, and one that breaks off after its beginning."""
    retry = {**NOWAIT, "buffer_body": 15, "budget_ratio": 0, "budget_per_second": 0}
    with session_over([three[0].url], retry=retry) as (_, session):
        three[0].behave("truncated")
        with call_options(buffer_body=10_000), pytest.raises(requests.exceptions.ChunkedEncodingError):
            session.get("http://catalog/", stream=True)
        three[0].behave("chunked", chunks=1_000_000)
        answer = session.get("http://catalog/", stream=True)
        three[0].kill()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            _ = answer.content


@pytest.mark.parametrize(
    ("broken", "failure", "raised"),
    [
        (TimeoutError(), Failure.TIMEOUT, requests.ReadTimeout),
        (ConnectionResetError(), Failure.BROKEN, requests.exceptions.ChunkedEncodingError),
        (ssl.SSLError("bad record mac"), Failure.BROKEN, requests.ConnectionError),
    ],
)
def test_failures_of_bodies(broken: Exception, failure: Failure, raised: type[Exception]) -> None:
    """What breaks a body is never one of connecting, which would repeat any method, nor one of ours."""

    class Broken(io.RawIOBase):
        def read(self, amount: int = -1) -> bytes:
            raise broken

    body: Any = Broken()
    with pytest.raises(urllib3.exceptions.HTTPError) as caught:
        list(Undecoded(urllib3.HTTPResponse(body, preload_content=False)))
    assert _Driver.library.failure(caught.value) is failure
    assert isinstance(_of_requests(caught.value), raised)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"timeout": "1s"}, "(timeout=...): expected seconds above 0"),
        ({"nonsense": 1}, ': unknown key "nonsense", allowed are buffer_body'),
        ({"retrie": False}, ': unknown key "retrie", did you mean "retry"?'),
        ({"retry": "no"}, "(retry=...): expected true or false"),
        ({"buffer_body": -1}, "(buffer_body=...): expected bytes, 0 or more"),
        ({"hash_key": 5}, "(hash_key=...): expected a text"),
    ],
)
def test_options_that_cant_be_meant(options: dict[str, Any], text: str, three: list[Upstream]) -> None:
    """Are refused where they are written, by the name that was written."""
    with session_over([three[0].url]) as (pools, _):
        with pytest.raises(ValueError, match="^" + re.escape("PoolAdapter" + text)):
            PoolAdapter(pools, **options)
        with pytest.raises(ValueError, match="^" + re.escape("call_options" + text)):
            call_options(**options)


@pytest.mark.parametrize(("limit", "held"), [(1000, 0), (25, 1)])
def test_bodies_read_first_are_the_same(limit: int, held: int, three: list[Upstream]) -> None:
    """Short, long, of unknown length or packed; whether read at once, in pieces or by lines."""
    with session_over([three[0].url], retry={**NOWAIT, "buffer_body": limit}) as (pools, session):
        three[0].behave("chunked", chunks=10)
        expected = b"".join(b"%010d" % number for number in range(10))
        answer = session.get("http://catalog/", stream=True)
        assert in_flight(pools) == held
        assert b"".join(answer.iter_content(7)) == expected
        assert session.get("http://catalog/").content == expected
        assert session.get("http://catalog/", stream=True).raw.read(12) == expected[:12]
        three[0].behave("gzip")
        assert session.get("http://catalog/").text == "unpacked"
        three[0].behave("status", status=200, body="a\nb")
        assert list(session.get("http://catalog/", stream=True).iter_lines()) == [b"a", b"b"]
        assert session.head("http://catalog/").status_code == 200
        assert three[0].seen()["accepted"] < 20
        gc.collect()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(three: list[Upstream]) -> None:
    """As under gunicorn --preload: on a shared connection each would get the other's answers."""
    with session_over([three[0].url]) as (_, session):
        assert session.get("http://catalog/").status_code == 200
        accepted = three[0].seen()["accepted"]
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            status = 1
            try:
                status = int(session.get("http://catalog/child").json()["path"] != "/child")
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert session.get("http://catalog/parent").json()["path"] == "/parent"
        assert three[0].seen()["accepted"] == accepted + 2  # the child's, and that of the counters themselves
